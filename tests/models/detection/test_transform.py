"""The detection transform, checks of inputs, and masks."""

import math

import pytest
import torch
import torch.nn.functional as F

from fastcnn.models.detection.inputs import check_images, check_targets
from fastcnn.models.detection.masks import crop_masks, paste_masks
from fastcnn.models.detection.transform import DetectionTransform, resize_boxes

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (800, 1066)),  # Of the shorter side.
        ((400, 1000), (533, 1333)),  # The longer side is at its limit.
        ((1, 1), (800, 800)),
        ((1, 4000), (1, 1333)),  # Not 0 pixels.
        ((4000, 4000), (800, 800)),
    ],
)
def test_sizes(size, resized):
    assert DetectionTransform(800, 1333, **PLAIN).resized(size) == resized


def test_images_are_normalised_resized_and_padded():
    transform = DetectionTransform(64, 100, (0.5, 0.4, 0.3), (0.1, 0.2, 0.4))
    images = [torch.rand(3, 32, 40), torch.rand(3, 50, 25)]
    batch, sizes, targets = transform(images)
    assert (batch.shape, sizes, targets) == ((2, 3, 128, 96), [(64, 80), (100, 50)], None)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (transform.mean, transform.std))
    wanted = F.interpolate(((images[0] - mean) / std)[None], (64, 80), mode="bilinear")[0]
    assert torch.equal(batch[0, :, :64, :80], wanted)
    assert not batch[0, :, 64:].any() and not batch[0, :, :, 80:].any()


def test_equal_images_are_resized_as_one_batch():
    transform = DetectionTransform(64, 100, **PLAIN)
    images = [torch.rand(3, 32, 40) for _ in range(3)]
    one_by_one = torch.cat([transform([image])[0] for image in images])
    torch.testing.assert_close(transform(images)[0], one_by_one)


def test_targets_follow_and_detections_come_back():
    transform = DetectionTransform(64, 200, **PLAIN)
    boxes = torch.tensor([[4.0, 8, 20, 32]])
    masks = torch.zeros(1, 32, 64, dtype=torch.uint8)
    masks[0, 8:, 4:20] = 1
    target = {"boxes": boxes, "labels": torch.tensor([1]), "masks": masks}
    _, sizes, (found,) = transform([torch.rand(3, 32, 64)], [target])
    assert sizes == [(64, 128)]
    assert found["boxes"].tolist() == [[8, 16, 40, 64]]
    assert found["masks"].shape == (1, 64, 128) and found["masks"].sum() == 4 * masks.sum()
    assert target["boxes"] is boxes and boxes.tolist() == [[4, 8, 20, 32]]
    (back,) = transform.restore([{"boxes": found["boxes"]}], sizes, [(32, 64)])
    assert torch.equal(back["boxes"], boxes)
    assert resize_boxes(torch.empty(0, 4), (3, 4), (5, 6)).shape == (0, 4)


def test_training_draws_a_size():
    transform = DetectionTransform((32, 48, 64), 100, **PLAIN)
    generator = torch.Generator().manual_seed(0)
    drawn = {transform.resized((40, 40), True, generator) for _ in range(50)}
    assert drawn == {(32, 32), (48, 48), (64, 64)}
    assert transform.resized((40, 40)) == (64, 64)


def paste_one(mask, box, height, width):
    """One mask after the other, as the description says it: pad, stretch, cut off."""
    side = mask.size(-1) + 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_w, half_h = (box[2] - box[0]) / 2 * side / (side - 2), (box[3] - box[1]) / 2 * side / (side - 2)
    x1, y1, x2, y2 = (int(value) for value in (x - half_w, y - half_h, x + half_w, y + half_h))
    size = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    stretched = F.interpolate(F.pad(mask, (1, 1, 1, 1))[None], size, mode="bilinear", align_corners=False)[0, 0]
    canvas = torch.zeros(height + 400, width + 400, dtype=mask.dtype)
    canvas[200 + y1 : 200 + y1 + size[0], 200 + x1 : 200 + x1 + size[1]] = stretched
    return canvas[200 : 200 + height, 200 : 200 + width]


def test_masks_are_pasted_all_at_once():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(40, 1, 28, 28, generator=generator, dtype=torch.float64)
    corner = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 90 - 15
    sides = torch.rand(40, 2, generator=generator, dtype=torch.float64) ** 3 * 100
    boxes = torch.cat((corner, corner + sides), 1)
    found = paste_masks(masks, boxes, (60, 80))
    wanted = torch.stack([paste_one(mask, box.tolist(), 60, 80) for mask, box in zip(masks, boxes, strict=True)])
    torch.testing.assert_close(found[:, 0], wanted)
    assert paste_masks(masks[:0], boxes[:0], (60, 80)).shape == (0, 1, 60, 80)


