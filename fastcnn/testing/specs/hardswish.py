"""The row of ``hardswish``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, reference_of


def _knees(dtype: torch.dtype, device: str, g: torch.Generator) -> tuple[Tensor]:
    return (torch.linspace(-4, 4, 65, dtype=torch.float64).to(device, dtype),)


SPEC = OpSpec(
    name="hardswish",
    function=ops.hardswish,
    reference=reference_of(ops.hardswish),
    cases=(
        Case("4d", lambda *a: (3 * normal(2, 5, 7, 9)(*a),)),
        Case("vector tail", lambda *a: (3 * normal(67)(*a),)),
        Case("knees", _knees, no_gradcheck=KINKS),
        Case("large", lambda *a: (3 * normal(2, 19, 33, 31)(*a),)),
        Case("empty", lambda *a: (normal(0, 3, 4, 4)(*a),)),
        Case("scalar", lambda *a: (normal()(*a),)),
    ),
    layers=(
        Case("mobilenet_v3 16x240x28x28", lambda *a: (normal(16, 240, 28, 28)(*a),)),
        Case("mobilenet_v3 16x16x112x112", lambda *a: (normal(16, 16, 112, 112)(*a),)),
        Case("mobilenet_v3 1x672x14x14", lambda *a: (normal(1, 672, 14, 14)(*a),)),
    ),
    overload=lambda x: (torch.ops.fastcnn.hardswish.default, (x,)),
    peer={"torch": F.hardswish},
)
