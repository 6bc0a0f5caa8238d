"""FractalNet: Larsson et al., Ultra-Deep Neural Networks without Residuals, ICLR 2017, section 3 and figure 1."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import CIFAR10
from fastcnn.models._registry import register
from fastcnn.nn.init import init_weights


@dataclass(frozen=True, kw_only=True)
class FractalNetRow(Row):
    """B blocks of C columns: ``B * 2**(C - 1)`` convolutions on the longest path, B on the shortest.

    Attributes:
        columns: C.
        channels: of each of the B blocks, each followed by a 2x2 max pool.
        dropout: between convolution and norm, for each block; () for none. The paper's, of 5 blocks, is
            (0, 0.1, 0.2, 0.3, 0.4).
        local_drop_path: chance that a join drops an input in training; one is always kept. 0.15 in the paper.
        global_drop_path: chance that a training batch runs a single column of the whole network, and no local
            drop-path. 0.5 in the paper.
    """

    columns: int
    channels: tuple[int, ...]
    dropout: tuple[float, ...] = ()
    local_drop_path: float = 0.0
    global_drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.columns, int) or self.columns < 1:
            raise ValueError(f"columns must be an int of at least 1, got {self.columns!r}")
        if not self.channels or not all(isinstance(n, int) and n > 0 for n in self.channels):
            raise ValueError(f"channels must be positive ints, got {self.channels!r}")
        if len(self.dropout) not in (0, len(self.channels)):
            raise ValueError(f"dropout must have a value for each of {len(self.channels)} blocks, got {self.dropout!r}")
        for field in ("local_drop_path", "global_drop_path"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be in [0, 1], got {getattr(self, field)}")

    @property
    def blocks(self) -> int:
        return len(self.channels)

    @property
    def depth(self) -> int:
        """Convolutions on the longest path."""
        return self.blocks * 2 ** (self.columns - 1)


def _chance(probability: float) -> bool:
    return probability > 0 and torch.rand(()).item() < probability


class FractalConv(nn.Sequential):
    """3x3 convolution, dropout, norm, ReLU."""

    conv_chains = (("conv", "norm"),)

    def __init__(self, in_channels: int, channels: int, dropout: float, **factory: Any) -> None:
        layers = OrderedDict[str, nn.Module](
            conv=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False, **factory),
            dropout=nn.Dropout(dropout),
            norm=nn.BatchNorm2d(channels, **factory),
            act=nn.ReLU(inplace=True),
        )
        super().__init__(layers)


class FractalBlock(nn.Module):
    """C columns of 1, 2, 4, ... convolutions, joined by an element-wise mean wherever two or more end together.

    (N, in_channels, H, W) to (N, channels, H, W). This is the expansion f(C + 1) = f(C) of f(C), joined with one
    convolution, where joins that follow each other are one mean over all their columns, as in figure 1. Deterministic
    in eval mode; draws from PyTorch's global generator in training mode, where drop-path is on.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        columns: int,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.columns = nn.ModuleList()
        for column in range(columns):
            inputs = (in_channels, *[channels] * (2**column - 1))
            self.columns.append(nn.Sequential(*(FractalConv(n, channels, dropout, **factory) for n in inputs)))
        self.drop_path = drop_path

    def forward(self, input: Tensor, only: int | None = None) -> Tensor:
        """``only``: the one column to run, in place of all."""
        if only is not None:
            return self.columns[only](input)
        columns = [list(cast(nn.Sequential, column)) for column in self.columns]
        longest = len(columns[-1])
        joined, ends = input, [input] * len(columns)
        for step in range(1, longest + 1):
            # A column of n convolutions ends one at every (longest / n)-th step.
            due = [index for index, column in enumerate(columns) if step * len(column) % longest == 0]
            outputs = [
                columns[index][step * len(columns[index]) // longest - 1](ends[index]) for index in self._kept(due)
            ]
            joined = sum(outputs[1:], outputs[0]) / len(outputs) if len(outputs) > 1 else outputs[0]
            for index in due:
                ends[index] = joined
        return joined

    def _kept(self, due: list[int]) -> list[int]:
        if not self.training:
            return due
        kept = [index for index in due if not _chance(self.drop_path)]
        return kept or [due[int(torch.randint(len(due), ()))]]


class FractalNet(ConvNet):
    """Features: ``block1``, ``block2``, ..., each before its pool."""

    classifier_path = "fc"

    def __init__(self, row: FractalNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        chain: list[Feature] = []
        in_channels = row.in_channels
        before: tuple[str, ...] = ()
        for index, channels in enumerate(row.channels):
            dropout = row.dropout[index] if row.dropout else 0.0
            block = FractalBlock(in_channels, channels, row.columns, dropout, row.local_drop_path, **factory)
            name, pool = f"block{index + 1}", f"pool{index + 1}"
            self.add_module(name, block)
            self.add_module(pool, nn.MaxPool2d(2))
            chain.append(Feature(name, channels, 2**index, (*before, name)))
            in_channels, before = channels, (pool,)
        self.feature_chain = tuple(chain)
        self.head_names = (*before, "avgpool", "fc")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, row.num_classes, **factory)
        self.init_weights(self)

    def forward_stages(self, input: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        only = None
        row = self.row
        assert isinstance(row, FractalNetRow)
        if self.training and _chance(row.global_drop_path):
            only = int(torch.randint(row.columns, ()))
        out: dict[str, Tensor] = {}
        for stage in self.feature_chain:
            for path in stage.modules:
                module = self.get_submodule(path)
                input = module(input, only) if isinstance(module, FractalBlock) else module(input)
            if stage.name in names:
                out[stage.name] = input
        return out

    def forward_head(self, features: Tensor) -> Tensor:
        pooled = self.get_submodule(self.head_names[0])(features)
        return self.fc(self.avgpool(pooled).flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)


_WIDE, _NARROW = (64, 128, 256, 512, 512), (16, 32, 64, 128, 128)

ROWS = {
    "cifar_fractalnet40": FractalNetRow(
        columns=4,
        channels=_NARROW,
        num_classes=10,
        preprocess=CIFAR10,
        source="Larsson et al., ICLR 2017, table 3, 4 columns; 10 classes where the table has 100",
    ),
    "cifar_fractalnet20": FractalNetRow(
        columns=3, channels=_WIDE, num_classes=10, preprocess=CIFAR10, source="Larsson et al., ICLR 2017, section 4.1"
    ),
    "fractalnet": FractalNetRow(
        columns=4, channels=_WIDE, source="Larsson et al., ICLR 2017, figure 1 (B = 5, C = 4), for ImageNet's size"
    ),
}

register(ROWS, FractalNet)
