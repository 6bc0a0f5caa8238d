"""Augmentation of classifiers and segmenters: sizes, labels, and that image, map, masks and boxes stay together."""

import math

import pytest
import torch

from fastcnn.data import (
    Lighting,
    RandomCrop,
    RandomResizedCrop,
    RandomShortestSize,
    Scenes,
    pca_lighting,
    transforms,
)
from fastcnn.data.geometry import IGNORED, flip, pad, resize
from fastcnn.data.targets import mask_extents

SCENES = Scenes(6, 96, seed=3)
STEPS = {
    "crop": RandomCrop(64),
    "padded crop": RandomCrop(96, padding=8),
    "larger crop": RandomCrop(120),
    "resized crop": RandomResizedCrop(48),
    "shortest size": RandomShortestSize(60, 90),
    "flip": transforms.RandomHorizontalFlip(1.0),
    "turn": transforms.RandomQuarterTurn(),
}


def mapped(height=40, width=60):
    """An image that shows its map: the label in tenths."""
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[10:25, 5:30], labels[20:35, 30:55] = 1, 2
    return labels[None].expand(3, -1, -1) / 10, labels


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_labels_stay(step):
    for label in (3, torch.tensor(3), torch.tensor([0.5, 0.5]), None):
        image, found = step(torch.rand(3, 96, 130), label)
        assert found is label and image.shape[0] == 3


def test_shapes_of_the_papers():
    image = torch.rand(3, 256, 300)
    assert RandomCrop(224)(image, 1)[0].shape == RandomResizedCrop(224)(image, 1)[0].shape == (3, 224, 224)
    assert RandomCrop(32, padding=4)(torch.rand(3, 32, 32), 1)[0].shape == (3, 32, 32)


def test_a_crop_is_a_part_of_the_image_and_any_can_come():
    image = torch.arange(30.0).reshape(1, 5, 6)
    seen = set()
    for _ in range(200):
        part, _ = RandomCrop(4)(image, 0)
        row, column = divmod(int(part[0, 0, 0]), 6)
        assert torch.equal(part, image[:, row : row + 4, column : column + 4])
        seen.add((row, column))
    assert len(seen) == 2 * 3


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_maps_follow_the_image(step):
    for _ in range(5):
        image, labels = step(*mapped(70, 100))
        assert labels.shape == image.shape[1:] and labels.dtype == torch.int64
        assert bool((image[:, labels == IGNORED] == 0).all())
        shown = torch.where(labels == IGNORED, 0, labels) / 10
        # Resized, pixels at an edge are between two labels.
        assert ((image[0] - shown).abs() < 1e-3).float().mean() > 0.85


@pytest.mark.parametrize("name", ["crop", "padded crop", "larger crop", "flip"])
def test_boxes_are_those_of_the_masks_where_objects_are_whole(name):
    torch.manual_seed(1)
    for image, target in SCENES:
        target = target | {"boxes": mask_extents(target["masks"])}
        found, after = STEPS[name](image, target)
        assert len({len(after[key]) for key in ("boxes", "labels", "masks", "area")}) == 1
        assert after["masks"].shape[1:] == found.shape[1:]
        for box, mask in zip(after["boxes"], after["masks"], strict=True):
            extent = mask_extents(mask[None])[0]
            # A cut shape's box is that of what was cut, of which a shape may fill less.
            assert bool((extent[:2] >= box[:2]).all()) and bool((extent[2:] <= box[2:]).all())
            inside = (box[:2] > 0).all() and (box[2] < found.size(2)) and (box[3] < found.size(1))
            assert not inside or torch.equal(extent, box)


def test_resize_scales_boxes_masks_and_areas():
    image, target = SCENES[0]
    found, after = resize(image, target, (192, 48))
    assert found.shape == (3, 192, 48) and after["masks"].shape[1:] == (192, 48)
    torch.testing.assert_close(after["boxes"], target["boxes"] * torch.tensor([0.5, 2, 0.5, 2]))
    torch.testing.assert_close(after["area"], target["area"])
    assert resize(image, target, (96, 96))[1] is target


