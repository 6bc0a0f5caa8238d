"""Heads that predict densely: something for every anchor of every map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def flatten_maps(maps: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Outputs of a head, (N, A * columns, Hi, Wi), as (N, Hi * Wi * A, columns): the order of the anchors."""
    return [map_.unflatten(1, (-1, columns)).permute(0, 3, 4, 1, 2).reshape(map_.size(0), -1, columns) for map_ in maps]


class DenseHead(nn.Module):
    """``classification_head`` and ``regression_head``, each from a list of maps to a list: torchvision's keys."""

    def __init__(self, classification: nn.Module, regression: nn.Module) -> None:
        super().__init__()
        self.classification_head = classification
        self.regression_head = regression

    def forward(self, maps: Sequence[Tensor], num_classes: int) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (N, Ai, classes) and codes (N, Ai, 4) of the anchors of each map."""
        return flatten_maps(self.classification_head(maps), num_classes), flatten_maps(self.regression_head(maps), 4)
