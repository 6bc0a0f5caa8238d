"""ResNet: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1; and its plain networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import BICUBIC
from fastcnn.models._registry import register
from fastcnn.nn.blocks import SqueezeExcite
from fastcnn.nn.init import init_weights
from fastcnn.nn.residual import (
    SHORTCUTS,
    BasicBlock,
    Bottleneck,
    ConcatenatedBottleneck,
    ResidualBlock,
    SplitBottleneck,
)


@dataclass(frozen=True, kw_only=True)
class ResNetRow(Row):
    """A column of table 1.

    Attributes:
        layers: blocks per stage.
        block: "basic" (two 3x3), "bottleneck" (1x1, 3x3, 1x1), or one of the bottleneck's equivalent forms with a
            path for each group, which have keys of their own: "concatenated", "split".
        shortcut: "A" (zeros for new channels), "B" (projections where shape changes), "C" (projections in every
            block) or None: see :class:`fastcnn.nn.residual.ResidualBlock`.
        groups, width_per_group: cardinality and width of the 3x3 convolutions, as ResNeXt has them ("32x4d" =
            32, 4).
        stride_in_1x1: downsample in a block's first 1x1 convolution, as the paper does, not in its 3x3
            ("v1.5").
        replace_stride_with_dilation: which stages after the first keep the side of their map, by the "hole algorithm":
            their 3x3 convolutions, and those of stages after them, see pixels as far apart as they would have. The
            first 3x3 of such a stage has the stride itself in v1.5, and no further holes, as in torchvision.
        squeeze_excite: a block's channels over the hidden ones of its squeeze-excite; None leaves that out.
        dropout: before the classifier; none in the paper.
    """

    stages: ClassVar[int] = 4

    layers: tuple[int, ...]
    block: str = "bottleneck"
    shortcut: str | None = "B"
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    replace_stride_with_dilation: tuple[bool, ...] = ()
    squeeze_excite: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != self.stages or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise ValueError(f"layers must be {self.stages} positive ints, got {self.layers!r}")
        if self.block not in ResNet.blocks:
            raise ValueError(f"block must be one of {', '.join(ResNet.blocks)}, got {self.block!r}")
        if self.shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be 'A', 'B', 'C' or None, got {self.shortcut!r}")
        for field in ("groups", "width_per_group", "squeeze_excite"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {self.dropout}")
        holes = self.replace_stride_with_dilation
        if holes and (len(holes) != self.stages - 1 or self.block != "bottleneck"):
            raise ValueError(
                f"replace_stride_with_dilation must be {self.stages - 1} bools, of bottlenecks, got {holes!r} of "
                f"{self.block} blocks"
            )
        for field in ("groups", "width_per_group", "stride_in_1x1"):
            if self.block == "basic" and getattr(self, field) != getattr(ResNetRow, field):
                raise ValueError(f"basic blocks have no {field}, got {getattr(self, field)}")

    def block_options(self) -> dict[str, Any]:
        """Of the constructor of ``block``."""
        options: dict[str, Any] = {"shortcut": self.shortcut}
        if self.block != "basic":
            options["stride_in_1x1"] = self.stride_in_1x1
            options["groups"], options["width_per_group"] = self.groups, self.width_per_group
        if self.squeeze_excite is not None:
            options["squeeze_excite"] = partial(_squeeze_excite, self.squeeze_excite)
        return options


def _squeeze_excite(reduction: int, channels: int, **factory: Any) -> SqueezeExcite:
    return SqueezeExcite(channels, max(1, channels // reduction), **factory)


class ResNet(PooledNet):
    """Keys are torchvision's. Features: ``stem`` (before the max pool), ``layer1`` ... ``layer4``."""

    conv_chains: tuple[tuple[str, ...], ...] = (("conv1", "bn1", "relu"),)

    blocks: ClassVar[Mapping[str, type[ResidualBlock]]] = {
        "basic": BasicBlock,
        "bottleneck": Bottleneck,
        "concatenated": ConcatenatedBottleneck,
        "split": SplitBottleneck,
    }
    width = 64
    pool: str | None = "maxpool"

    def __init__(self, row: ResNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        chain = [self.add_stem(row, **factory)]
        channels, stride = chain[0].channels, chain[0].stride * (1 if self.pool is None else 2)
        block = self.blocks[row.block]
        options = row.block_options() | factory
        dilation, has_holes = 1, (False, *(row.replace_stride_with_dilation or (False,) * (row.stages - 1)))
        for index, blocks in enumerate(row.layers):
            planes, step = self.width * 2**index, 1 if index == 0 else 2
            first = dilation
            if has_holes[index]:
                dilation, step = dilation * step, 1
                first = dilation if row.stride_in_1x1 else first
            layer = nn.Sequential()
            for number in range(blocks):
                apart = dilation if number else first
                holes = {"dilation": apart} if apart > 1 else {}
                layer.append(block(channels, planes, 1 if number else step, **options, **holes))
                channels = planes * block.expansion
            stride *= step
            name = f"layer{index + 1}"
            self.add_module(name, layer)
            modules = (name,) if self.pool is None or index > 0 else (self.pool, name)
            chain.append(Feature(name, channels, stride, modules))
        self.feature_chain = tuple(chain)
        self.add_head(channels, row.dropout, **factory)
        self.init_weights(self)

    def add_stem(self, row: Any, **factory: Any) -> Feature:
        """Adds the layers before the first stage; returns the feature before the pooling."""
        self.conv1 = nn.Conv2d(row.in_channels, 64, 7, 2, padding=3, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(64, **factory)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        return Feature("stem", 64, 2, ("conv1", "bn1", "relu"))

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)


_18, _34, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_PAPER = "He et al., CVPR 2016, table 1, {}-layer; {}"
_B = "shortcuts B, as torchvision"
_V1 = "stride in the first 1x1, as the paper"
_V15 = "stride in the 3x3 (v1.5), as torchvision"
_WIDE = "Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016, {}-layer with 3x3 twice as wide, as torchvision"
_PLAIN = "the plain network, no shortcuts"

ROWS = {
    "resnet18": ResNetRow(layers=_18, block="basic", source=_PAPER.format(18, _B)),
    "resnet18_a": ResNetRow(layers=_18, block="basic", shortcut="A", source=_PAPER.format(18, "shortcuts A")),
    "resnet34": ResNetRow(layers=_34, block="basic", source=_PAPER.format(34, _B)),
    "resnet34_a": ResNetRow(layers=_34, block="basic", shortcut="A", source=_PAPER.format(34, "shortcuts A")),
    "resnet34_c": ResNetRow(layers=_34, block="basic", shortcut="C", source=_PAPER.format(34, "shortcuts C")),
    "plain18": ResNetRow(layers=_18, block="basic", shortcut=None, source=_PAPER.format(18, _PLAIN)),
    "plain34": ResNetRow(layers=_34, block="basic", shortcut=None, source=_PAPER.format(34, _PLAIN)),
    "resnet50": ResNetRow(layers=_34, source=_PAPER.format(50, _V15)),
    "resnet50_v1": ResNetRow(layers=_34, stride_in_1x1=True, source=_PAPER.format(50, _V1)),
    "resnet101": ResNetRow(layers=_101, source=_PAPER.format(101, _V15)),
    "resnet101_v1": ResNetRow(layers=_101, stride_in_1x1=True, source=_PAPER.format(101, _V1)),
    "resnet152": ResNetRow(layers=_152, source=_PAPER.format(152, _V15)),
    "resnet152_v1": ResNetRow(layers=_152, stride_in_1x1=True, source=_PAPER.format(152, _V1)),
    "resnet200": ResNetRow(
        layers=(3, 24, 36, 3),
        preprocess=BICUBIC,
        source="the depth of He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, with the blocks of "
        "CVPR 2016; stride in the 3x3 (v1.5), as timm",
    ),
    "wide_resnet50_2": ResNetRow(layers=_34, width_per_group=128, source=_WIDE.format(50)),
    "wide_resnet101_2": ResNetRow(layers=_101, width_per_group=128, source=_WIDE.format(101)),
}

register(ROWS, ResNet)
