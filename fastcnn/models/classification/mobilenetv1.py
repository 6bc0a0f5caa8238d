"""MobileNet: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017.

Table 1, with the width multipliers of table 6 and, by the size of the input, the resolutions of table 7. With
squeeze-and-excitation: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, table 3.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvSequence, ModuleFactory, SqueezeExcite, conv2d, make_divisible
from fastcnn.nn.init import init_weights
from fastcnn.nn.layers import ReLU6

# (output channels, stride) of the depthwise separable blocks. Table 1 gives the very last depthwise convolution stride
# 2 on a 7x7 map, but what comes after it is 7x7 as well: its stride is 1.
STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *[(512, 1)] * 5),
    ((1024, 2), (1024, 1)),
)


TIMM = Preprocess(interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


@dataclass(frozen=True, kw_only=True)
class MobileNetV1Row(Row):
    """Table 1 and what it is multiplied by.

    Attributes:
        width_mult: factor on all channels, rounded to multiples of 8; alpha in the paper.
        act: after every convolution: ReLU6 in the authors' code and in the published weights; the paper says ReLU.
        se_reduction: channels over the hidden channels of a squeeze-excite after every 1x1 convolution; None for none.
        dropout: before the classifier.
    """

    width_mult: float = 1.0
    act: ModuleFactory = ReLU6
    se_reduction: int | None = None
    dropout: float = 0.0
    preprocess: Preprocess = TIMM

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width_mult <= 0:
            raise ValueError(f"width_mult must be positive, got {self.width_mult}")
        if self.se_reduction is not None and self.se_reduction < 1:
            raise ValueError(f"se_reduction must be at least 1 or None, got {self.se_reduction}")


def _separable(channels: int, out: int, stride: int, row: MobileNetV1Row, **factory: Any) -> ConvSequence:
    """Depthwise separable block, figure 3: (N, channels, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
    layers: dict[str, nn.Module] = {
        "conv_dw": conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False, **factory),
        "bn1": nn.BatchNorm2d(channels, **factory),
        "act1": row.act(inplace=True),
        "conv_pw": conv2d(channels, out, 1, bias=False, **factory),
        "bn2": nn.BatchNorm2d(out, **factory),
        "act2": row.act(inplace=True),
    }
    if row.se_reduction is not None:
        layers["se"] = SqueezeExcite(out, max(1, out // row.se_reduction), **factory)
    return ConvSequence(OrderedDict(layers))


class MobileNetV1(PooledNet):
    """Keys are timm's of mobilenetv1_100. Features: ``stem``, ``blocks.0`` (stride 2) ... ``blocks.4`` (stride 32)."""

    head_names = ("global_pool", "dropout", "classifier")
    classifier_path = "classifier"
    conv_chains = (("conv_stem", "bn1", "act1"),)

    def __init__(self, row: MobileNetV1Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = make_divisible(32 * row.width_mult), 2
        self.conv_stem = nn.Conv2d(row.in_channels, channels, 3, 2, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(channels, **factory)
        self.act1 = row.act(inplace=True)
        chain = [Feature("stem", channels, stride, ("conv_stem", "bn1", "act1"))]
        self.blocks = nn.Sequential()
        for stage in STAGES:
            blocks = nn.Sequential()
            for table_out, step in stage:
                out = make_divisible(table_out * row.width_mult)
                blocks.append(_separable(channels, out, step, row, **factory))
                channels, stride = out, stride * step
            name = f"blocks.{len(self.blocks)}"
            self.blocks.append(blocks)
            chain.append(Feature(name, channels, stride, (name,)))
        self.feature_chain = tuple(chain)
        self.add_head(channels, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        # The convolutions as timm; the paper does not say. The classifier as torchvision's later MobileNets.
        init_weights(module, linear_std=0.01, per_group=True)


_PAPER = "Howard et al., 2017, table 1; ReLU6 as in the authors' code"

ROWS = {
    "mobilenet_v1_x0_25": MobileNetV1Row(width_mult=0.25, source=f"{_PAPER}; 0.25 times as wide, table 6"),
    "mobilenet_v1_x0_5": MobileNetV1Row(width_mult=0.5, source=f"{_PAPER}; 0.5 times as wide, table 6"),
    "mobilenet_v1_x0_75": MobileNetV1Row(width_mult=0.75, source=f"{_PAPER}; 0.75 times as wide, table 6"),
    "mobilenet_v1": MobileNetV1Row(source=_PAPER),
    "se_mobilenet_v1": MobileNetV1Row(
        se_reduction=16, source="Hu et al., CVPR 2018, table 3: squeeze-excite after every 1x1 convolution of MobileNet"
    ),
}

register(ROWS, MobileNetV1)
