"""Generated scenes: the same everywhere, and boxes, masks, labels and class maps that say what is in the picture."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastcnn.data import SHAPES, Scenes, collate, mask_extents
from fastcnn.data.scenes import MIN_PIXELS
from fastcnn.data.shapes import cover

EXPECTED = [
    [6, 1, 1, 6],
    [[11.0, 32.0, 27.0, 48.0], [33.0, 29.0, 48.0, 45.0], [12.0, 49.0, 30.0, 64.0], [18.0, 42.0, 41.0, 64.0]],
    [123.0, 192.0, 149.0, 257.0],
]
PIXEL = [109, 31, 165]
FIELD = torch.randint(256, (3, 90, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_items():
    scenes = Scenes(40, (96, 120), seed=3, photographs=[FIELD])
    assert len(scenes) == len(list(scenes)) == 40
    for index, (image, target) in enumerate(scenes):
        assert image.dtype == torch.float32 and image.shape == (3, 96, 120)
        torch.testing.assert_close(image * 255, (image * 255).round(), rtol=0, atol=1e-4)
        assert image.amin() >= 0 and image.amax() <= 1
        count = len(target["labels"])
        assert {key: (value.dtype, *value.shape) for key, value in target.items()} == {
            "boxes": (torch.float32, count, 4),
            "labels": (torch.int64, count),
            "area": (torch.float32, count),
            "iscrowd": (torch.int64, count),
            "image_id": (torch.int64,),
            "masks": (torch.uint8, count, 96, 120),
        }
        assert target["image_id"] == index and not target["iscrowd"].any()
        assert torch.equal(target["boxes"], mask_extents(target["masks"]))
        assert torch.equal(target["area"], target["masks"].sum((1, 2)).float())
        assert count <= 6 and (target["area"] >= MIN_PIXELS).all()
        # A pixel shows one shape.
        assert target["masks"].sum(0).amax() <= 1 if count else True
    labels = torch.cat([target["labels"] for _, target in scenes])
    assert set(labels.tolist()) == set(range(1, len(SHAPES) + 1))


def test_the_same_whatever_the_workers_order_and_length():
    alone = Scenes(6, 48, seed=5)
    backwards = [Scenes(9, 48, seed=5)[index] for index in reversed(range(6))][::-1]
    loader = DataLoader(alone, batch_size=2, num_workers=2, collate_fn=collate)
    loaded = [pair for images, targets in loader for pair in zip(images, targets, strict=True)]
    assert len(loaded) == len(backwards) == 6
    for (image, target), *others in zip(alone, backwards, loaded, strict=True):
        for other_image, other in others:
            assert torch.equal(image, other_image)
            assert target.keys() == other.keys() and all(torch.equal(target[key], other[key]) for key in target)


def test_the_same_on_every_machine():
    """What this seed drew when the test was written."""
    image, target = Scenes(1, 64, seed=7)[0]
    assert [target["labels"].tolist(), target["boxes"].tolist(), target["area"].tolist()] == EXPECTED
    assert [round(value * 255) for value in image[:, 10, 20].tolist()] == PIXEL


def test_another_seed_or_index_is_another_picture():
    pictures = [Scenes(2, 32, seed=seed)[index][0] for seed in (0, 1) for index in (0, 1)]
    assert all(not torch.equal(a, b) for k, a in enumerate(pictures) for b in pictures[:k])


def test_later_shapes_hide_earlier_ones():
    """With many large shapes most are hidden, and the objects left have a quarter of their pixels or more."""
    scenes = Scenes(8, 64, seed=1, classes=["square"], objects=(30, 30), radius=(0.2, 0.3))
    for _, target in scenes:
        assert 1 <= len(target["labels"]) < 30
        # A square of radius 0.2 of the side has 2 r^2 = 328 pixels.
        assert (target["area"] >= 0.25 * 0.7 * 328).all()


@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_cover_their_area(shape, angle):
    """The sum of what is covered is the area, drawn at four times the size; all is in the circle and touches it."""
    _, covered = cover(shape, (30.3, 31.7), 25, angle, (60, 65))
    (rows, columns), fine = cover(shape, (4 * 30.3, 4 * 31.7), 100, angle, (240, 260))
    assert covered.sum() == pytest.approx((fine >= 0.5).sum() / 16, rel=0.02)
    y, x = np.nonzero(fine >= 0.5)
    far = np.hypot(x + columns.start + 0.5 - 4 * 30.3, y + rows.start + 0.5 - 4 * 31.7).max()
    assert 94 < far <= 101


AREAS = {  # Of the unit circle, on paper.
    "circle": np.pi,
    "square": 2,
    "triangle": 3 * 3**0.5 / 4,
    "star": 10 * 0.5 * 0.45 * np.sin(np.pi / 5),
    "ring": np.pi * (1 - 0.56**2),
    "cross": 8 * 0.28 * (1 - 0.28**2) ** 0.5 - 4 * 0.28**2,
    "arrow": 0.72 * 0.9 + 0.56 * 1.06,
}


@pytest.mark.parametrize("shape", AREAS)
def test_areas(shape):
    _, covered = cover(shape, (50, 50), 45, 0.7, (100, 100))
    assert covered.sum() / 45**2 == pytest.approx(AREAS[shape], rel=0.01)


def test_semantic_maps_are_the_masks_and_what_was_too_small():
    plain, semantic = (Scenes(12, 64, seed=2, objects=(4, 9), semantic=how) for how in (False, True))
    for (image, target), (same, classes) in zip(plain, semantic, strict=True):
        assert torch.equal(image, same)
        assert classes.dtype == torch.int64 and classes.shape == (64, 64)
        for mask, label in zip(target["masks"], target["labels"], strict=True):
            assert (classes[mask == 1] == label).all()
        assert (classes != 0).sum() >= target["masks"].sum()


def test_pictures_without_objects():
    image, target = Scenes(1, 32, objects=(0, 0))[0]
    assert image.shape == (3, 32, 32) and target["boxes"].shape == (0, 4) and target["masks"].shape == (0, 32, 32)
    assert not Scenes(1, 32, objects=(0, 0), semantic=True)[0][1].any()


def test_transforms_are_applied():
    scenes = Scenes(1, 32, transforms=lambda image, target: (image[:1], target["labels"]))
    image, labels = scenes[0]
    assert image.shape == (1, 32, 32) and labels.dtype == torch.int64


def test_one_pixel_photographs():
    image, _ = Scenes(40, 32, photographs=[FIELD[:, :1, :1]])[3]
    assert image.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count and seed must not be negative, got -1 and 0"),
        ({"size": 8}, "size must be at least 16 pixels, got 8"),
        ({"classes": ["blob"]}, "got ['blob']"),
        ({"classes": ["ring", "ring"]}, "must be different"),
        ({"classes": []}, "got []"),
        ({"objects": (3, 2)}, "got (3, 2)"),
        ({"radius": (0.0, 0.2)}, "got (0.0, 0.2)"),
        ({"photographs": [FIELD[0]]}, "photographs must be (3, h, w), got (90, 70)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        Scenes(**{"count": 1, **arguments})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_floating_photographs():
    with pytest.raises(TypeError, match=r"photographs must be uint8, got torch\.float32"):
        Scenes(1, photographs=[FIELD.float()])


def test_index_out_of_range():
    assert torch.equal(Scenes(3, 32)[-1][0], Scenes(3, 32)[2][0])
    with pytest.raises(IndexError, match="scene 3 of 3"):
        Scenes(3, 32)[3]
