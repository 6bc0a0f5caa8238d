"""EfficientNet: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct, ConvSequence, InvertedResidual, SqueezeExcite, make_divisible
from fastcnn.nn.init import init_weights
from fastcnn.nn.stochastic import StochasticDepth


class Stage(NamedTuple):
    """Blocks of one kind: expansion, kernel size, stride of the first, output channels, repetitions, and the kind.

    ``fused`` blocks have one convolution of that size for the 1x1 and the depthwise one, and no squeeze-excite.
    """

    expansion: int
    kernel_size: int
    stride: int
    out: int
    repeats: int
    fused: bool = False


class Scaling(NamedTuple):
    """Factors on channels and on repetitions, and pixels of the input's side."""

    width: float
    depth: float
    resolution: int


ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15


def compound_scaling(phi: float, base: int = 224) -> Scaling:
    """Section 3.3: depth 1.2^phi, width 1.1^phi and resolution ``base`` * 1.15^phi, at about 2^phi times the cost.

    The released B1 to B7 have factors near these, not these: ``SCALINGS``.
    """
    return Scaling(BETA**phi, ALPHA**phi, round(base * GAMMA**phi))


def scale_stages(stages: tuple[Stage, ...], width_mult: float, depth_mult: float) -> tuple[Stage, ...]:
    """Channels rounded to multiples of 8, repetitions rounded up."""
    return tuple(
        stage._replace(out=make_divisible(stage.out * width_mult), repeats=math.ceil(stage.repeats * depth_mult))
        for stage in stages
    )


# Table 1, stages 2 to 8: MBConv1 k3, MBConv6 k3, ... Its stage 6 has 14x14 pixels: version 1 says 28x28.
B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)

