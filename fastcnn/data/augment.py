"""Augmentation of classifiers and segmenters: Krizhevsky et al., NIPS 2012, section 4.1, and what followed.

Called as those of :mod:`fastcnn.data.transforms`, and composed with them: floating images (C, H, W) in [0, 1], and
targets of any kind in :mod:`fastcnn.data.geometry`, of which labels stay. Names and arguments are those of
torchvision.transforms.v2 where it has them. Random numbers are torch's, of the default generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastcnn.data._random import below, uniform
from fastcnn.data.geometry import crop, pad, resize

Pair = tuple[Tensor, Any]


class RandomCrop:
    """A part of the image, ``size`` pixels high and wide, anywhere in it: "random 224 x 224 patches".

    Args:
        size: of the result.
        padding: black pixels around the image before, on every side; 4 is that of He et al., Deep Residual Learning,
            CVPR 2016, section 4.2, for 32. An image that is still smaller gets as many as it needs at the right and
            below. Maps of classes are ignored there.

    Raises:
        ValueError: a size below 1, or a negative padding.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        if size < 1 or padding < 0:
            raise ValueError(f"size must be at least 1 and padding not negative, got {size} and {padding}")
        self.size, self.padding = size, padding

    def __call__(self, image: Tensor, target: Any) -> Pair:
        around, size = self.padding, self.size
        right, bottom = (max(size - side - around, around) for side in (image.size(2), image.size(1)))
        if right or bottom:
            image, target = pad(image, target, (around, right, around, bottom))
        top, left = (below(side - size + 1) for side in image.shape[1:])
        return crop(image, target, top, left, size, size)


class RandomResizedCrop:
    """A part of random area and aspect ratio, resized: Szegedy et al., Going Deeper with Convolutions, CVPR 2015,
    section 6.

    Tries ten parts, as torchvision; where none fits into the image, takes the middle one of the nearest ratio.

    Args:
        size: height and width of the result.
        scale: the least and the largest share of the image's area.
        ratio: the least and the largest width over height, drawn evenly of the logarithm.

    Raises:
        ValueError: a size below 1, or bounds that are out of order or not above 0.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"scale and ratio must be 0 < least <= largest, scale at most 1, got {scale} and {ratio}")
        self.size, self.scale, self.ratio = size, scale, ratio

    def __call__(self, image: Tensor, target: Any) -> Pair:
        return resize(*crop(image, target, *self._part(image.size(1), image.size(2))), (self.size, self.size))

    def _part(self, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * uniform(*self.scale)
            ratio = math.exp(uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                return below(height - rows + 1), below(width - columns + 1), rows, columns
        rows = max(1, min(height, round(width / self.ratio[0])))
        columns = max(1, min(width, round(height * self.ratio[1])))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


class RandomShortestSize:
    """The shorter side becomes a random number of pixels, the longer in proportion: "scale jittering" of Simonyan and
    Zisserman, Very Deep Convolutional Networks, ICLR 2015, section 3.1.1, before a crop of 224.

    Args:
        min_size, max_size: the least and the most pixels, each as likely.

    Raises:
        ValueError: bounds that are out of order or below 1.
    """

    def __init__(self, min_size: int = 256, max_size: int = 512) -> None:
        if not 1 <= min_size <= max_size:
            raise ValueError(f"sizes must be 1 <= least <= most, got {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size

    def __call__(self, image: Tensor, target: Any) -> Pair:
        height, width = image.shape[1:]
        side = self.min_size + below(self.max_size - self.min_size + 1)
        shorter = min(height, width)
        return resize(image, target, (side * height // shorter, side * width // shorter))


class Lighting:
    """Adds to every pixel of an image the same colour, drawn along the colours' principal components.

    ``components @ (alpha * variances)``, with alpha normal of deviation ``strength``: Krizhevsky et al., section 4.1,
    whose images are scaled to [0, 1] here. Nothing is clipped. Without strength the image stays as it is.

    Args:
        variances, components: (3,) and (3, 3), of :func:`pca_lighting`.
        strength: the paper's is 0.1.

    Raises:
        ValueError: other shapes, or a strength that is negative.
    """

    def __init__(self, variances: Tensor, components: Tensor, strength: float = 0.1) -> None:
        if variances.dim() != 1 or components.shape != (len(variances),) * 2:
            shapes = f"{tuple(variances.shape)} and {tuple(components.shape)}"
            raise ValueError(f"variances and components must be (C,) and (C, C), got {shapes}")
        if not strength >= 0:
            raise ValueError(f"strength must not be negative, got {strength}")
        self.variances, self.components, self.strength = variances, components, strength

    def __call__(self, image: Tensor, target: Any) -> Pair:
        alpha = self.strength * torch.randn(len(self.variances), dtype=self.variances.dtype)
        return image + (self.components @ (alpha * self.variances)).to(image)[:, None, None], target


def pca_lighting(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The principal components of the colours of images: what :class:`Lighting` takes.

    Computed from the images at hand rather than copied: those of ImageNet are of its own pixels. Deterministic.

    Args:
        images: floating, (C, H, W) each, of any sizes.

    Returns:
        Variances (C,), ascending, eigenvalues of the pixels' covariance; and float64 (C, C) whose columns are their
        eigenvectors, of length 1, each with its largest entry above 0.

    Raises:
        ValueError: fewer than two pixels.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for image in images:
        pixels = image.detach().cpu().double().flatten(1)
        count, total, products = count + pixels.size(1), total + pixels.sum(1), products + pixels @ pixels.T
    if count < 2:
        raise ValueError(f"colours of at least two pixels are wanted, got {count}")
    mean = total / count
    variances, components = torch.linalg.eigh(products / count - torch.outer(mean, mean))
    largest = components.gather(0, components.abs().argmax(0)[None])
    return variances.clamp(min=0), components * largest.sign()
