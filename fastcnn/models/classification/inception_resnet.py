"""Inception-ResNet v1 and v2: Szegedy et al., AAAI 2017, the paper of Inception-v4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._layers import add_network
from fastcnn.nn.blocks import SqueezeExcite
from fastcnn.nn.branches import AVERAGE, MAX, Built, Chain, Conv, Parallel, Step, parallel


class ResidualInception(nn.Module):
    """Adds to its input what parallel branches and a linear 1x1 convolution make of it, scaled; then a ReLU.

    (N, C, H, W) to the same shape. Source: figures 10, 11 and 13 of the paper and its section 3.3 (scaling).

    Args:
        branches: of several steps each, called ``branch0``, ``branch1``, ...
        scale: factor on the residual; 1 is none.
        squeeze_reduction: where it is not None, a squeeze-excite of C / squeeze_reduction hidden channels stands
            before the sum, as in figure 3 of Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
        act: whether the ReLU is there.
    """

    def __init__(
        self,
        channels: int,
        branches: Parallel,
        *,
        scale: float = 1.0,
        squeeze_reduction: int | None = None,
        act: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.names, width = tuple(branches.branches), 0
        for name, step in branches.branches.items():
            branch, out = step.build(channels, **factory)
            self.add_module(name, branch)
            width += out
        self.conv2d = nn.Conv2d(width, channels, 1, **factory)
        self.se = SqueezeExcite(channels, channels // squeeze_reduction, **factory) if squeeze_reduction else None
        self.act = nn.ReLU() if act else None
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        out = self.conv2d(torch.cat([self.get_submodule(name)(input) for name in self.names], 1))
        if self.se is not None:
            out = self.se(out)
        out = torch.add(input, out, alpha=self.scale)
        return out if self.act is None else self.act(out)


@dataclass(frozen=True)
class Residual:
    """The step of a table that is a :class:`ResidualInception`."""

    branches: Parallel
    scale: float
    squeeze_reduction: int | None
    act: bool = True
    stride: int = 1

    def build(self, in_channels: int, **factory: Any) -> Built:
        options: dict[str, Any] = {"scale": self.scale, "squeeze_reduction": self.squeeze_reduction, "act": self.act}
        return ResidualInception(in_channels, self.branches, **options, **factory), in_channels


_PREPROCESS = Preprocess(299, 0.8975, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class InceptionResNetRow(Row):
    """Figure 15, with the modules of one version.

    Attributes:
        stem: the layers before the modules, by name.
        modules: of the 35x35, the 17x17 and the 8x8 grid.
        repeats: how many of each.
        reductions: between them.
        scales: of the residuals, one for each kind of module; 1 does without. The paper finds 0.1 to 0.3 to be
            what keeps wide networks stable; these are the published ones.
        last_channels: of a 1x1 convolution after a module more without the ReLU; None has neither, as the paper.
        squeeze_reduction: of a squeeze-excite in every residual module, or None.
        dropout: before the classifier.
    """

    stem: Mapping[str, Step]
    modules: tuple[Parallel, Parallel, Parallel]
    repeats: tuple[int, int, int]
    reductions: tuple[Parallel, Parallel]
    scales: tuple[float, float, float] = (0.17, 0.10, 0.20)
    last_channels: int | None = None
    squeeze_reduction: int | None = None
    dropout: float = 0.2
    preprocess: Preprocess = field(default=_PREPROCESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.repeats) != 3 or not all(isinstance(n, int) and n > 0 for n in self.repeats):
            raise ValueError(f"repeats must be three positive ints, got {self.repeats!r}")
        if len(self.scales) != 3 or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"scales must be three positive numbers, got {self.scales!r}")
        if self.squeeze_reduction is not None and self.squeeze_reduction < 1:
            raise ValueError(f"squeeze_reduction must be at least 1, got {self.squeeze_reduction}")


class InceptionResNet(PooledNet):
    """Keys are timm's of v2. Features: the stem's convolutions, reductions and runs of modules, by their names."""

    head_names = ("avgpool", "dropout", "classif")
    classifier_path = "classif"

    def __init__(self, row: InceptionResNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        a, b, c = (
            Residual(module, scale, row.squeeze_reduction)
            for module, scale in zip(row.modules, row.scales, strict=True)
        )
        layers: dict[str, Step] = {
            **row.stem,
            "repeat": Chain((a,) * row.repeats[0]),
            "mixed_6a": row.reductions[0],
            "repeat_1": Chain((b,) * row.repeats[1]),
            "mixed_7a": row.reductions[1],
            "repeat_2": Chain((c,) * row.repeats[2]),
        }
        if row.last_channels is not None:
            layers["block8"] = Residual(c.branches, 1.0, c.squeeze_reduction, act=False)
            layers["conv2d_7b"] = Conv(row.last_channels)
        add_network(self, layers, **factory)

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions as in the authors' code: Glorot's uniform, biases 0. The linear layer is PyTorch's."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


_STEM: dict[str, Step] = {
    "conv2d_1a": Conv(32, 3, 2),
    "conv2d_2a": Conv(32, 3, padding=0),
    "conv2d_2b": Conv(64, 3),
    "maxpool_3a": MAX,
    "conv2d_3b": Conv(80),
    "conv2d_4a": Conv(192, 3, padding=0),
}

# Figures 14 (the stem), 10, 11, 13 and 7 (k, l, m, n of table 1), 12.
_V1: dict[str, Any] = {
    "stem": {**_STEM, "conv2d_4b": Conv(256, 3, 2)},
    "modules": (
        parallel((Conv(32),), (Conv(32), Conv(32, 3)), (Conv(32), Conv(32, 3), Conv(32, 3))),
        parallel((Conv(128),), (Conv(128), Conv(128, (1, 7)), Conv(128, (7, 1)))),
        parallel((Conv(192),), (Conv(192), Conv(192, (1, 3)), Conv(192, (3, 1)))),
    ),
    "reductions": (
        parallel((Conv(384, 3, 2),), (Conv(192), Conv(192, 3), Conv(256, 3, 2)), (MAX,)),
        parallel(
            (Conv(256), Conv(384, 3, 2)),
            (Conv(256), Conv(256, 3, 2)),
            (Conv(256), Conv(256, 3), Conv(256, 3, 2)),
            (MAX,),
        ),
    ),
    "repeats": (5, 10, 5),
}

_V2: dict[str, Any] = {
    "stem": {
        **_STEM,
        "maxpool_5a": MAX,
        "mixed_5b": parallel(
            (Conv(96),), (Conv(48), Conv(64, 5)), (Conv(64), Conv(96, 3), Conv(96, 3)), (AVERAGE, Conv(64))
        ),
    },
    "modules": (
        parallel((Conv(32),), (Conv(32), Conv(32, 3)), (Conv(32), Conv(48, 3), Conv(64, 3))),
        parallel((Conv(192),), (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1)))),
        parallel((Conv(192),), (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1)))),
    ),
    "reductions": (
        parallel((Conv(384, 3, 2),), (Conv(256), Conv(256, 3), Conv(384, 3, 2)), (MAX,)),
        parallel(
            (Conv(256), Conv(384, 3, 2)),
            (Conv(256), Conv(288, 3, 2)),
            (Conv(256), Conv(288, 3), Conv(320, 3, 2)),
            (MAX,),
        ),
    ),
    "repeats": (10, 20, 9),
    "last_channels": 1536,
}

_PAPER = "Szegedy et al., AAAI 2017"
_RELEASED = f"{_PAPER}, as its authors published it: 10, 20 and 10 modules where the paper has 5, 10 and 5"

ROWS = {
    "inception_resnet_v1": InceptionResNetRow(**_V1, source=f"{_PAPER}, figures 10 to 15"),
    "inception_resnet_v2": InceptionResNetRow(**_V2, source=_RELEASED),
    "se_inception_resnet_v2": InceptionResNetRow(
        **_V2, squeeze_reduction=16, source=f"{_RELEASED}; Hu et al., CVPR 2018, squeeze-excite in the residual modules"
    ),
}

register(ROWS, InceptionResNet)
