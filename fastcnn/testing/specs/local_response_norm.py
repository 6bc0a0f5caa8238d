"""The row of ``local_response_norm``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, reference_of


def _case(name: str, shape: tuple[int, ...], size: int, alpha=0.5, beta=0.75, k=1.0) -> Case:
    return Case(name, lambda *a: (normal(*shape)(*a), size, alpha, beta, k))


def _layer(network: str, *shape: int) -> Case:
    # Krizhevsky et al.'s constants; torch divides alpha by the size.
    name = f"{network} {'x'.join(map(str, shape))}"
    return _case(name, shape, 5, 5e-4 if network == "alexnet" else 1e-4, 0.75, 2.0 if network == "alexnet" else 1.0)


SPEC = OpSpec(
    name="local_response_norm",
    function=ops.local_response_norm,
    reference=reference_of(ops.local_response_norm),
    cases=(
        _case("size 5", (2, 7, 5, 9), 5),
        _case("even size", (2, 21, 6, 7), 4, beta=0.5),
        _case("size 1", (1, 5, 3, 3), 1, beta=1.0),
        _case("any power", (2, 19, 5, 4), 3, beta=0.6, k=2.0),
        _case("negative k", (1, 6, 3, 5), 3, beta=2.0, k=-20.0),
        _case("wider than the channels", (2, 3, 4, 5), 12),
        _case("several runs", (1, 70, 33, 29), 5, 1e-2),
        _case("3d", (3, 6, 11), 3),
        _case("5d", (1, 6, 3, 2, 5), 5),
        _case("one of each", (1, 1, 1, 1), 5),
        _case("no images", (0, 3, 4, 4), 5),
        _case("no pixels", (2, 3, 0, 4), 5),
    ),
    layers=tuple(
        _layer(network, images, *shape)
        for network, *shape in (
            ("alexnet", 96, 55, 55),
            ("alexnet", 256, 27, 27),
            ("googlenet", 64, 56, 56),
            ("googlenet", 192, 56, 56),
        )
        for images in (16, 1)
    ),
    overload=lambda *args: (torch.ops.fastcnn.local_response_norm.default, args),
    peer={"torch": F.local_response_norm},
    reduction=8,
)
