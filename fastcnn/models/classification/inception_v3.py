"""Inception-v2 and v3: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models._net import Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._layers import add_layers
from fastcnn.models.classification._transform_input import TransformInputNet
from fastcnn.nn.branches import AVERAGE_WITH_ZEROS, MAX, Conv, Flat, Fork, Step
from fastcnn.nn.inception import InceptionConv

AUXILIARY_WIDTH = 768

_PREPROCESS = Preprocess(299, 299 / 342, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _module_a(width: int, pool: int) -> Flat:
    """Figure 4, and with a ``width`` of 3 the first convolutions of figure 5: the 35x35 grid."""
    return Flat(
        {
            "branch1x1": (Conv(64),),
            f"branch{width}x{width}": (Conv(48), Conv(64, width)),
            "branch3x3dbl": (Conv(64), Conv(96, 3), Conv(96, 3)),
            "branch_pool": (AVERAGE_WITH_ZEROS, Conv(pool)),
        }
    )


def _module_b(width: int) -> Flat:
    """Figure 6 with n = 7: the 17x17 grid."""
    row, column = Conv(width, (1, 7)), Conv(width, (7, 1))
    return Flat(
        {
            "branch1x1": (Conv(192),),
            "branch7x7": (Conv(width), row, Conv(192, (7, 1))),
            "branch7x7dbl": (Conv(width), column, row, column, Conv(192, (1, 7))),
            "branch_pool": (AVERAGE_WITH_ZEROS, Conv(192)),
        }
    )


_FORK = Fork((Conv(384, (1, 3)), Conv(384, (3, 1))))

# Figure 7: the 8x8 grid.
_MODULE_C = Flat(
    {
        "branch1x1": (Conv(320),),
        "branch3x3": (Conv(384), _FORK),
        "branch3x3dbl": (Conv(448), Conv(384, 3), _FORK),
        "branch_pool": (AVERAGE_WITH_ZEROS, Conv(192)),
    }
)

# Figure 10: from 35x35 to 17x17 and from 17x17 to 8x8.
_REDUCTION_A = Flat(
    {
        "branch3x3": (Conv(384, 3, 2),),
        "branch3x3dbl": (Conv(64), Conv(96, 3), Conv(96, 3, 2)),
        "branch_pool": (MAX,),
    }
)
_REDUCTION_B = Flat(
    {
        "branch3x3": (Conv(192), Conv(320, 3, 2)),
        "branch7x7x3": (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2)),
        "branch_pool": (MAX,),
    }
)

# From the image to 64 channels of half its size.
_STEM = {
    "Conv2d_1a_3x3": Conv(32, 3, 2),
    "Conv2d_2a_3x3": Conv(32, 3, padding=0),
    "Conv2d_2b_3x3": Conv(64, 3),
}
_STEM_7X7 = {"Conv2d_1a_7x7": Conv(64, 7, 2)}

_V2: dict[str, Step] = {
    "maxpool1": MAX,
    "Conv2d_3b_3x3": Conv(80, 3, padding=0),
    "Conv2d_4a_3x3": Conv(192, 3, 2),
    "Conv2d_4b_3x3": Conv(288, 3),
    **{f"Mixed_5{letter}": _module_a(3, 64) for letter in "bcd"},
    "Mixed_6a": _REDUCTION_A,
    **{f"Mixed_6{letter}": _module_b(width) for letter, width in zip("bcdef", (128, 160, 160, 160, 192), strict=True)},
    "Mixed_7a": _REDUCTION_B,
    "Mixed_7b": _MODULE_C,
    "Mixed_7c": _MODULE_C,
}

_V3: dict[str, Step] = {
    "maxpool1": MAX,
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, 3, padding=0),
    "maxpool2": MAX,
    **{f"Mixed_5{letter}": _module_a(5, pool) for letter, pool in zip("bcd", (32, 64, 64), strict=True)},
    "Mixed_6a": _REDUCTION_A,
    **{f"Mixed_6{letter}": _module_b(width) for letter, width in zip("bcde", (128, 160, 160, 192), strict=True)},
    "Mixed_7a": _REDUCTION_B,
    "Mixed_7b": _MODULE_C,
    "Mixed_7c": _MODULE_C,
}


@dataclass(frozen=True, kw_only=True)
class InceptionV3Row(Row):
    """A network of the paper.

    Its ablation (table 3) starts from "basic" (``factorize_7x7=False, bn_auxiliary=False``). RMSProp and label
    smoothing are how a network is trained and change none, so there is no option for them here. "Factorized 7x7" is
    ``bn_auxiliary=False`` alone, "BN-auxiliary" has both.

    Attributes:
        layers: all that comes after the stem's 64 channels, by name.
        factorize_7x7: begin with three 3x3 convolutions, of which the first two have no padding, instead of a 7x7 of
            stride 2 without padding: both make 147x147x64 of 299x299.
        aux_logits: have the auxiliary classifier, which only training runs. Without it published weights load still.
        bn_auxiliary: batch norm in its 5x5 convolution (a fully connected layer at 299x299) too, not a bias.
        auxiliary_on: the layer that it is put on.
        dropout: before the classifier.
        transform_input: take images that ``Preprocess()`` normalised, and bring them to the mean and deviation 0.5 that
            the published weights want and that ``preprocess`` makes where this is False.
    """

    layers: Mapping[str, Step]
    factorize_7x7: bool = True
    aux_logits: bool = True
    bn_auxiliary: bool = True
    auxiliary_on: str = "Mixed_6e"
    dropout: float = 0.5
    transform_input: bool = False
    preprocess: Preprocess = _PREPROCESS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transform_input and self.in_channels != 3:
            raise ValueError(f"transform_input needs 3 channels, got {self.in_channels}")
        if self.auxiliary_on not in self.layers:
            raise ValueError(f"auxiliary_on must be one of the layers, got {self.auxiliary_on!r}")


class AuxiliaryClassifier(nn.Module):
    """(N, in_channels, H, W) to logits (N, num_classes): pool 17x17 to 5x5, 1x1 and 5x5 convolutions, a linear layer.

    Smaller maps are pooled to 5x5 too, so that training takes images under 299x299. Source: figure 8.
    """

    def __init__(self, in_channels: int, num_classes: int, *, batch_norm: bool, **factory: Any) -> None:
        super().__init__()
        self.conv0 = InceptionConv(in_channels, 128, 1, **factory)
        norm = {} if batch_norm else {"norm": None}
        self.conv1 = InceptionConv(128, AUXILIARY_WIDTH, 5, padding=0, **norm, **factory)
        self.fc = nn.Linear(AUXILIARY_WIDTH, num_classes, **factory)

    def forward(self, input: Tensor) -> Tensor:
        pooled = F.avg_pool2d(input, 5, 3) if min(input.shape[2:]) >= 17 else F.adaptive_avg_pool2d(input, 5)
        return self.fc(F.adaptive_avg_pool2d(self.conv1(self.conv0(pooled)), 1).flatten(1))


class InceptionV3(TransformInputNet):
    """Keys are torchvision's. Features: the stem's convolutions and every module, by their names in the table."""

    head_names = ("AuxLogits", "avgpool", "dropout", "fc")

    def __init__(self, row: InceptionV3Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        chain: list[Feature] = []
        layers = [*(_STEM if row.factorize_7x7 else _STEM_7X7).items(), *row.layers.items()]
        cut = [name for name, _ in layers].index(row.auxiliary_on) + 1
        channels = add_layers(self, dict(layers[:cut]), chain, row.in_channels, **factory)
        if row.aux_logits:
            self.AuxLogits = AuxiliaryClassifier(channels, row.num_classes, batch_norm=row.bn_auxiliary, **factory)
            self.auxiliary = ((row.auxiliary_on, "AuxLogits"),)
        channels = add_layers(self, dict(layers[cut:]), chain, channels, **factory)
        self.dropped_paths = () if row.aux_logits else ("AuxLogits",)
        self.feature_chain = tuple(chain)
        self.add_head(channels, row.dropout, **factory)
        self.transform_input = row.transform_input
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        """Normal with torchvision's deviations: 0.1, and 0.001 in the auxiliary linear layer.

        It cuts them off at 2, which no value reaches.
        """
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.001 if layer.in_features == AUXILIARY_WIDTH else 0.1)


_PAPER = "Szegedy et al., CVPR 2016"

ROWS = {
    "inception_v3": InceptionV3Row(
        layers=_V3, source=f"{_PAPER}, as torchvision publishes the authors' network: other layers before the modules"
    ),
    "inception_v2": InceptionV3Row(
        layers=_V2,
        auxiliary_on="Mixed_6f",
        bn_auxiliary=False,
        source=f"{_PAPER}, table 1; widths inside its modules, which it does not print, are Inception-v3's",
    ),
}

register(ROWS, InceptionV3)
