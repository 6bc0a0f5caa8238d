"""Inception-v4: Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, AAAI 2017."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fastcnn.models._net import Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._layers import add_network
from fastcnn.nn.branches import AVERAGE, MAX, Chain, Conv, Flat, Fork, Parallel, Step, parallel

# Figure 3: from the image to 35x35x384.
STEM: tuple[Step, ...] = (
    Conv(32, 3, 2),
    Conv(32, 3, padding=0),
    Conv(64, 3),
    Parallel({"maxpool": MAX, "conv": Conv(96, 3, 2)}),
    parallel(
        (Conv(64), Conv(96, 3, padding=0)),
        (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, padding=0)),
    ),
    Parallel({"conv": Conv(192, 3, 2), "maxpool": MAX}),
)

# Figures 4, 5 and 6: the modules of the 35x35, 17x17 and 8x8 grids.
_INCEPTION_A = parallel((Conv(96),), (Conv(64), Conv(96, 3)), (Conv(64), Conv(96, 3), Conv(96, 3)), (AVERAGE, Conv(96)))
_INCEPTION_B = parallel(
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    (AVERAGE, Conv(128)),
)
_FORK = Fork((Conv(256, (1, 3)), Conv(256, (3, 1))))
_INCEPTION_C = Flat(
    {
        "branch0": (Conv(256),),
        "branch1": (Conv(384), _FORK),
        "branch2": (Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), _FORK),
        "branch3": (Chain((AVERAGE, Conv(256))),),
    },
    first=0,
)

# Figures 7, with k, l, m, n of table 1, and 8.
_REDUCTION_A = parallel((Conv(384, 3, 2),), (Conv(192), Conv(224, 3), Conv(256, 3, 2)), (MAX,))
_REDUCTION_B = parallel(
    (Conv(192), Conv(192, 3, 2)), (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2)), (MAX,)
)

_PREPROCESS = Preprocess(299, 0.875, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class InceptionV4Row(Row):
    """Figure 9.

    Attributes:
        stem: the layers before the modules.
        modules: how many of each grid.
        dropout: before the classifier.
    """

    stem: tuple[Step, ...] = STEM
    modules: tuple[int, int, int] = (4, 7, 3)
    dropout: float = 0.2
    preprocess: Preprocess = field(default=_PREPROCESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.modules) != 3 or not all(isinstance(n, int) and n > 0 for n in self.modules):
            raise ValueError(f"modules must be three positive ints, got {self.modules!r}")


class InceptionV4(PooledNet):
    """Keys are timm's. Features: ``features.0`` ..., one per layer of the stem, module and reduction."""

    head_names = ("avgpool", "dropout", "last_linear")
    classifier_path = "last_linear"

    def __init__(self, row: InceptionV4Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        a, b, c = row.modules
        steps = (*row.stem, *[_INCEPTION_A] * a, _REDUCTION_A, *[_INCEPTION_B] * b, _REDUCTION_B, *[_INCEPTION_C] * c)
        layers: Mapping[str, Step] = {str(index): step for index, step in enumerate(steps)}
        self.features = nn.Sequential()
        add_network(self, layers, "features", **factory)

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions as in the authors' code: normal with variance 2 / inputs. The linear layer is PyTorch's."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


ROWS = {
    "inception_v4": InceptionV4Row(source="Szegedy et al., AAAI 2017, figure 9, without the auxiliary classifier"),
}

register(ROWS, InceptionV4)
