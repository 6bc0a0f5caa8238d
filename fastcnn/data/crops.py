"""Crops by which a classifier is judged on more than the middle of an image.

Each takes floating images (C, H, W), or (N, C, H, W) of one size, and gives M crops of each in front: (M, C, size,
size) or (M, N, C, size, size), which :func:`fastcnn.models.multi_crop_predict` averages over. Deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.models._preprocess import resize_shorter

# Of the shorter side, for crops of 224.
GOOGLENET_SIDES = (256, 288, 320, 352)


def five_crop(images: Tensor, size: int) -> Tensor:
    """Top left, top right, bottom left, bottom right and the middle, as torchvision's ``five_crop``.

    Raises:
        ValueError: images of another rank, or smaller than the crops.
    """
    height, width = _checked(images, size)
    bottom, right = height - size, width - size
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2)))
    return torch.stack([images[..., y : y + size, x : x + size] for y, x in places])


def ten_crop(images: Tensor, size: int) -> Tensor:
    """:func:`five_crop` of the images, then of the mirrored images: Krizhevsky et al., NIPS 2012, section 4.1, in the
    order of torchvision's ``ten_crop``, where the sixth is the mirrored second. Raises the same."""
    return _and_mirrored(images, lambda each: five_crop(each, size))


def twelve_crop(images: Tensor, size: int) -> Tensor:
    """:func:`five_crop` of the square in the middle and the whole of it, resized, then the same of its mirror image.

    The papers that report 12 crops (Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, table 4) do not
    say which; these are the six of a square of GoogLeNet, and their mirror images. Raises the same.
    """
    _checked(images, size)
    return _square_crops(_squares(images)[1], size)


def googlenet_crops(images: Tensor, size: int = 224, sides: Sequence[int] = GOOGLENET_SIDES) -> Tensor:
    """144 crops: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 7.

    For each side, images are resized until their shorter side is that; of the left, middle and right square (top,
    middle and bottom, where an image is upright) these are the 12 of :func:`twelve_crop`.

    Raises:
        ValueError: images of another rank, or a side that is less than ``size``.
    """
    _checked(images, 1)
    resized = [resize_shorter(images, side) for side in sides]
    return torch.cat([_square_crops(square, size) for each in resized for square in _squares(each)])


def grid_crop(images: Tensor, size: int, grid: int = 5) -> Tensor:
    """``grid`` by ``grid`` crops at equal distances, row by row, then those of the mirrored images: the 50 of each of
    three scales in Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, section 3.2.

    Raises:
        ValueError: images of another rank, or smaller than the crops; a grid below 2.
    """
    if grid < 2:
        raise ValueError(f"grid must be at least 2, got {grid}")
    height, width = _checked(images, size)
    tops, lefts = ([round(step * (side - size) / (grid - 1)) for step in range(grid)] for side in (height, width))

    def crops(each: Tensor) -> Tensor:
        return torch.stack([each[..., y : y + size, x : x + size] for y in tops for x in lefts])

    return _and_mirrored(images, crops)


def _and_mirrored(images: Tensor, crops: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat((crops(images), crops(images.flip(-1))))


def _square_crops(square: Tensor, size: int) -> Tensor:
    def six(each: Tensor) -> Tensor:
        batch = each[None] if each.dim() == 3 else each
        whole = F.interpolate(batch, (size, size), mode="bilinear", align_corners=False, antialias=True)
        return torch.cat((five_crop(each, size), whole.reshape(1, *each.shape[:-2], size, size)))

    return _and_mirrored(square, six)


def _squares(images: Tensor) -> list[Tensor]:
    """At the beginning, in the middle and at the end of the longer side."""
    height, width = images.shape[-2:]
    side = min(height, width)
    ends = (height - side, width - side)
    places = ((0, 0), (round(ends[0] / 2), round(ends[1] / 2)), ends)
    return [images[..., y : y + side, x : x + side] for y, x in places]


def _checked(images: Tensor, size: int) -> tuple[int, int]:
    if images.dim() not in (3, 4) or not images.is_floating_point():
        shape = tuple(images.shape)
        raise ValueError(f"crops are of floating (C, H, W) or (N, C, H, W), got {images.dtype} {shape}")
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"crops of {size} pixels do not fit into images of {height} x {width}")
    return height, width
