"""Preprocessing, which travels with its network: wrong preprocessing looks like bad weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input: resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        input_size: side of the square input, in pixels.
        crop_pct: ``input_size`` over the length to which the image's shorter side is resized.
        interpolation: of the resize, "bilinear" or "bicubic", antialiased.
        mean, std: per channel, of pixels in [0, 1]; ImageNet's by default.
    """

    input_size: int = 224
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.input_size < 1:
            raise ValueError(f"input_size must be at least 1, got {self.input_size}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be above 0 and at most 1, got {self.crop_pct}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be bilinear or bicubic, got {self.interpolation!r}")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std {len(self.std)}")

    def __call__(self, image: Tensor) -> Tensor:
        """Preprocesses (C, H, W) or (N, C, H, W) pixels: uint8, or floating with values in [0, 1].

        Returns a floating tensor (N, C, input_size, input_size), N = 1 for one image; uint8 becomes float32.

        Raises:
            TypeError: another dtype.
            ValueError: another rank, an empty image, or channels other than ``mean`` has.
        """
        image = self._pixels(image)
        image = image[None] if image.dim() == 3 else image
        image = resize_shorter(image, round(self.input_size / self.crop_pct), self.interpolation)
        top, left = (round((side - self.input_size) / 2) for side in image.shape[-2:])
        return self._centred(image[..., top : top + self.input_size, left : left + self.input_size])

    def normalize(self, image: Tensor) -> Tensor:
        """The same without resize and crop: (C, H, W) or (N, C, H, W) stays of that shape. For crops and sizes of one's
        own; raises the same."""
        return self._centred(self._pixels(image))

    def _pixels(self, image: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            image = image.float() / 255
        elif not image.is_floating_point():
            raise TypeError(f"preprocess takes uint8 or floating pixels, got {image.dtype}")
        if image.dim() not in (3, 4) or image.shape[-3] != len(self.mean) or 0 in image.shape[-2:]:
            expected = f"({len(self.mean)}, H, W) or (N, {len(self.mean)}, H, W)"
            raise ValueError(f"preprocess takes {expected}, got {tuple(image.shape)}")
        return image

    def _centred(self, image: Tensor) -> Tensor:
        mean, std = (image.new_tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (image - mean) / std


def resize_shorter(image: Tensor, side: int, interpolation: str = "bilinear") -> Tensor:
    """Floating (C, H, W) or (N, C, H, W) whose shorter side becomes ``side``, antialiased; the longer in proportion,
    cut off to whole pixels."""
    height, width = image.shape[-2:]
    size = (side * height // min(height, width), side * width // min(height, width))
    batch = image[None] if image.dim() == 3 else image
    resized = F.interpolate(batch, size, mode=interpolation, align_corners=False, antialias=True)
    return resized[0] if image.dim() == 3 else resized


IMAGENET = Preprocess()
BICUBIC = Preprocess(interpolation="bicubic")
CIFAR10 = Preprocess(32, crop_pct=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