# Of the networks that were released.
SCALINGS = (
    Scaling(1.0, 1.0, 224),
    Scaling(1.0, 1.1, 240),
    Scaling(1.1, 1.2, 260),
    Scaling(1.2, 1.4, 300),
    Scaling(1.4, 1.8, 380),
    Scaling(1.6, 2.2, 456),
    Scaling(1.8, 2.6, 528),
    Scaling(2.0, 3.1, 600),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetRow(Row):
    """A table of stages and what it is multiplied by.

    Attributes:
        stages: between the first convolution and the last, as in the paper's table.
        stem: channels of the first convolution.
        head: of the last one; None for four times those of the last stage.
        width_mult: factor on ``stem`` and the stages' channels, rounded to multiples of 8.
        depth_mult: factor on the stages' repetitions, rounded up.
        dropout: before the classifier.
        stochastic_depth: probability, in training, that a sample skips a block: it grows from 0 in the first block
            to nearly this in the last.
        eps, momentum: of the batch norms.
    """

    stages: tuple[Stage, ...] = B0
    stem: int = 32
    head: int | None = None
    width_mult: float = 1.0
    depth_mult: float = 1.0
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("width_mult", "depth_mult"):
            if (value := getattr(self, field)) <= 0:
                raise ValueError(f"{field} must be positive, got {value}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {self.dropout}")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be at least 0 and below 1, got {self.stochastic_depth}")


class MBConv(InvertedResidual):
    """Inverted residual with SiLU, squeeze-excite (hidden channels: a quarter of the input's) and stochastic depth.

    Shapes are :class:`fastcnn.nn.InvertedResidual`'s; keys are torchvision's. ``drop`` is the probability of
    :class:`fastcnn.nn.stochastic.StochasticDepth`. Source: table 1 and the authors' code.
    """

    def __init__(
        self, in_channels: int, expanded: int, out: int, kernel_size: int, stride: int, *, drop: float, **options: Any
    ) -> None:
        squeeze_excite = partial(_squeeze_excite, max(1, in_channels // 4))
        super().__init__(
            in_channels, expanded, out, kernel_size, stride, act=nn.SiLU, squeeze_excite=squeeze_excite, **options
        )
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, input: Tensor) -> Tensor:
        return _run(self, input)


def _run(unit: Any, input: Tensor) -> Tensor:
    if not unit.training or not unit.use_shortcut:
        return unit.block(input, input if unit.use_shortcut else None)
    return unit.stochastic_depth(unit.block(input)) + input


def _squeeze_excite(hidden: int, channels: int, **factory: Any) -> SqueezeExcite:
    return SqueezeExcite(channels, hidden, act=nn.SiLU, **factory)


class FusedMBConv(nn.Module):
    """A convolution in place of MBConv's expansion and depthwise one, no squeeze-excite; its only one at expansion 1.

    Shapes and options are :class:`MBConv`'s. Source: Tan and Le, EfficientNetV2, ICML 2021, figure 2.
    """

    def __init__(
        self, in_channels: int, expanded: int, out: int, kernel_size: int, stride: int, *, drop: float, **options: Any
    ) -> None:
        super().__init__()
        width = out if expanded == in_channels else expanded
        layers = [ConvNormAct(in_channels, width, kernel_size, stride, act=nn.SiLU, **options)]
        if expanded != in_channels:
            layers.append(ConvNormAct(width, out, 1, act=None, **options))
        self.block = ConvSequence(*layers)
        self.stochastic_depth = StochasticDepth(drop)
        self.use_shortcut = stride == 1 and in_channels == out

    def forward(self, input: Tensor) -> Tensor:
        return _run(self, input)


class EfficientNet(ConvNet):
    """Keys are torchvision's. Features: ``features.0`` (the stem), ``features.1`` ..., one per stage, and the last."""

    head_names = ("avgpool", "classifier")
    classifier_path = "classifier.1"

    def __init__(self, row: EfficientNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"norm": partial(nn.BatchNorm2d, eps=row.eps, momentum=row.momentum), **factory}
        stages = scale_stages(row.stages, row.width_mult, row.depth_mult)
        self.features = nn.Sequential()
        chain: list[Feature] = []

        def add(layer: nn.Module, channels: int, stride: int) -> None:
            name = f"features.{len(chain)}"
            chain.append(Feature(name, channels, stride, (name,)))
            self.features.append(layer)

        channels, stride = make_divisible(row.stem * row.width_mult), 2
        add(ConvNormAct(row.in_channels, channels, 3, 2, act=nn.SiLU, **options), channels, stride)
        total, built = sum(stage.repeats for stage in stages), 0
        for stage in stages:
            block = FusedMBConv if stage.fused else MBConv
            layer = nn.Sequential()
            for index in range(stage.repeats):
                step = stage.stride if index == 0 else 1
                drop = row.stochastic_depth * built / total
                expanded = make_divisible(channels * stage.expansion)
                layer.append(block(channels, expanded, stage.out, stage.kernel_size, step, drop=drop, **options))
                channels, built = stage.out, built + 1
            stride *= stage.stride
            add(layer, channels, stride)
        head = row.head or 4 * channels
        add(ConvNormAct(channels, head, 1, act=nn.SiLU, **options), head, stride)
        self.feature_chain = tuple(chain)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(row.dropout), nn.Linear(head, row.num_classes, **factory))
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.avgpool(features).flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        # The deviation that torchvision gives a classifier of 1000 classes, 1 / sqrt(3 * classes), for any number.
        init_weights(module, linear_std=3000**-0.5)


def _row(index: int, dropout: float, crop_pct: float = 1.0, **options: Any) -> EfficientNetRow:
    scaling = SCALINGS[index]
    return EfficientNetRow(
        width_mult=scaling.width,
        depth_mult=scaling.depth,
        dropout=dropout,
        preprocess=Preprocess(scaling.resolution, crop_pct=crop_pct, interpolation="bicubic"),
        source=f"Tan and Le, ICML 2019, tables 1 and 2; B{index} as in the authors' code",
        **options,
    )


_TF_NORM = {"eps": 1e-3, "momentum": 0.01}  # The authors' own; the other published weights have PyTorch's.

ROWS = {
    "efficientnet_b0": _row(0, 0.2, 224 / 256),
    "efficientnet_b1": _row(1, 0.2, 240 / 256),
    "efficientnet_b2": _row(2, 0.3),
    "efficientnet_b3": _row(3, 0.3, 300 / 320),
    "efficientnet_b4": _row(4, 0.4, 380 / 384),
    "efficientnet_b5": _row(5, 0.4, **_TF_NORM),
    "efficientnet_b6": _row(6, 0.5, **_TF_NORM),
    "efficientnet_b7": _row(7, 0.5, **_TF_NORM),
}

register(ROWS, EfficientNet)
