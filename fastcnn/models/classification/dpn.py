"""DPN: Chen et al., Dual Path Networks, NIPS 2017, table 1."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import conv2d
from fastcnn.nn.inception import InceptionConv

_NORM = partial(nn.BatchNorm2d, eps=1e-3)
_PREPROCESS = Preprocess(interpolation="bicubic", mean=(124 / 255, 117 / 255, 104 / 255), std=(1 / (0.0167 * 255),) * 3)


@dataclass(frozen=True, kw_only=True)
class DPNRow(Row):
    """A column of table 1.

    Attributes:
        blocks: per stage.
        dense: channels that each block of a stage adds to the densely connected path.
        width: channels of the 3x3 convolutions in the first stage; every stage after it has twice as many.
        groups: of those convolutions.
        stem_channels: of the first convolution.
        stem_kernel: its size.
        residual: channels of the residual path in the first stage; every stage after it has twice as many.
        dropout: before the classifier.
    """

    blocks: tuple[int, ...]
    dense: tuple[int, ...]
    width: int
    groups: int = 32
    stem_channels: int = 64
    stem_kernel: int = 7
    residual: int = 256
    dropout: float = 0.0
    preprocess: Preprocess = _PREPROCESS

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("blocks", "dense"):
            value = getattr(self, field)
            if not value or not all(isinstance(n, int) and n > 0 for n in value):
                raise ValueError(f"{field} must be positive ints, got {value!r}")
        if len(self.blocks) != len(self.dense):
            raise ValueError(f"dense must have {len(self.blocks)} ints, one for each stage, got {self.dense!r}")
        for field in ("width", "groups", "stem_channels", "stem_kernel", "residual"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.width % self.groups:
            raise ValueError(f"width must be a multiple of groups = {self.groups}, got {self.width}")


class NormActConv(nn.Module):
    """Batch norm, ReLU and a convolution, padded to keep H' = ceil(H / stride); children ``bn``, ``act``, ``conv``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        **factory: Any,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.bn = _NORM(in_channels, **factory)
        self.act = nn.ReLU(inplace=True)
        self.conv = conv2d(
            *(in_channels, out_channels, kernel_size, stride), padding=padding, groups=groups, bias=False, **factory
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.conv(self.act(self.bn(input)))


class DualPathBlock(nn.Module):
    """A bottleneck whose first ``residual`` outputs are added to the input's and whose others are put behind them.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)), ``out_channels`` being
    ``in_channels + dense``; where ``projection`` is True, as in a stage's first block, a 1x1 convolution makes
    ``residual + 2 * dense`` channels of the input first, so it is ``residual + 3 * dense``. Source: figure 2 d.
    """

    # The norms before the first convolution and the projection have a sum or a concatenation before them.
    conv_chains = (("c1x1_a.conv", "c3x3_b.bn", "c3x3_b.act"), ("c3x3_b.conv", "c1x1_c.bn", "c1x1_c.act"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        residual: int,
        dense: int,
        groups: int,
        stride: int = 1,
        *,
        projection: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.residual = residual
        self.out_channels = in_channels + dense
        self.projection_name = f"c1x1_w_s{stride}" if projection else None
        if self.projection_name is not None:
            self.out_channels = residual + 3 * dense
            self.add_module(self.projection_name, NormActConv(in_channels, residual + 2 * dense, 1, stride, **factory))
        self.c1x1_a = NormActConv(in_channels, width, **factory)
        self.c3x3_b = NormActConv(width, width, 3, stride, groups, **factory)
        self.c1x1_c = NormActConv(width, residual + dense, **factory)

    def forward(self, input: Tensor) -> Tensor:
        kept = input if self.projection_name is None else getattr(self, self.projection_name)(input)
        out = self.c1x1_c(self.c3x3_b(self.c1x1_a(input)))
        added = kept[:, : self.residual] + out[:, : self.residual]
        return torch.cat([added, kept[:, self.residual :], out[:, self.residual :]], 1)


class DPN(ConvNet):
    """Keys are timm's. Features: ``conv1`` (before the max pool), ``conv2`` ... ``conv5``, ``conv5_bn_ac`` (the last
    stage's, after norm and ReLU)."""

    head_names = ("avgpool", "dropout", "classifier")
    classifier_path = "classifier"

    def __init__(self, row: DPNRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = row.stem_channels, 2
        self.features = nn.Sequential()
        stem = InceptionConv(row.in_channels, channels, row.stem_kernel, stride, **factory)
        self.features.add_module("conv1_1", stem)
        self.features.add_module("conv1_pool", nn.MaxPool2d(3, 2, padding=1))
        chain = [Feature("conv1", channels, stride, ("features.conv1_1",))]
        for index, (blocks, dense) in enumerate(zip(row.blocks, row.dense, strict=True)):
            width, residual, step = row.width * 2**index, row.residual * 2**index, 1 if index == 0 else 2
            name, paths = f"conv{index + 2}", ["features.conv1_pool"] if index == 0 else []
            for number in range(blocks):
                begins = number == 0
                options: dict[str, Any] = {"stride": step if begins else 1, "projection": begins}
                block = DualPathBlock(channels, width, residual, dense, row.groups, **options, **factory)
                self.features.add_module(f"{name}_{number + 1}", block)
                paths.append(f"features.{name}_{number + 1}")
                channels = block.out_channels
            stride = 4 * 2**index
            chain.append(Feature(name, channels, stride, tuple(paths)))
        last = OrderedDict[str, nn.Module](bn=_NORM(channels, **factory), act=nn.ReLU(inplace=True))
        name = f"conv{len(row.blocks) + 1}_bn_ac"
        self.features.add_module(name, nn.Sequential(last))
        self.feature_chain = (*chain, Feature(name, channels, stride, (f"features.{name}",)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(row.dropout)
        self.classifier = nn.Conv2d(channels, row.num_classes, 1, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.avgpool(features))).flatten(1)

    def init_weights(self, module: nn.Module) -> None:
        """PyTorch's defaults, which every layer has from the start, as timm does; the paper does not say."""


_PAPER = "Chen et al., NIPS 2017"
_DENSE = (16, 32, 32, 128)

ROWS = {
    "dpn68": DPNRow(
        blocks=(3, 4, 12, 3),
        dense=(16, 32, 32, 64),
        width=128,
        stem_channels=10,
        stem_kernel=3,
        residual=64,
        source=f"{_PAPER}, authors' code, DPN-68 (32x4d)",
    ),
    "dpn92": DPNRow(
        blocks=(3, 4, 20, 3), dense=(16, 32, 24, 128), width=96, source=f"{_PAPER}, table 1, DPN-92 (32x3d)"
    ),
    "dpn98": DPNRow(
        blocks=(3, 6, 20, 3),
        dense=_DENSE,
        width=160,
        groups=40,
        stem_channels=96,
        source=f"{_PAPER}, table 1, DPN-98 (40x4d)",
    ),
    "dpn131": DPNRow(
        blocks=(4, 8, 28, 3),
        dense=_DENSE,
        width=160,
        groups=40,
        stem_channels=128,
        source=f"{_PAPER}, DPN-131 (40x4d)",
    ),
    "dpn107": DPNRow(
        blocks=(4, 8, 20, 3),
        dense=(20, 64, 64, 128),
        width=200,
        groups=50,
        stem_channels=128,
        source=f"{_PAPER}, authors' code, DPN-107 (50x4d)",
    ),
}

register(ROWS, DPN)
