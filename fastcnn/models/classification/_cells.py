"""Networks that are stages of searched cells: what NASNet, PNASNet and AmoebaNet have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.nn.cells import Cell, CellTable
from fastcnn.nn.inception import InceptionConv
from fastcnn.nn.init import init_weights

MOBILE, MEDIUM, LARGE = (
    Preprocess(side, crop, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    for side, crop in ((224, 0.875), (299, 0.875), (331, 0.911))
)


@dataclass(frozen=True, kw_only=True)
class CellRow(Row):
    """A network of cells.

    Attributes:
        normal: the cell that a stage repeats.
        reduction: the cell, of stride 2, that the stem has twice and that stands before the second and the third
            stage; None for the normal one, with the stride, which then is the first of its stage.
        repeats: normal cells of a stage (N).
        filters: channels of an operation in the first stage (F), doubled in the next ones.
        stem_channels: of the convolution before all cells.
        skip_reduction: the cell after a reduction takes the same second input as the reduction.
        dropout: before the classifier.
    """

    normal: CellTable
    reduction: CellTable | None = None
    repeats: int
    filters: int
    stem_channels: int = 32
    skip_reduction: bool = False
    dropout: float = 0.5
    preprocess: Preprocess = LARGE

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("repeats", 1), ("filters", 8), ("stem_channels", 1)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field} must be an int of at least {least}, got {value!r}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {self.dropout}")


class CellNet(PooledNet):
    """Features: ``stem``, ``stem_0`` (the first cell) and ``stage1``, ``stage2``, ``stage3``, from their cells.

    A map is what a cell returns, before the ReLU that the next one begins with; the last is after it. Source: Zoph et
    al., Learning Transferable Architectures, CVPR 2018, figure 2.
    """

    head_names = ("global_pool", "dropout", "last_linear")
    classifier_path = "last_linear"
    stem_name = "conv0"
    cell: type[Cell] = Cell

    def __init__(self, row: CellRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        reduction = row.normal if row.reduction is None else row.reduction
        stem = InceptionConv(row.in_channels, row.stem_channels, 3, 2, padding=0, act=None, **factory)
        self.add_module(self.stem_name, stem)
        chain = [Feature("stem", row.stem_channels, 2, (self.stem_name,))]
        self.keeps_previous = ("reduction_cell_0", "reduction_cell_1") if row.skip_reduction else ()
        modules: list[str] = []
        current: tuple[int, int] = chain[0][1:3]
        previous: tuple[int, int] | None = None

        def add(name: str, table: CellTable, filters: int, stride: int = 1) -> None:
            nonlocal current, previous
            before, halve = (None, False) if previous is None else (previous[0], previous[1] < current[1])
            cell = self.cell(table, current[0], before, filters, stride=stride, halve_previous=halve, **factory)
            self.add_module(name, cell)
            modules.append(name)
            if name not in self.keeps_previous:
                previous = current
            current = cell.out_channels, current[1] * stride

        def end(name: str) -> None:
            chain.append(Feature(name, *current, tuple(modules)))
            modules.clear()

        add("cell_stem_0", reduction, row.filters // 4, 2)
        end("stem_0")
        add("cell_stem_1", reduction, row.filters // 2, 2)
        for stage in range(3):
            filters = row.filters * 2**stage
            strided = stage > 0 and row.reduction is None
            if stage > 0 and row.reduction is not None:
                add(f"reduction_cell_{stage - 1}", row.reduction, filters, 2)
            for index in range(row.repeats):
                stride = 2 if strided and index == 0 else 1
                add(f"cell_{stage * row.repeats + index}", row.normal, filters, stride)
            if stage == 2:
                self.act = nn.ReLU(inplace=True)
                modules.append("act")
            end(f"stage{stage + 1}")
        self.feature_chain = tuple(chain)
        self.add_head(current[0], row.dropout, **factory)
        self.init_weights(self)

    def forward_stages(self, input: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        previous: Tensor | None = None
        for stage in self.feature_chain:
            for name in stage.modules:
                module = getattr(self, name)
                if not isinstance(module, Cell):
                    input = module(input)
                    continue
                result = module(input, previous)
                if name not in self.keeps_previous:
                    previous = input
                input = result
            if stage.name in names:
                out[stage.name] = input
        return out

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions as the authors' code: He's normal by fan-out, of one group. The linear layer is PyTorch's."""
        init_weights(module, per_group=True)
