"""The row of ``pointwise_conv2d``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.ops._convolutions import activate
from fastcnn.ops.pointwise_conv2d import number_of
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, reference_of


def _case(name: str, shape: tuple[int, ...], out: int, bias=True, residual=False, no_gradcheck="", **more) -> Case:
    def make(dtype, device, g):
        x = normal(*shape)(dtype, device, g)
        # Scaled before it is rounded, so that all dtypes get the same weights.
        weight = (normal(out, shape[1], 1, 1)(torch.float64, device, g) / math.sqrt(shape[1])).to(dtype)
        after = (more.get("activation"), normal(shape[0], out, *shape[2:])(dtype, device, g) if residual else None)
        return x, weight, normal(out)(dtype, device, g) if bias else None, *after

    return Case(name, make, {}, no_gradcheck)


def _layer(net: str, batch: int, channels: int, out: int, side: int, **more) -> Case:
    name = f"{net} {batch}x{channels}x{side}x{side} to {out}"
    return _case(name, (batch, channels, side, side), out, **more)


def _torch(input: Tensor, weight: Tensor, bias: Tensor | None, activation=None, residual=None) -> Tensor:
    result = F.conv2d(input, weight, bias)
    kind, slope = number_of(activation)
    return activate(kind, result if residual is None else result + residual, slope)


def _overload(x, weight, bias=None, activation=None, residual=None):
    kind, slope = number_of(activation)
    return torch.ops.fastcnn.pointwise_conv2d.default, (x, weight, bias, residual, kind, None, slope)


SPEC = OpSpec(
    name="pointwise_conv2d",
    function=ops.pointwise_conv2d,
    reference=reference_of(ops.pointwise_conv2d),
    cases=(
        _case("one panel", (2, 20, 5, 7), 24),
        _case("no bias", (2, 9, 4, 5), 40, bias=False),
        _case("odd filters", (1, 17, 6, 6), 59),
        _case("a last panel of 17", (1, 8, 3, 5), 65),
        _case("three panels, few pixels", (1, 33, 3, 3), 107, activation="hardswish", no_gradcheck=KINKS),
        _case("relu", (2, 12, 5, 5), 16, activation="relu", no_gradcheck=KINKS),
        _case("relu6", (2, 12, 5, 5), 50, activation="relu6", no_gradcheck=KINKS),
        _case("silu", (2, 12, 7, 5), 49, activation="silu"),
        _case("leaky relu", (2, 12, 5, 5), 40, activation="leaky_relu", no_gradcheck=KINKS),
        _case("residual", (2, 20, 5, 5), 32, residual=True),
        _case("residual and silu", (1, 10, 4, 4), 60, residual=True, activation="silu"),
        _case("residual and relu", (1, 10, 4, 4), 20, residual=True, activation="relu", no_gradcheck=KINKS),
        _case("residual and leaky relu", (2, 9, 4, 3), 33, residual=True, activation="leaky_relu", no_gradcheck=KINKS),
        _case("one channel", (2, 1, 4, 4), 18),
        _case("one pixel", (3, 30, 1, 1), 64, bias=False),
        _case("many pixels", (2, 16, 40, 33), 16),
        _case("empty", (0, 6, 4, 4), 20),
    ),
    layers=tuple(
        _layer(net, batch, *sizes, activation=activation, residual=residual)
        for batch in (16, 1)
        for net, sizes, activation, residual in (
            ("mobilenet_v1", (64, 128, 56), "relu", False),
            ("mobilenet_v1", (512, 512, 14), "relu", False),
            ("mobilenet_v2", (16, 96, 112), "relu6", False),
            ("mobilenet_v2", (144, 24, 56), None, True),
            ("mobilenet_v2", (96, 576, 14), "relu6", False),
            ("mobilenet_v2", (960, 160, 7), None, True),
            ("mobilenet_v3", (40, 240, 28), "hardswish", False),
            ("efficientnet_b0", (112, 672, 14), "silu", False),
            ("shufflenet_v2", (116, 116, 28), "relu", False),
        )
    ),
    overload=_overload,
    gradients=(0, 1, 2, 4),
    autocast="lower",
    peer={"torch": _torch},
    reduction=64,
)
