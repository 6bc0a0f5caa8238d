"""Crops: how many, where, and whose mirror images. An image of coordinates says of each pixel where it was."""

import pytest
import torch

from fastcnn.data import five_crop, googlenet_crops, grid_crop, ten_crop, twelve_crop
from fastcnn.models import Preprocess
from fastcnn.models._preprocess import resize_shorter


def coordinates(height, width):
    """(2, H, W): the row and the column of each pixel."""
    return torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()


def corners(crops):
    """Row and column of each crop's first pixel."""
    return [tuple(crop[:, 0, 0].int().tolist()) for crop in crops]


def test_ten_crops_are_torchvisions():
    """Positions worked out from torchvision's: corners, the middle rounded, of the image and of its mirror image."""
    crops = ten_crop(coordinates(9, 12), 4)
    assert crops.shape == (10, 2, 4, 4)
    assert corners(crops[:5]) == [(0, 0), (0, 8), (5, 0), (5, 8), (2, 4)]
    # The mirrored image's first column is 11.
    assert corners(crops[5:]) == [(0, 11), (0, 3), (5, 11), (5, 3), (2, 7)]


def test_ten_crops_are_mirrored_pairs():
    images = torch.rand(2, 3, 10, 14)
    crops = ten_crop(images, 4)
    assert crops.shape == (10, 2, 3, 4, 4)
    for straight, mirrored in ((0, 6), (1, 5), (2, 8), (3, 7), (4, 9)):
        assert torch.equal(crops[straight], crops[mirrored].flip(-1))
    assert torch.equal(ten_crop(images[1], 4), crops[:, 1])
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 10


def test_twelve_crops_of_the_middle_square():
    image = coordinates(8, 14)
    crops = twelve_crop(image, 4)
    assert crops.shape == (12, 2, 4, 4)
    assert corners(crops[:5]) == [(0, 3), (0, 7), (4, 3), (4, 7), (2, 5)]
    # The sixth is all of the square, resized: the mean of every two rows and columns, by an antialiased half.
    assert crops[5].mean((1, 2)).tolist() == pytest.approx([3.5, 6.5])
    for straight, mirrored in ((0, 7), (1, 6), (2, 9), (3, 8), (4, 10), (5, 11)):
        torch.testing.assert_close(crops[straight], crops[mirrored].flip(-1))


@pytest.mark.parametrize("upright", [False, True])
def test_144_crops(upright):
    image = torch.rand(3, 320, 260) if upright else torch.rand(3, 260, 320)
    crops = googlenet_crops(image, 24, (26, 28, 32, 36))
    assert crops.shape == (144, 3, 24, 24)
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 144
    # The first of the last square at the second scale: it ends where the image does.
    resized = resize_shorter(image, 28)
    last = resized[:, -28:] if upright else resized[..., -28:]
    torch.testing.assert_close(crops[36 + 24], last[:, :24, :24])
    torch.testing.assert_close(crops[36 + 24 + 9], last.flip(-1)[:, -24:, -24:])


def test_sides_of_the_paper():
    assert googlenet_crops(torch.zeros(1, 224, 224)).shape == (144, 1, 224, 224)


def test_grid_of_vgg():
    crops = grid_crop(coordinates(20, 28), 4)
    assert crops.shape == (50, 2, 4, 4)
    assert corners(crops[:25]) == [(y, x) for y in (0, 4, 8, 12, 16) for x in (0, 6, 12, 18, 24)]
    assert corners(crops[25:]) == [(y, 27 - x) for y in (0, 4, 8, 12, 16) for x in (0, 6, 12, 18, 24)]


def test_preprocessing_of_the_lecture():
    """Shorter side 256, the middle 224 of it, minus the mean (004:352-355)."""
    image = torch.rand(3, 300, 400)
    preprocess = Preprocess(224, crop_pct=224 / 256, std=(1.0,) * 3)
    resized = resize_shorter(image, 256)
    assert resized.shape == (3, 256, 341)
    found = preprocess(image)
    assert found.shape == (1, 3, 224, 224)
    mean = torch.tensor(preprocess.mean).reshape(3, 1, 1)
    torch.testing.assert_close(found[0], resized[:, 16:240, 58:282] - mean)
    torch.testing.assert_close(preprocess.normalize(image), image - mean)
    pixels = (image * 255).byte()
    torch.testing.assert_close(preprocess.normalize(pixels[None]), pixels[None] / 255 - mean)
    torch.testing.assert_close(five_crop(preprocess.normalize(resized), 224)[4], found[0])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: ten_crop(torch.zeros(3, 8, 6), 7), "crops of 7 pixels do not fit into images of 8 x 6"),
        (lambda: twelve_crop(torch.zeros(8, 6), 4), r"got torch.float32 \(8, 6\)"),
        (lambda: ten_crop(torch.zeros(3, 8, 6, dtype=torch.uint8), 4), "got torch.uint8"),
        (lambda: googlenet_crops(torch.zeros(3, 300, 300), sides=(200,)), "do not fit into images of 200 x 200"),
        (lambda: grid_crop(torch.zeros(3, 8, 8), 4, 1), "grid must be at least 2, got 1"),
    ],
)
def test_bad_arguments(run, message):
    with pytest.raises(ValueError, match=message):
        run()
