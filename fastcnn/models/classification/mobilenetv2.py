"""MobileNetV2: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct, ConvSequence, conv2d, make_divisible
from fastcnn.nn.init import init_weights
from fastcnn.nn.layers import ReLU6


class Bottlenecks(NamedTuple):
    """A row of table 2: expansion factor t, output channels c, repetitions n, stride s of the first."""

    expansion: int
    out: int
    repeats: int
    stride: int


TABLE = (
    Bottlenecks(1, 16, 1, 1),
    Bottlenecks(6, 24, 2, 2),
    Bottlenecks(6, 32, 3, 2),
    Bottlenecks(6, 64, 4, 2),
    Bottlenecks(6, 96, 3, 1),
    Bottlenecks(6, 160, 3, 2),
    Bottlenecks(6, 320, 1, 1),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Row(Row):
    """Table 2 and what it is multiplied by.

    Attributes:
        width_mult: factor on all channels, rounded to multiples of 8; the last convolution gets no fewer than 1280.
        dropout: before the classifier.
    """

    width_mult: float = 1.0
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width_mult <= 0:
            raise ValueError(f"width_mult must be positive, got {self.width_mult}")


class LinearBottleneck(nn.Module):
    """Inverted residual, table 1: 1x1 expansion, depthwise 3x3, 1x1 projection without activation; ReLU6 elsewhere.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); adds the input where the shape is
    kept. No 1x1 expansion where ``expansion`` is 1. Keys are torchvision's of MobileNetV2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        stride: int = 1,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(in_channels, width, 1, act=ReLU6, **factory))
        self.conv = ConvSequence(
            *layers,
            ConvNormAct(width, width, 3, stride, groups=width, act=ReLU6, **factory),
            conv2d(width, out_channels, 1, bias=False, **factory),
            nn.BatchNorm2d(out_channels, **factory),
        )
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:
        return self.conv(input, input if self.use_shortcut else None)


class MobileNetV2(ConvNet):
    """Keys are torchvision's. Features: ``features.0`` (the stem), ``features.1`` ..., one per block, and the last."""

    head_names = ("avgpool", "classifier")
    classifier_path = "classifier.1"

    def __init__(self, row: MobileNetV2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = nn.Sequential()
        chain: list[Feature] = []

        def add(layer: nn.Module, out: int, stride: int) -> None:
            name = f"features.{len(chain)}"
            chain.append(Feature(name, out, stride, (name,)))
            self.features.append(layer)

        channels, stride = make_divisible(32 * row.width_mult), 2
        add(ConvNormAct(row.in_channels, channels, 3, 2, act=ReLU6, **factory), channels, stride)
        for expansion, table_out, repeats, first_stride in TABLE:
            out = make_divisible(table_out * row.width_mult)
            stride *= first_stride
            for block in range(repeats):
                step = first_stride if block == 0 else 1
                add(LinearBottleneck(channels, out, expansion, step, **factory), out, stride)
                channels = out
        last = make_divisible(1280 * max(1.0, row.width_mult))
        add(ConvNormAct(channels, last, 1, act=ReLU6, **factory), last, stride)
        self.feature_chain = tuple(chain)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(row.dropout), nn.Linear(last, row.num_classes, **factory))
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.avgpool(features).flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module, linear_std=0.01)


_PAPER = "Sandler et al., CVPR 2018, table 2"

ROWS = {
    "mobilenet_v2_x0_35": MobileNetV2Row(width_mult=0.35, source=f"{_PAPER}; 0.35 times as wide"),
    "mobilenet_v2_x0_5": MobileNetV2Row(width_mult=0.5, source=f"{_PAPER}; 0.5 times as wide"),
    "mobilenet_v2": MobileNetV2Row(source=_PAPER),
    "mobilenet_v2_x1_4": MobileNetV2Row(width_mult=1.4, source=f"{_PAPER}; 1.4 times as wide, section 6.1"),
}

register(ROWS, MobileNetV2)
