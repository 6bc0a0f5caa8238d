"""Augmentation: boxes and masks follow the image, and what is random is within its bounds."""

import pytest
import torch

from fastcnn.data import Scenes, transforms
from fastcnn.data.geometry import turn
from fastcnn.data.targets import mask_extents
from fastcnn.data.transforms import GREY, turn_hue

SCENES = Scenes(6, 96, seed=3)


def marked(height=40, width=60):
    """An image that is white where its only object is."""
    image, mask = torch.zeros(3, height, width), torch.zeros(1, height, width, dtype=torch.uint8)
    image[:, 10:25, 5:30] = 1
    mask[:, 10:25, 5:30] = 1
    return image, transformed_target(mask)


def transformed_target(mask):
    boxes = mask_extents(mask)
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "boxes": boxes,
        "labels": torch.ones(1, dtype=torch.int64),
        "area": sides.prod(1),
        "iscrowd": torch.zeros(1, dtype=torch.int64),
        "image_id": torch.tensor(7),
        "masks": mask,
    }


def assert_follows(image, target):
    """The box is the mask's, the mask the white pixels."""
    assert torch.equal(target["boxes"], mask_extents(target["masks"]))
    assert torch.equal(target["masks"][0] > 0, (image == 1).all(0))


def test_flip():
    image, target = transforms.RandomHorizontalFlip(1.0)(*marked())
    assert target["boxes"].tolist() == [[30, 10, 55, 25]]
    assert_follows(image, target)
    back, same = transforms.RandomHorizontalFlip(1.0)(image, target)
    assert torch.equal(back, marked()[0]) and torch.equal(same["boxes"], marked()[1]["boxes"])
    kept, _ = transforms.RandomHorizontalFlip(0.0)(*marked())
    assert torch.equal(kept, marked()[0])


def test_quarter_turns():
    whole, target = marked()
    seen = {}
    for seed in range(20):
        torch.manual_seed(seed)
        image, found = transforms.RandomQuarterTurn()(whole, target)
        assert_follows(image, found)
        seen[tuple(image.shape[1:]), tuple(found["boxes"][0].tolist())] = image
    assert len(seen) == 4 and {size for size, _ in seen} == {whole.shape[1:], whole.shape[:0:-1]}
    once, _ = turn(*turn(*turn(*turn(whole, target))))
    assert torch.equal(once, whole)
    labels = torch.arange(6).view(2, 3)
    assert turn(torch.zeros(3, 2, 3), labels)[1].tolist() == [[2, 5], [1, 4], [0, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_zoom_out(seed):
    torch.manual_seed(seed)
    given, before = marked()
    image, target = transforms.RandomZoomOut((0.1, 0.2, 0.3), (1.5, 3.0), 1.0)(given, before)
    height, width = image.shape[1:]
    assert 60 <= height <= 120 and 90 <= width <= 180
    assert_follows(image, target)
    assert torch.equal(target["area"], before["area"])
    # The given pixels and no others; around them the fill.
    assert int((image == 1).all(0).sum()) == int((given == 1).all(0).sum())
    outside = (image == torch.tensor((0.1, 0.2, 0.3))[:, None, None]).all(0)
    assert int(outside.sum()) == height * width - 40 * 60


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("least", [0.0, 0.3, 0.7])
def test_crop(seed, least):
    torch.manual_seed(seed)
    crop = transforms.RandomIoUCrop(sampler_options=(least, 1.0))
    image, before = marked()
    cropped, target = crop(image, before)
    height, width = cropped.shape[1:]
    assert len(target["labels"]) == 1 and height >= 0.3 * 40 - 1 and width >= 0.3 * 60 - 1
    assert_follows(cropped, target)
    inside = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1)
    torch.testing.assert_close(target["area"], inside)
    if cropped.shape != image.shape:
        union = height * width + float(before["area"]) - float(inside)
        assert float(inside) / union >= least - 1e-6


def test_crop_of_scenes_keeps_what_has_its_centre_inside():
    torch.manual_seed(0)
    crop, fewer = transforms.RandomIoUCrop(), 0
    for image, target in SCENES:
        for _ in range(10):
            cropped, found = crop(image, target)
            sizes = {len(found[key]) for key in ("boxes", "labels", "masks", "area", "iscrowd")}
            assert len(sizes) == 1 and sizes != {0}
            assert found["masks"].shape[1:] == cropped.shape[1:] and bool(found["masks"].flatten(1).any(1).all())
            limit = torch.tensor([cropped.size(2), cropped.size(1)] * 2)
            assert bool(((found["boxes"] >= 0) & (found["boxes"] <= limit)).all())
            fewer += len(found["labels"]) < len(target["labels"])
    assert fewer > 0


def test_crop_without_objects_is_the_image():
    image, target = marked()
    none = {key: value[:0] if value.dim() else value for key, value in target.items()}
    assert transforms.RandomIoUCrop()(image, none)[0] is image


def test_colours():
    torch.manual_seed(0)
    image = SCENES[0][0]
    distort = transforms.RandomPhotometricDistort(p=1.0)
    results = [distort(image, {})[0] for _ in range(4)]
    assert all(float(r.min()) >= 0 and float(r.max()) <= 1 and not torch.equal(r, results[0]) for r in results[1:])
    still, _ = transforms.RandomPhotometricDistort(p=0.0)(image, {})
    torch.testing.assert_close(still, image)


def test_a_turn_of_hue_keeps_grey_and_luma_and_comes_round():
    turned = turn_hue(0.17)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(turned @ ones, ones, rtol=0, atol=1e-3)  # The standard's figures have four digits.
    torch.testing.assert_close(GREY[0] @ turned, GREY[0])
    torch.testing.assert_close(turn_hue(0.4) @ turn_hue(0.6), torch.eye(3, dtype=torch.float64))


def test_one_seed_gives_one_result():
    def run():
        torch.manual_seed(5)
        steps = transforms.RandomZoomOut(), transforms.RandomIoUCrop(), transforms.RandomHorizontalFlip()
        return transforms.Compose((transforms.RandomPhotometricDistort(), *steps))(*SCENES[1])

    (image, target), (again, same) = run(), run()
    assert torch.equal(image, again) and all(torch.equal(target[key], same[key]) for key in target)


@pytest.mark.parametrize(
    "make",
    [
        lambda: transforms.RandomHorizontalFlip(1.5),
        lambda: transforms.RandomZoomOut(side_range=(0.5, 2.0)),
        lambda: transforms.RandomIoUCrop(min_scale=0.0),
        lambda: transforms.RandomIoUCrop(sampler_options=(0.5,)),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="must"):
        make()