def test_cropping_a_pasted_mask_finds_it_again():
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, 0, 16:48, 8:40] = masks[1, 0, :32, :32] = 1
    boxes = torch.tensor([[8.0, 16, 40, 48], [0, 0, 64, 64]])
    found = crop_masks(masks[:, 0], boxes, torch.tensor([0, 1]), 8)
    assert found[0, 1:-1, 1:-1].min() == 1
    assert found[1].round().sum() == 16


IMAGE = torch.rand(3, 8, 8)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "images must be one or more, got none"),
        (3, TypeError, "images must be a list of tensors, got int"),
        ([1], TypeError, r"images\[0\] must be a tensor, got int"),
        (IMAGE, ValueError, r"images must be \(N, 3, H, W\) or a list, got \(3, 8, 8\)"),
        ([IMAGE, IMAGE[0]], ValueError, r"images\[1\] must be \(3, H, W\), got \(8, 8\)"),
        ([IMAGE[:1]], ValueError, r"images\[0\] must be \(3, H, W\), got \(1, 8, 8\)"),
        ([IMAGE[:, :0]], ValueError, r"images\[0\] must be \(3, H, W\), got \(3, 0, 8\)"),
        ([IMAGE.byte()], TypeError, r"images\[0\] must be floating with values in \[0, 1\], got torch.uint8"),
    ],
)
def test_bad_images(images, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check_images(images, 3)


GOOD = {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([2]), "masks": torch.zeros(1, 8, 8)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": None}, ValueError, r"targets\[0\] must be a dict with a tensor 'boxes'"),
        ({"boxes": GOOD["boxes"].long()}, TypeError, r"\['boxes'\] must be floating, got torch.int64"),
        ({"boxes": torch.empty(0)}, ValueError, r"\['boxes'\] must be \(G, 4\), got \(0,\)"),
        ({"boxes": torch.tensor([[3.0, 2, 3, 4]])}, ValueError, r"got \[3.0, 2.0, 3.0, 4.0\] in row 0"),
        ({"boxes": torch.tensor([[1.0, 5, 3, 4]])}, ValueError, r"x1 < x2 and y1 < y2, got \[1.0, 5.0, 3.0, 4.0\]"),
        (
            {"boxes": torch.tensor([[1.0, math.nan, 3, 4]])},
            ValueError,
            r"must be finite .*, got \[1.0, nan, 3.0, 4.0\]",
        ),
        (
            {"boxes": torch.tensor([[1.0, 2, math.inf, 4]])},
            ValueError,
            r"must be finite .*, got \[1.0, 2.0, inf, 4.0\]",
        ),
        (
            {"boxes": torch.tensor([[8.0, 2, 9, 4]])},
            ValueError,
            r"must lie in the image of \(8, 8\), got \[8.0, 2.0, 9.0, 4.0\] in row 0",
        ),
        ({"boxes": torch.tensor([[1.0, -3, 9, 0]])}, ValueError, r"must lie in the image of \(8, 8\), got \[1.0, -3"),
        ({"labels": torch.tensor([2.0])}, TypeError, r"\['labels'\] must be int64, got torch.float32"),
        ({"labels": torch.tensor([2, 3])}, ValueError, r"\['labels'\] must be \(1,\), one for each box, got \(2,\)"),
        ({"labels": torch.tensor([0])}, ValueError, r"\['labels'\] must be 1 to 4, got 0"),
        ({"labels": torch.tensor([5])}, ValueError, r"\['labels'\] must be 1 to 4, got 5"),
        ({"masks": torch.zeros(1, 4, 8)}, ValueError, r"\['masks'\] must be \(1, 8, 8\), got \(1, 4, 8\)"),
    ],
)
def test_bad_targets(change, error, message):
    with pytest.raises(error, match=message) as found:
        check_targets([{**GOOD, **change}], [(8, 8)], range(1, 5), masks=True)
    assert "\n" not in str(found.value)


def test_targets_may_cross_the_border():
    check_targets([{**GOOD, "boxes": torch.tensor([[-5.0, 7, 1, 90]])}], [(8, 8)], range(1, 5), masks=True)


def test_targets_of_the_wrong_number():
    check_targets([GOOD], [(8, 8)], range(1, 5), masks=True)
    with pytest.raises(ValueError, match="targets must be one for each of 2 images, got 1"):
        check_targets([GOOD], [(8, 8)] * 2, range(1, 5), masks=False)
    with pytest.raises(TypeError, match="targets must be a list of dicts, got dict"):
        check_targets(GOOD, [(8, 8)], range(1, 5), masks=False)
