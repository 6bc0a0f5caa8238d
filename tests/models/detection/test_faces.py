"""Landmarks from targets to detections, templates, and the losses of TinyFace and RetinaFace as they are defined."""

import math

import pytest
import torch
import torch.nn.functional as F

from fastcnn import models
from fastcnn.data import geometry, transforms
from fastcnn.models.detection.anchors import Templates
from fastcnn.models.detection.boxes import box_iou
from fastcnn.models.detection.coders import BoxCoder, PointCoder
from fastcnn.models.detection.inputs import check_targets
from fastcnn.models.detection.transform import DetectionTransform

SMALL = {"min_size": 64, "max_size": 64, "dtype": torch.float64}
BOXES = torch.tensor([[8.0, 8, 40, 44], [30.0, 20, 56, 50]], dtype=torch.float64)
POINTS = torch.tensor([[16.0, 20], [30, 20], [23, 28], [18, 36], [29, 36]], dtype=torch.float64)


def target():
    points = torch.stack((POINTS, torch.full_like(POINTS, math.nan)))
    return {"boxes": BOXES.clone(), "labels": torch.tensor([1, 1]), "landmarks": points}


def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_templates():
    maps = [torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)]
    found = Templates([[(2, 4), (6, 6)], [(8, 2)]], (8, 16))((16, 24), maps)
    assert [tuple(each.shape) for each in found] == [(12, 4), (1, 4)]
    assert found[0][:2].tolist() == [[3, 2, 5, 6], [1, 1, 7, 7]] and found[0][-1].tolist() == [17, 9, 23, 15]
    assert found[1].tolist() == [[4, 7, 12, 9]]
    (corner,) = Templates([[(2, 4)]], (8,), offset=0.0)((16, 24), maps[:1])
    assert corner[1].tolist() == [7, -2, 9, 2]
    with pytest.raises(ValueError, match="a step for each of 1 maps, got 2"):
        Templates([[(2, 4)]], (8, 16))


def test_points_are_offsets_in_sides():
    anchors = torch.tensor([[0.0, 0, 10, 20]])
    points = torch.tensor([[[5.0, 10], [10, 0]]])
    codes = PointCoder().encode(points, anchors)
    assert codes.tolist() == [[[0, 0], [0.5, -0.5]]]
    assert torch.equal(PointCoder().decode(codes, anchors), points)


def test_landmarks_follow_the_image():
    resize = DetectionTransform(50, 100, (0.0,) * 3, (1.0,) * 3, 1)
    given = {"boxes": BOXES, "labels": torch.tensor([1, 1]), "landmarks": torch.stack((POINTS, POINTS))}
    _, sizes, (changed,) = resize([torch.zeros(3, 100, 200)], [given])
    torch.testing.assert_close(changed["landmarks"], given["landmarks"] / 2)
    (found,) = resize.restore([dict(changed)], sizes, [(100, 200)])
    torch.testing.assert_close(found["landmarks"], given["landmarks"])


def marked():
    """A face whose landmarks are white pixels of their own brightness, in a target's form."""
    picture, points = torch.zeros(3, 40, 60), torch.tensor([[12, 8], [24, 9], [18, 15], [13, 22], [23, 21]])
    for number, (x, y) in enumerate(points.tolist()):
        picture[:, y, x] = 1 - number / 10
    boxes = torch.tensor([[8.0, 4, 30, 28]])
    return picture, {
        "boxes": boxes,
        "labels": torch.tensor([1]),
        "area": torch.tensor([22.0 * 24]),
        "landmarks": points[None] + 0.5,
    }


def brightness(picture, points):
    x, y = points.long().unbind(-1)
    return picture[0, y, x]


def test_a_mirrored_left_eye_is_a_right_one():
    picture, given = transforms.RandomHorizontalFlip(1.0)(*marked())
    points = given["landmarks"][0]
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    torch.testing.assert_close(brightness(picture, points), torch.tensor([0.9, 1.0, 0.8, 0.6, 0.7]))
    _, back = transforms.RandomHorizontalFlip(1.0)(picture, given)
    assert torch.equal(back["landmarks"], marked()[1]["landmarks"])


def test_landmarks_turn_along():
    picture, given = geometry.turn(*marked())
    torch.testing.assert_close(brightness(picture, given["landmarks"][0]), torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6]))


@pytest.mark.parametrize("seed", range(3))
def test_crops_and_zooms_move_landmarks(seed):
    torch.manual_seed(seed)
    zoom, crop = transforms.RandomZoomOut(0.0, p=1.0), transforms.RandomIoUCrop(sampler_options=(0.7, 1.0))
    for transform in (zoom, crop):
        picture, given = transform(*marked())
        points = given["landmarks"][0]
        inside = ((points > 0) & (points < torch.tensor(picture.shape[:0:-1]))).all(1)
        wanted = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6])
        torch.testing.assert_close(brightness(picture, points[inside]), wanted[inside])
        assert inside.any()


