"""What the rows of elementwise activations share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, reference_of


def _case(name: str, scale: int, *shape: int) -> Case:
    return Case(name, lambda *a: (scale * normal(*shape)(*a),))


def _knees(dtype: torch.dtype, device: str, g: torch.Generator) -> tuple[Tensor]:
    return (torch.linspace(-4, 4, 65, dtype=torch.float64).to(device, dtype),)


def activation(name: str, torch_function: Callable[[Tensor], Tensor], layers: dict[str, tuple[int, ...]]) -> OpSpec:
    """The row of ``fastcnn.ops.<name>``, with kinks at -3 and 3; `layers` are shapes by name."""
    function = getattr(ops, name)
    return OpSpec(
        name=name,
        function=function,
        reference=reference_of(function),
        cases=(
            _case("4d", 3, 2, 5, 7, 9),
            _case("vector tail", 3, 67),
            Case("knees", _knees, no_gradcheck=KINKS),
            _case("large", 3, 2, 19, 33, 31),
            _case("empty", 1, 0, 3, 4, 4),
            _case("scalar", 1),
        ),
        layers=tuple(_case(layer, 1, *shape) for layer, shape in layers.items()),
        overload=lambda x: (getattr(torch.ops.fastcnn, name).default, (x,)),
        peer={"torch": torch_function},
    )
