"""The row of ``batch_norm``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.ops._convolutions import ACTIVATIONS, FUNCTIONS
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, reference_of


def _case(
    name: str, shape: tuple[int, ...], activation=None, training=True, running=False, affine=True, no_gradcheck=""
) -> Case:
    channels = shape[1]

    def make(dtype, device, g):
        x = normal(*shape)(dtype, device, g)
        vectors = [normal(channels)(dtype, device, g) for _ in range(4)]
        mean, variance = (vectors[0], vectors[1].square() + 0.5) if running else (None, None)
        weight, bias = (vectors[2] + 1, vectors[3]) if affine else (None, None)
        return x, mean, variance, weight, bias, training, 0.1, 1e-5, activation

    return Case(name, make, {}, no_gradcheck)


def _layer(network: str, shape: tuple[int, ...], activation: str | None) -> Case:
    name = f"{network} {'x'.join(map(str, shape))}{'' if activation is None else ' ' + activation}"
    return _case(name, shape, activation, running=True)


def _torch(
    input: Tensor, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, activation=None
) -> Tensor:
    result = F.batch_norm(input, mean, variance, weight, bias, training, momentum, eps)
    return FUNCTIONS[ACTIVATIONS.index(activation)](result)


def _overload(
    input: Tensor, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, activation=None
):
    kept = (None, None) if training else (mean, variance)
    arguments = input, *kept, weight, bias, training, eps, ACTIVATIONS.index(activation)
    return torch.ops.fastcnn.batch_norm.default, arguments


SPEC = OpSpec(
    name="batch_norm",
    function=ops.batch_norm,
    reference=reference_of(ops.batch_norm),
    cases=(
        _case("training", (3, 6, 5, 7)),
        _case("no weight", (2, 16, 4, 5), affine=False),
        _case("relu", (2, 24, 5, 7), "relu", no_gradcheck=KINKS),
        _case("relu6", (2, 40, 3, 5), "relu6", no_gradcheck=KINKS),
        _case("hardswish", (2, 17, 4, 4), "hardswish", no_gradcheck=KINKS),
        _case("silu", (2, 10, 5, 3), "silu"),
        _case("evaluation", (2, 12, 5, 4), training=False, running=True),
        _case("evaluation without weight", (2, 3, 5, 4), training=False, running=True, affine=False),
        _case("evaluation, silu", (2, 33, 3, 4), "silu", training=False, running=True),
        _case("several parts", (2, 130, 40, 33)),
        _case("odd channels, many pixels", (3, 5, 41, 37), "silu"),
        _case("one channel", (2, 1, 9, 8)),
        _case("2d", (40, 19), "silu"),
        _case("3d", (3, 6, 11)),
        _case("5d", (2, 6, 3, 2, 5), "silu"),
        _case("one pixel", (5, 32, 1, 1)),
        _case("no images", (0, 6, 4, 4)),
    ),
    layers=tuple(
        _layer(network, (batch, channels, side, side), activation)
        for batch in (16, 1)
        for network, channels, side, activation in (
            ("efficientnet_b0", 96, 112, "silu"),
            ("efficientnet_b0", 144, 56, "silu"),
            ("mobilenet_v2", 24, 56, None),
            ("mobilenet_v2", 192, 28, "relu6"),
            ("mobilenet_v2", 384, 14, "relu6"),
            ("mobilenet_v2", 960, 7, "relu6"),
            ("mobilenet_v3", 240, 14, "hardswish"),
            ("efficientnet_b0", 96, 56, "silu"),
            ("resnet50", 256, 56, None),
        )
    ),
    overload=_overload,
    gradients=(0, 3, 4),
    gradgrad=True,
    peer={"torch": _torch},
    reduction=64,
)
