"""Kornia's augmentations: boxes, masks and maps follow the image, by our convention of corners."""

import sys

import pytest
import torch

from fastcnn.data import Kornia, RandomCrop, Scenes, transforms
from fastcnn.data.geometry import IGNORED
from fastcnn.data.targets import mask_extents

augmentation = pytest.importorskip("kornia.augmentation")
SCENES = Scenes(4, 96, seed=3)


def white(target):
    """The image that shows the first of the masks."""
    return target["masks"][:1].float().expand(3, -1, -1)


def test_a_mirror_is_ours():
    mirror, ours = Kornia(augmentation.RandomHorizontalFlip(p=1.0)), transforms.RandomHorizontalFlip(1.0)
    for image, target in SCENES:
        (found, after), (wanted, expected) = mirror(image, target), ours(image, target)
        torch.testing.assert_close(found, wanted)
        for key in ("boxes", "labels", "area", "masks"):
            torch.testing.assert_close(after[key], expected[key])
    labels = torch.arange(12).reshape(3, 4)
    assert torch.equal(mirror(torch.rand(3, 3, 4), labels)[1], labels.flip(1))


def test_rotation_keeps_boxes_around_masks():
    torch.manual_seed(0)
    rotate = Kornia(augmentation.RandomRotation(40.0, p=1.0))
    for _, target in SCENES:
        image, after = rotate(white(target), target)
        assert len({len(after[key]) for key in ("boxes", "labels", "masks", "area", "iscrowd")}) == 1
        extents = mask_extents(after["masks"])
        # The box of turned corners is larger than that of a turned shape; nearest pixels are out by half of one.
        assert bool((extents[:, :2] >= after["boxes"][:, :2] - 1).all())
        assert bool((extents[:, 2:] <= after["boxes"][:, 2:] + 1).all())
        assert ((image[0] > 0.5) == (after["masks"][0] > 0)).float().mean() > 0.97


def test_a_quarter_turn_of_a_map_ignores_nothing_and_of_an_eighth_the_corners():
    labels = torch.arange(64).reshape(8, 8)
    quarter = Kornia(augmentation.RandomRotation((90.0, 90.0), p=1.0))(torch.rand(3, 8, 8), labels)[1]
    assert torch.equal(quarter, labels.rot90()) and quarter.dtype == torch.int64
    eighth = Kornia(augmentation.RandomRotation((45.0, 45.0), p=1.0))(torch.rand(3, 8, 8), labels)[1]
    assert {int(eighth[y, x]) for y in (0, 7) for x in (0, 7)} == {IGNORED}


def test_rotation_and_crop_of_a_classifier():
    steps = transforms.Compose((Kornia(augmentation.RandomRotation(15.0, p=1.0)), RandomCrop(224)))
    torch.manual_seed(5)
    image, label = steps(torch.rand(3, 256, 300), 7)
    assert image.shape == (3, 224, 224) and label == 7
    torch.manual_seed(5)
    assert torch.equal(steps(torch.rand(3, 256, 300), 7)[0], image)


def test_objects_that_leave_the_image_are_dropped():
    image, target = SCENES[0]
    shift = Kornia(augmentation.RandomAffine(0.0, translate=(0.5, 0.5), p=1.0))
    fewer = 0
    for _ in range(10):
        _, after = shift(image, target)
        sizes = {len(after[key]) for key in ("boxes", "labels", "masks", "area")}
        assert len(sizes) == 1 and bool((after["boxes"][:, 2:] > after["boxes"][:, :2]).all())
        assert bool((after["boxes"] >= 0).all() and (after["boxes"] <= 96).all())
        fewer += len(after["labels"]) < len(target["labels"])
    assert fewer > 0
    none = {key: value[:0] if value.dim() else value for key, value in target.items()}
    assert shift(image, none)[1]["masks"].shape == (0, 96, 96)


def test_what_it_does_not_take(monkeypatch):
    step = Kornia(augmentation.RandomHorizontalFlip())
    with pytest.raises(ValueError, match="do not take landmarks"):
        step(torch.zeros(3, 4, 4), {"boxes": torch.ones(1, 4), "landmarks": torch.ones(1, 5, 2)})
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'fastcnn\[augment\]'"):
        Kornia()
