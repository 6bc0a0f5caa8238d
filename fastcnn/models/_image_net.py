"""Networks whose output is an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from fastcnn.models._net import ConvNet, Row
from fastcnn.models._preprocess import Preprocess


def pixels(side: int, channels: int = 3) -> Preprocess:
    """The preprocessing of networks that take pixels in [0, 1] as they are; ``side`` is that of the counts."""
    return Preprocess(side, crop_pct=1.0, mean=(0.0,) * channels, std=(1.0,) * channels)


@dataclass(frozen=True, kw_only=True)
class ImageRow(Row):
    """A network whose output is an image: it has no classes, and ``num_classes`` is 1."""

    num_classes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes != 1:
            raise ValueError(f"an image has no classes: num_classes must be 1, got {self.num_classes}")


class ImageNetwork(ConvNet):
    """A :class:`ConvNet` whose ``forward`` gives an image in the place of logits."""

    classifier_path = ""  # No layer's outputs are classes.

    def replace_head(self, num_classes: int) -> NoReturn:
        raise ValueError(f"a {type(self).__name__} has no classes to replace, got num_classes={num_classes}")


def as_batch(image: Tensor, net: ConvNet) -> Tensor:
    """An image in [0, 1], or a batch of them, as (N, 3, h, w) of the network's dtype and device.

    Raises:
        TypeError: pixels that are not floating.
        ValueError: another shape, or an image without pixels.
    """
    if not image.is_floating_point():
        raise TypeError(f"{type(net).__name__} takes floating pixels in [0, 1], got {image.dtype}")
    if image.dim() not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape[-2:]:
        raise ValueError(f"{type(net).__name__} takes images (3, h, w) or (N, 3, h, w), got {tuple(image.shape)}")
    batch = image if image.dim() == 4 else image[None]
    return batch.to(next(net.parameters()))


def as_given(result: Tensor, image: Tensor) -> Tensor:
    """``result`` clamped to [0, 1], with the dtype and device of ``image``, and a batch where that is one."""
    result = result.clamp(0, 1).to(image)
    return result if image.dim() == 4 else result[0]


class Upscaler(ImageNetwork):
    """A super-resolution network: ``row.scale`` is how many times longer its sides make an image's."""

    @torch.no_grad()
    def upscale(self, image: Tensor) -> Tensor:
        """(3, h, w) or (N, 3, h, w) RGB in [0, 1] to the same with sides ``row.scale`` times as long, clamped.

        Runs in the network's dtype and on its device, without gradients; the result has the image's. Deterministic.

        Raises:
            TypeError: pixels that are not floating.
            ValueError: another shape, an image without pixels, or a network that takes no RGB.
        """
        return as_given(self._upscale(as_batch(image, self)), image)

    def _upscale(self, images: Tensor) -> Tensor:
        result = self(images)
        assert isinstance(result, Tensor)
        return result
