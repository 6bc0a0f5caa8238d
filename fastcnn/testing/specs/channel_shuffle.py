"""The row of ``channel_shuffle``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, reference_of


def _case(name: str, shape: tuple[int, ...], groups: int) -> Case:
    return Case(name, lambda *a: (normal(*shape)(*a), groups))


SPEC = OpSpec(
    name="channel_shuffle",
    function=ops.channel_shuffle,
    reference=reference_of(ops.channel_shuffle),
    cases=(
        _case("3 groups", (2, 60, 5, 7), 3),
        _case("2 groups", (1, 70, 3, 2), 2),
        _case("4 groups", (2, 72, 3, 3), 4),
        _case("8 groups", (1, 136, 2, 3), 8),
        _case("5 groups", (2, 35, 4, 3), 5),
        _case("groups of 3", (1, 51, 3, 2), 17),
        _case("groups of 8", (1, 136, 2, 2), 17),
        _case("1 group", (2, 6, 3, 3), 1),
        _case("groups of 1", (2, 6, 3, 3), 6),
        _case("3d", (2, 6, 9), 2),
        _case("5d", (2, 6, 2, 3, 4), 3),
        _case("empty", (0, 6, 3, 3), 3),
        _case("no pixels", (2, 6, 0, 3), 3),
    ),
    layers=(
        _case("shufflenet_v1 16x240x28x28 g3", (16, 240, 28, 28), 3),
        _case("shufflenet_v1 16x60x28x28 g3", (16, 60, 28, 28), 3),
        _case("shufflenet_v1 16x96x28x28 g8", (16, 96, 28, 28), 8),
        _case("shufflenet_v2 16x232x14x14 g2", (16, 232, 14, 14), 2),
        _case("shufflenet_v1 1x120x14x14 g3", (1, 120, 14, 14), 3),
        _case("shufflenet_v1 1x240x7x7 g3", (1, 240, 7, 7), 3),
    ),
    overload=lambda x, groups: (torch.ops.fastcnn.channel_shuffle.default, (x, groups)),
    gradgrad=True,
    peer={"torch": F.channel_shuffle},
)
