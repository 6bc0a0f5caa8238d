"""The row of ``squeeze_excite``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, reference_of


def _case(name: str, shape: tuple[int, ...], hidden: int, biases: bool = True, conv: bool = True, **kwargs) -> Case:
    def make(dtype: torch.dtype, device: str, g: torch.Generator):
        channels, ones = shape[1], (1, 1) if conv else ()

        def parameter(*size: int) -> Tensor:
            return (normal(*size)(torch.float64, "cpu", g) / max(size[-1 - len(ones)], 1) ** 0.5).to(device, dtype)

        return (
            normal(*shape)(dtype, device, g),
            parameter(hidden, channels, *ones),
            normal(hidden)(dtype, device, g) if biases else None,
            parameter(channels, hidden, *ones),
            normal(channels)(dtype, device, g) if biases else None,
        )

    return Case(name, make, {"activation": "relu", "gate": "sigmoid", **kwargs})


def _layer(network: str, images: int, channels: int, side: int, hidden: int, activation: str, gate: str) -> Case:
    name = f"{network} {images}x{channels}x{side}x{side} to {hidden}"
    return _case(name, (images, channels, side, side), hidden, activation=activation, gate=gate)


_LAYERS: tuple[tuple[Any, ...], ...] = (
    *(
        ("mobilenet_v3_large", channels, side, hidden, "relu", "hardsigmoid")
        for channels, side, hidden in ((72, 28, 24), (120, 28, 32), (480, 14, 120), (672, 14, 168), (960, 7, 240))
    ),
    *(
        ("efficientnet_b0", channels, side, hidden, "silu", "sigmoid")
        for channels, side, hidden in ((32, 112, 8), (144, 56, 6), (240, 28, 10), (672, 14, 28), (1152, 7, 48))
    ),
    *(
        ("se_resnet50", channels, side, channels // 16, "relu", "sigmoid")
        for channels, side in ((256, 56), (512, 28), (1024, 14), (2048, 7))
    ),
)


def _torch(
    input: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    activation: str,
    gate: str,
) -> Tensor:
    """As torchvision.ops.SqueezeExcitation computes it."""
    hidden = F.conv2d(F.adaptive_avg_pool2d(input, 1), weight1.view(*weight1.shape[:2], 1, 1), bias1)
    hidden = F.silu(hidden) if activation == "silu" else F.relu(hidden)
    scores = F.conv2d(hidden, weight2.view(*weight2.shape[:2], 1, 1), bias2)
    return input * (F.hardsigmoid(scores) if gate == "hardsigmoid" else scores.sigmoid())


def _overload(input, weight1, bias1, weight2, bias2, activation, gate):
    return torch.ops.fastcnn.squeeze_excite.default, (
        input,
        weight1,
        bias1,
        weight2,
        bias2,
        activation == "silu",
        gate == "hardsigmoid",
    )


SPEC = OpSpec(
    name="squeeze_excite",
    function=ops.squeeze_excite,
    reference=reference_of(ops.squeeze_excite),
    cases=(
        _case("relu sigmoid", (2, 5, 7, 9), 3),
        _case("silu", (3, 24, 5, 4), 6, conv=False, activation="silu"),
        _case("hardsigmoid", (5, 35, 6, 6), 9, gate="hardsigmoid"),
        _case("no biases", (4, 16, 8, 8), 4, biases=False, activation="silu", gate="hardsigmoid"),
        _case("wide", (9, 70, 3, 3), 67, conv=False),
        _case("several chunks", (2, 48, 31, 29), 12, activation="silu"),
        _case("odd and large", (1, 19, 45, 47), 5),
        _case("one pixel", (3, 33, 1, 1), 8),
        _case("one of each", (1, 1, 1, 1), 1, biases=False),
        _case("no images", (0, 6, 4, 4), 2),
    ),
    layers=tuple(_layer(network, images, *row) for network, *row in _LAYERS for images in (16, 1)),
    overload=_overload,
    gradients=(0, 1, 2, 3, 4),
    autocast="lower",
    peer={"torch": _torch},
    reduction=16,
)