def test_two_mirrors_are_none():
    image, labels = mapped()
    back = flip(*flip(image, labels))
    assert torch.equal(back[0], image) and torch.equal(back[1], labels)


def test_padding_is_black_and_ignored():
    image, labels = pad(*mapped(4, 5), (1, 2, 3, 0))
    assert image.shape == (3, 7, 8) and labels.shape == (7, 8)
    inside = torch.zeros(7, 8, dtype=torch.bool)
    inside[3:, 1:6] = True
    assert bool((labels[~inside] == IGNORED).all()) and bool((labels[inside] != IGNORED).all())


def test_resized_crops_are_of_the_areas_and_ratios_wanted():
    crop = RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    for _ in range(50):
        top, left, rows, columns = crop._part(60, 80)
        assert 0 <= top <= 60 - rows and 0 <= left <= 80 - columns
        assert 0.19 < rows * columns / 4800 < 0.51 and 0.48 < columns / rows < 2.1
    # No part of these ratios has nine tenths of a long image.
    assert RandomResizedCrop(8, scale=(0.9, 1.0))._part(10, 100) == (0, 43, 10, 13)


def test_vggs_sides_are_in_range():
    """Multi-scale training, S of [256, 512], and the crop of 224 after it."""
    shapes = {tuple(RandomShortestSize(256, 512)(torch.zeros(1, 30, 40), 0)[0].shape) for _ in range(20)}
    assert len(shapes) > 10
    for _, height, width in shapes:
        assert 256 <= height <= 512 and width == 40 * height // 30
    steps = transforms.Compose((RandomShortestSize(), RandomCrop(224), transforms.RandomHorizontalFlip()))
    assert steps(torch.rand(3, 30, 40), 7)[0].shape == (3, 224, 224)


def test_components_of_colours():
    torch.manual_seed(0)
    axis = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64) / 3
    images = [0.5 + 0.1 * torch.randn(1, 50, side).double() * axis[:, None, None] for side in (40, 70)]
    variances, components = pca_lighting(images)
    torch.testing.assert_close(components[:, 2], axis)
    assert variances.tolist() == pytest.approx([0, 0, 0.01], abs=5e-4)
    pixels = torch.cat([image.flatten(1) for image in images], 1)
    covariance = torch.cov(pixels, correction=0)
    torch.testing.assert_close(components @ variances.diag() @ components.T, covariance)
    torch.testing.assert_close(components.T @ components, torch.eye(3, dtype=torch.float64))


def test_lighting():
    variances, components = pca_lighting(image for image, _ in SCENES)
    image = SCENES[0][0]
    assert torch.equal(Lighting(variances, components, 0.0)(image, 3)[0], image)
    lighting = Lighting(variances, components, 0.2)
    changes = torch.stack([lighting(image, 3)[0] - image for _ in range(300)])
    # The same for every pixel.
    torch.testing.assert_close(changes, changes[..., :1, :1].expand_as(changes), rtol=0, atol=1e-6)
    along = changes[:, :, 0, 0].double() @ components
    wanted = (0.2 * variances).tolist()
    assert along.std(0).tolist() == pytest.approx(wanted, rel=0.15, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "got 0 and 0"),
        (lambda: RandomResizedCrop(0), "size must be at least 1, got 0"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.5)), r"got \(0.5, 1.5\)"),
        (lambda: RandomShortestSize(10, 5), "got 10 and 5"),
        (lambda: Lighting(torch.ones(3), torch.eye(2)), r"got \(3,\) and \(2, 2\)"),
        (lambda: Lighting(torch.ones(3), torch.eye(3), math.nan), "must not be negative, got nan"),
        (lambda: pca_lighting([]), "at least two pixels are wanted, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
