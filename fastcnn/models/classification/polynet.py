"""PolyNet: Zhang et al., PolyNet: A Pursuit of Structural Diversity in Very Deep Networks, CVPR 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._layers import add_network
from fastcnn.models.classification.inception_v4 import STEM
from fastcnn.nn.branches import MAX, Built, Chain, Conv, Parallel, Step, parallel
from fastcnn.nn.inception import InceptionConv

# Of a name: whether the blocks run one after another, and whether they share the weights of their branches.
KINDS = {"poly": (True, True), "mpoly": (True, False), "way": (False, False)}


class InceptionBlock(nn.Module):
    """Parallel branches and a linear 1x1 convolution back to the input's channels: the paper's F. Shape is kept."""

    def __init__(self, channels: int, branches: Parallel, **factory: Any) -> None:
        super().__init__()
        self.branches, width = branches.build(channels, **factory)
        self.project = InceptionConv(width, channels, 1, act=None, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return self.project(self.branches(input))


class PolyInception(nn.Module):
    """A polynomial of Inception blocks on its input, section 3.1; (N, C, H, W) to the same shape.

    With R for ReLU and s for the scale: "poly-2" is ``R(x + s F(x) + s F(R(F(x))))``, "mpoly-2" the same with a block
    of its own for the second order, ``R(x + s F(x) + s G(R(F(x))))``, "way-2" is ``R(x + s F(x) + s G(x))``; and so on
    for "-3". As its authors published it, poly shares the weights of its branches and not their norms nor the 1x1
    convolution.

    Args:
        kind: "poly-N", "mpoly-N" or "way-N"; "way-1" is Inception-ResNet's module.
        branches: of every block.
        scale: of each block's output in the sum.
    """

    def __init__(
        self,
        channels: int,
        branches: Parallel,
        kind: str,
        scale: float = 1.0,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        family, count = _parse(kind)
        self.in_turn, shared = KINDS[family]
        self.scale = scale
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        blocks = [InceptionBlock(channels, branches, **options) for _ in range(count)]
        self.blocks = nn.ModuleList(blocks)
        self.relu = nn.ReLU()
        if shared:
            first, *others = ([m for m in b.branches.modules() if isinstance(m, nn.Conv2d)] for b in blocks)
            for convs in others:
                for conv, source in zip(convs, first, strict=True):
                    conv.weight = source.weight

    def forward(self, input: Tensor) -> Tensor:
        total = seen = input
        for block in self.blocks:
            out = block(seen)
            total = torch.add(total, out, alpha=self.scale)
            if self.in_turn:
                seen = self.relu(out)
        return self.relu(total)

    def extra_repr(self) -> str:
        return f"in_turn={self.in_turn}, scale={self.scale:.3f}"


def _parse(kind: str) -> tuple[str, int]:
    family, _, order = kind.partition("-")
    if family not in KINDS or order not in ("1", "2", "3"):
        raise ValueError(f"modules are poly-N, mpoly-N and way-N, N from 1 to 3, got {kind!r}")
    return family, int(order)


@dataclass(frozen=True)
class Poly:
    """The step of a table that is a :class:`PolyInception`."""

    branches: Parallel
    kind: str
    scale: float
    stride: int = 1

    def build(self, in_channels: int, **factory: Any) -> Built:
        return PolyInception(in_channels, self.branches, self.kind, self.scale, **factory), in_channels


_PREPROCESS = Preprocess(331, crop_pct=1.0, interpolation="bicubic")


@dataclass(frozen=True, kw_only=True)
class PolyNetRow(Row):
    """The Very Deep PolyNet and its like: Inception-ResNet-v2 of polynomials.

    Attributes:
        modules: kinds of the modules of the stages A, B and C: see :class:`PolyInception`.
        scales: of the residuals, in even steps from the first module to the last.
        dropout: before the classifier.
    """

    modules: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    scales: tuple[float, float] = (1.0, 0.7)
    dropout: float = 0.2
    preprocess: Preprocess = _PREPROCESS

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.modules) != 3 or not all(self.modules):
            raise ValueError(f"modules must be three tuples of kinds, none empty, got {self.modules!r}")
        for stage in self.modules:
            for kind in stage:
                _parse(kind)
        if len(self.scales) != 2 or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"scales must be two positive numbers, got {self.scales!r}")


# Inception-ResNet-v2's modules, with a stem of 384 channels and reductions to 1152 and 2048.
_A = parallel((Conv(32), Conv(48, 3), Conv(64, 3)), (Conv(32), Conv(32, 3)), (Conv(32),))
_B = parallel((Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))), (Conv(192),))
_C = parallel((Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))), (Conv(192),))
_REDUCTION_A = parallel((Conv(256), Conv(256, 3), Conv(384, 3, 2)), (Conv(384, 3, 2),), (MAX,))
_REDUCTION_B = parallel(
    (Conv(256), Conv(256, 3), Conv(256, 3, 2)), (Conv(256), Conv(256, 3, 2)), (Conv(256), Conv(384, 3, 2)), (MAX,)
)


class PolyNet(PooledNet):
    """Features: the layers of the stem, the stages and the reductions, by their names: ``stage_a`` has stride 8, ...

    ``fuse()`` gives every use of shared weights its own, with its own norm in them.
    """

    def __init__(self, row: PolyNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        first, last = row.scales
        intervals = max(1, sum(map(len, row.modules)) - 1)
        stages, number = [], 0
        for branches, kinds in zip((_A, _B, _C), row.modules, strict=True):
            scales = [first + (last - first) * (number + index) / intervals for index in range(len(kinds))]
            number += len(kinds)
            stages.append(Chain(tuple(Poly(branches, *pair) for pair in zip(kinds, scales, strict=True))))
        layers: dict[str, Step] = {
            **{f"stem_{index}": step for index, step in enumerate(STEM)},
            "stage_a": stages[0],
            "reduction_a": _REDUCTION_A,
            "stage_b": stages[1],
            "reduction_b": _REDUCTION_B,
            "stage_c": stages[2],
        }
        add_network(self, layers, **factory)

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions: normal with variance 2 / inputs, as Inception-v4's; the paper does not say."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)


_PAPER = "Zhang et al., CVPR 2017"

ROWS = {
    "polynet": PolyNetRow(
        modules=(("way-2",) * 10, ("poly-3", "way-2") * 10, ("poly-3", "way-2") * 5),
        source=f"{_PAPER}, Very Deep PolyNet, as its authors published it",
    ),
}

register(ROWS, PolyNet)
