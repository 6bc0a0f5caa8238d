"""BN-Inception: Ioffe and Szegedy, Batch Normalization, ICML 2015, figure 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._registry import register
from fastcnn.nn.blocks import SqueezeExcite, conv2d
from fastcnn.nn.inception import Branches, InceptionConv
from fastcnn.nn.init import init_weights


class Module(NamedTuple):
    """A row of figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool and its projection.

    Without 1x1 convolutions and projection (0) a module has stride 2.
    """

    ch1x1: int
    reduce3x3: int
    ch3x3: int
    reduce_double: int
    ch_double: int
    pool: type[nn.Module]
    projection: int


@dataclass(frozen=True, kw_only=True)
class BNInceptionRow(Row):
    """A version of figure 5.

    Attributes:
        projection_4c_4d: pool projection of modules 4c and 4d. The figure prints 128, with which their outputs have 608
            channels, and 576 for their outputs, which takes 96.
        separable_stem: the first convolution is a depthwise one with 8 filters a channel and a 1x1 convolution.
        se_reduction: of a squeeze-excite block after every module; 0 leaves it out.
        dropout: before the classifier.
    """

    projection_4c_4d: int = 96
    separable_stem: bool = False
    se_reduction: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection_4c_4d < 1:
            raise ValueError(f"projection_4c_4d must be at least 1, got {self.projection_4c_4d}")
        if self.se_reduction < 0:
            raise ValueError(f"se_reduction must be at least 0, got {self.se_reduction}")


class HalvingMaxPool2d(nn.MaxPool2d):
    """3x3 max pool of stride 2 from H to ceil(H / 2) pixels, so that it fits the convolutions beside it at any size.

    Caffe's and TensorFlow's windows: the first begins at the first pixel where H is even, a pixel before where odd.
    """

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        return super().forward(F.pad(input, (width % 2, 1, height % 2, 1), value=float("-inf")))


class BNInception(PooledNet):
    """Features: ``conv1``, ``conv3``, ``inception3a`` ... ``inception5b``; the blocks ``se3a`` ... follow a module."""

    def __init__(self, row: BNInceptionRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = partial(InceptionConv, **factory)
        self.conv1: nn.Module
        if row.separable_stem:
            wide = 8 * row.in_channels
            depthwise = conv2d(row.in_channels, wide, 7, 2, padding=3, groups=row.in_channels, bias=False, **factory)
            self.conv1 = nn.Sequential(depthwise, conv(wide, 64, 1))
        else:
            self.conv1 = conv(row.in_channels, 64, 7, 2)
        self.maxpool1 = HalvingMaxPool2d()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.maxpool2 = HalvingMaxPool2d()
        chain = [Feature("conv1", 64, 2, ("conv1",)), Feature("conv3", 192, 4, ("maxpool1", "conv2", "conv3"))]
        channels, stride = 192, 8
        for key, module in _TABLE.items():
            if key in ("4c", "4d"):
                module = module._replace(projection=row.projection_4c_4d)
            name = f"inception{key}"
            paths: tuple[str, ...] = ("maxpool2", name) if key == "3a" else (name,)
            self.add_module(name, _inception(channels, module, conv))
            channels = module.ch1x1 + module.ch3x3 + module.ch_double + (module.projection or channels)
            if row.se_reduction:
                self.add_module(f"se{key}", SqueezeExcite(channels, channels // row.se_reduction, **factory))
                paths += (f"se{key}",)
            stride *= 1 if module.projection else 2
            chain.append(Feature(name, channels, stride, paths))
        self.feature_chain = tuple(chain)
        self.add_head(channels, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)


def _inception(channels: int, width: Module, conv: Callable[..., nn.Module]) -> Branches:
    strided = not width.projection
    stride = 2 if strided else 1
    branches = {
        "branch2": nn.Sequential(conv(channels, width.reduce3x3, 1), conv(width.reduce3x3, width.ch3x3, 3, stride)),
        "branch3": nn.Sequential(
            conv(channels, width.reduce_double, 1),
            conv(width.reduce_double, width.ch_double, 3),
            conv(width.ch_double, width.ch_double, 3, stride),
        ),
    }
    if strided:
        return Branches(**branches, branch4=HalvingMaxPool2d())
    projected = nn.Sequential(width.pool(3, 1, padding=1), conv(channels, width.projection, 1))
    return Branches(branch1=conv(channels, width.ch1x1, 1), **branches, branch4=projected)


AVG, MAX = nn.AvgPool2d, nn.MaxPool2d

_TABLE = {
    "3a": Module(64, 64, 64, 64, 96, AVG, 32),
    "3b": Module(64, 64, 96, 64, 96, AVG, 64),
    "3c": Module(0, 128, 160, 64, 96, MAX, 0),
    "4a": Module(224, 64, 96, 96, 128, AVG, 128),
    "4b": Module(192, 96, 128, 96, 128, AVG, 128),
    "4c": Module(160, 128, 160, 128, 160, AVG, 128),
    "4d": Module(96, 128, 192, 160, 192, AVG, 128),
    "4e": Module(0, 128, 192, 192, 256, MAX, 0),
    "5a": Module(352, 192, 320, 160, 224, AVG, 128),
    "5b": Module(352, 192, 320, 192, 224, MAX, 128),
}

_PAPER = "Ioffe and Szegedy, ICML 2015, figure 5"
_SE = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018"

ROWS = {
    "bn_inception": BNInceptionRow(source=f"{_PAPER}; 576 channels in 4c and 4d, as its output sizes say"),
    "bn_inception_608": BNInceptionRow(
        projection_4c_4d=128, source=f"{_PAPER}; 608 channels in 4c and 4d, as its pool projections say"
    ),
    "se_bn_inception": BNInceptionRow(
        projection_4c_4d=128, se_reduction=16, source=f"{_SE}, table 2: bn_inception_608 with squeeze-excite"
    ),
}

register(ROWS, BNInception)
