"""Layers that only the YOLO networks have: the passthrough's, and stacks of Darknet's convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models._net import Feature
from fastcnn.models._plain import Conv, Pool
from fastcnn.models.classification.darknet import DarknetConv
from fastcnn.nn.blocks import make_divisible

Layers = tuple[Conv | Pool, ...]

# What Darknet's tiny networks begin with; the last pool keeps the size.
TINY: Layers = tuple(layer for width in (16, 32, 64, 128, 256) for layer in (Conv(width), Pool()))
TINY += (Conv(512), Pool(2, 1), Conv(1024))


def scale_channels(channels: int, width_mult: float) -> int:
    """The width rule of the reduced networks: a multiple of 8; the table's number where ``width_mult`` is 1."""
    return channels if width_mult == 1 else make_divisible(channels * width_mult)


class Reorg(nn.Module):
    """YOLOv2's passthrough: moves blocks of pixels into channels, (N, C, H, W) to (N, s^2 C, H / s, W / s).

    Nothing is computed: :meth:`inverse` gives the input back. Source: Redmon and Farhadi, YOLO9000, CVPR 2017, section
    2, "Fine-Grained Features".

    Args:
        stride: s, the side of a block.
        darknet: the order of the layer that the published weights were trained with, which reads the map as one of
            C / s^2 channels and s H x s W pixels, so that neighbours move a row or two apart; C is a multiple of s^2.
            Otherwise the order of :func:`torch.nn.functional.pixel_unshuffle`, which keeps a block together.

    Raises:
        ValueError: a map of another rank, or whose sides or channels do not divide.
    """

    def __init__(self, stride: int = 2, *, darknet: bool = True) -> None:
        super().__init__()
        if not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride must be a positive int, got {stride!r}")
        self.stride, self.darknet = stride, darknet

    def forward(self, input: Tensor) -> Tensor:
        s, shape = self.stride, tuple(input.shape)
        if input.dim() != 4 or shape[2] % s or shape[3] % s or (self.darknet and shape[1] % s**2):
            raise ValueError(f"Reorg of stride {s} takes {self._expected()}, got {shape}")
        if not self.darknet:
            return F.pixel_unshuffle(input, s)
        n, c, h, w = shape
        blocks = input.reshape(n, c // s**2, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * s**2, h // s, w // s)

    def inverse(self, input: Tensor) -> Tensor:
        """(N, s^2 C, H, W) to (N, C, s H, s W)."""
        s = self.stride
        if input.dim() != 4 or input.shape[1] % (s**4 if self.darknet else s**2):
            raise ValueError(f"the inverse of Reorg of stride {s} got {tuple(input.shape)}")
        if not self.darknet:
            return F.pixel_shuffle(input, s)
        n, c, h, w = input.shape
        blocks = input.reshape(n, s, s, c // s**4, h * s, w * s).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // s**2, h * s, w * s)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, darknet={self.darknet}"

    def _expected(self) -> str:
        channels = f"C a multiple of {self.stride**2}, " if self.darknet else ""
        return f"(N, C, H, W) with {channels}H and W multiples of {self.stride}"


class DarknetStack(nn.Sequential):
    """Convolutions with leaky ReLUs and max pools in a row, as a table has them.

    Keys are positions. A pool of stride 1 keeps the map's size, as in Darknet: what is beyond the right and the lower
    edge does not count.

    Attributes:
        feature_chain: ``conv1``, ``pool1`` ... with paths that begin with ``path``.
        channels, stride: of the last map.
    """

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[Conv | Pool],
        *,
        path: str,
        batch_norm: bool,
        negative_slope: float,
        width_mult: float,
        **factory: Any,
    ) -> None:
        super().__init__()
        conv = partial(
            DarknetConv, norm=nn.BatchNorm2d if batch_norm else None, negative_slope=negative_slope, **factory
        )
        self.channels, self.stride = in_channels, 1
        chain, counts = [], {Conv: 0, Pool: 0}
        for layer in layers:
            first = len(self)
            if isinstance(layer, Conv):
                out = scale_channels(layer.out, width_mult)
                self.append(conv(self.channels, out, layer.kernel_size, layer.stride))
                self.channels = out
            else:
                if layer.stride == 1:
                    self.append(nn.ConstantPad2d((0, layer.kernel_size - 1) * 2, -math.inf))
                self.append(nn.MaxPool2d(layer.kernel_size, layer.stride))
            self.stride *= layer.stride
            counts[type(layer)] += 1
            name = f"{'conv' if isinstance(layer, Conv) else 'pool'}{counts[type(layer)]}"
            modules = tuple(f"{path}.{index}" for index in range(first, len(self)))
            chain.append(Feature(name, self.channels, self.stride, modules))
        self.feature_chain = tuple(chain)