def test_retinaface_losses():
    """Anchor by anchor; the second face has no landmarks."""
    torch.manual_seed(0)
    net = models.create("retinaface_mobilenet_v1_x0_25", frozen_norms=True, **SMALL)
    batch, _, _ = net.transform([image()], [target()])
    anchors, logits, codes, points = (each.detach() for each in net._heads(batch))
    iou = box_iou(BOXES, anchors)
    best, match = iou.max(0)
    entropy = -logits[0].log_softmax(1)
    positive, negative = (best >= 0.5).nonzero()[:, 0].tolist(), (best < 0.3).nonzero()[:, 0].tolist()
    assert set(match[positive].tolist()) == {0, 1}
    hard = sorted(entropy[negative, 0].tolist(), reverse=True)[: 3 * len(positive)]
    classification = sum(entropy[i, 1] for i in positive) + sum(hard)
    boxes, faces, known = 0.0, 0.0, 0
    for i in positive:
        wanted = BoxCoder().encode(BOXES[match[i]], anchors[i])
        boxes += F.smooth_l1_loss(codes[0, i], wanted, reduction="sum")
        if match[i] == 0:
            x1, y1, x2, y2 = anchors[i]
            offset = (POINTS - torch.stack((x1 + x2, y1 + y2)) / 2) / torch.stack((x2 - x1, y2 - y1))
            faces += F.smooth_l1_loss(points[0, i], offset, reduction="sum")
            known += 1
    losses = net([image()], [target()])
    assert losses["classification"].item() == pytest.approx(float(classification) / len(positive))
    assert losses["bbox_regression"].item() == pytest.approx(0.25 * float(boxes) / len(positive))
    assert losses["landmarks"].item() == pytest.approx(0.1 * float(faces) / known)


@pytest.mark.parametrize(("easy", "samples"), [(0.0, 100_000), (0.7, 100_000), (0.0, 20)])
def test_tinyface_losses(easy, samples):
    """Of all positions, of the hard ones, and of a few."""
    torch.manual_seed(0)
    options = {"backbone": "resnet50", "backbone_options": (("layers", (1, 1, 1, 1)),), "frozen_norms": True}
    net = models.create("tinyface_resnet101", easy=easy, samples=samples, **options, **SMALL)
    batch, _, _ = net.transform([image()], [target()])
    anchors, logits, codes = (each.detach() for each in net._heads(batch))
    iou = box_iou(BOXES, anchors)
    best, match = iou.max(0)
    label = torch.where(best >= 0.7, 1, torch.where(best < 0.3, 0, -1))
    for box in range(2):
        label[iou[box] == iou[box].max()] = 1
    label[((anchors < 0) | (anchors > 64)).any(1)] = -1
    loss = torch.where(label == 1, F.softplus(-logits[0, :, 0]), F.softplus(logits[0, :, 0]))
    label[loss < easy] = -1
    positive, negative = (label == 1).nonzero()[:, 0], (label == 0).nonzero()[:, 0]
    losses = net([image()], [target()])
    if len(positive) + len(negative) > samples:
        assert len(negative) > samples > len(positive) * 2
        # Which negatives, chance decides.
        low, high = (loss[negative].sort(descending=down).values[: samples - len(positive)] for down in (False, True))
        low, high = (float(loss[positive].sum() + each.sum()) / samples for each in (low, high))
        assert low <= losses["classification"].item() <= high
    else:
        chosen = torch.cat((positive, negative))
        assert 0 < len(chosen) < len(label)
        assert losses["classification"].item() == pytest.approx(float(loss[chosen].mean()))
        wanted = BoxCoder().encode(BOXES[match[positive]], anchors[positive])
        box_loss = F.smooth_l1_loss(codes[0, positive], wanted, reduction="sum") / len(chosen)
        assert losses["bbox_regression"].item() == pytest.approx(float(box_loss))


def test_tinyface_templates_and_scales():
    """Only templates that are looked for are found, and what is found at another scale is put back."""
    torch.manual_seed(0)
    options = {"backbone": "resnet50", "backbone_options": (("layers", (1, 1, 1, 1)),), "score_threshold": 0.0}
    options |= {"nms_threshold": 1.0, "everywhere": (4,), "magnified": (24,), "min_size": 96, "max_size": 96}
    net = models.create("tinyface_resnet101", scales=(1.0, 2.0), **options).eval()
    with torch.no_grad():
        for parameter in net.head.regression_head.parameters():
            parameter.zero_()
        (found,) = net([torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))])
    sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
    inside = ((found["boxes"] > 0) & (found["boxes"] < 96)).all(1)
    assert {tuple(each) for each in sides[inside].tolist()} == {(41.0, 55.0), (10.0, 11.0)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"landmarks": torch.zeros(2, 4, 2)}, ValueError, r"landmarks'\] must be \(2, 5, 2\), got \(2, 4, 2\)"),
        ({"landmarks": torch.zeros(2, 5, 2).long()}, TypeError, "must be floating, got torch.int64"),
        ({"landmarks": torch.full((2, 5, 2), math.inf)}, ValueError, r"NaN for none, got \[inf, inf\]"),
        (
            {"landmarks": torch.tensor([1.0, math.nan]).expand(2, 5, 2)},
            ValueError,
            r"must be points that are finite, or NaN for none, got \[1.0, nan\]",
        ),
        ({"landmarks": None}, ValueError, "a dict with a tensor 'landmarks'"),
    ],
)
def test_bad_landmarks(change, error, message):
    check_targets([target()], [(64, 64)], range(1, 2), landmarks=5)
    with pytest.raises(error, match=message):
        check_targets([target() | change], [(64, 64)], range(1, 2), landmarks=5)


@pytest.mark.parametrize(
    ("detector", "options", "message"),
    [
        ("tinyface_resnet101", {"num_classes": 1}, "at least 2, the background and one more, got 1"),
        ("tinyface_resnet101", {"scales": ()}, r"scales must be positive, one or more, got \(\)"),
        ("tinyface_resnet101", {"templates": ((8, 8),)}, r"must be 0 to 0, got \[4, 5"),
        ("retinaface_resnet50", {"channels": 6}, "channels must be a multiple of 4, got 6"),
        ("retinaface_resnet50", {"anchor_sizes": ((8,), (16, 32))}, "anchor_sizes must be as many on every level"),
        ("rfcn_resnet50", {"bins": 0}, "bins must be at least 1, got 0"),
    ],
)
def test_bad_options(detector, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(detector, device="meta", **options)
