"""The row of ``grouped_conv2d_shuffle``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, reference_of


def _case(name: str, shape: tuple[int, ...], out: int, kernel=1, bias=False, groups=1, no_gradcheck="", **more) -> Case:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel

    def make(dtype, device, g):
        each = shape[1] // groups
        scale = 1 / math.sqrt(max(each * size[0] * size[1], 1))
        x = normal(*shape)(dtype, device, g)
        # Scaled before it is rounded, so that all dtypes get the same weights.
        weight = (normal(out, each, *size)(torch.float64, device, g) * scale).to(dtype)
        return x, weight, normal(out)(dtype, device, g) if bias else None

    return Case(name, make, {"groups": groups, **more}, no_gradcheck)


def _layer(net: str, batch: int, channels: int, out: int, side: int, groups: int, kernel=1, **more) -> Case:
    name = f"{net} {batch}x{channels}x{side}x{side} to {out} g{groups}"
    return _case(name, (batch, channels, side, side), out, kernel, groups=groups, **more)


def _torch(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    shuffle_groups=None,
    activation=None,
) -> Tensor:
    result = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if activation:
        result = result.relu_()
    return F.channel_shuffle(result, shuffle_groups or groups) if (shuffle_groups or groups) > 1 else result


def _overload(x, weight, bias, stride=1, padding=0, dilation=1, groups=1, shuffle_groups=None, activation=None):
    pairs = ([n, n] if isinstance(n, int) else list(n) for n in (stride, padding, dilation))
    args = (x, weight, bias, *pairs, groups, shuffle_groups or groups, activation == "relu")
    return torch.ops.fastcnn.grouped_conv2d_shuffle.default, args


SPEC = OpSpec(
    name="grouped_conv2d_shuffle",
    function=ops.grouped_conv2d_shuffle,
    reference=reference_of(ops.grouped_conv2d_shuffle),
    cases=(
        _case("1x1", (2, 54, 5, 7), 60, bias=True, groups=3),
        _case("1x1 narrow groups", (2, 15, 6, 7), 12, groups=3),
        _case("1x1 few pixels", (3, 36, 2, 3), 40, groups=2),
        _case("1x1 relu", (2, 34, 6, 6), 36, bias=True, groups=2, activation="relu", no_gradcheck=KINKS),
        _case("1x1 stride", (2, 36, 7, 6), 38, groups=2, stride=2),
        _case("1x1 padded", (1, 8, 5, 4), 6, groups=2, padding=(0, 1), stride=(1, 2)),
        _case("1x1 other shuffle", (2, 36, 4, 5), 48, groups=2, shuffle_groups=6),
        _case("1x1 no shuffle", (1, 40, 5, 5), 34, bias=True, groups=2, shuffle_groups=1),
        _case("one group", (2, 20, 5, 5), 18, bias=True),
        _case("3x3", (2, 12, 9, 8), 15, 3, bias=True, groups=3, padding=1),
        _case("3x3 unpadded", (1, 4, 6, 7), 4, 3, groups=2),
        _case("3x3 stride 2", (2, 6, 9, 8), 9, 3, groups=3, padding=1, stride=2),
        _case("3x3 dilated", (1, 4, 9, 11), 8, 3, groups=2, padding=(2, 3), dilation=(2, 3), stride=(1, 2)),
        _case("2x5 stride 3", (1, 6, 9, 11), 4, (2, 5), groups=2, padding=(1, 2), stride=3),
        _case("1x3", (1, 6, 5, 9), 6, (1, 3), groups=3, padding=(0, 1)),
        _case("depthwise", (1, 5, 6, 6), 10, 3, groups=5, padding=1),
        _case("wide", (1, 130, 3, 20), 110, groups=2),
        _case("empty", (0, 6, 4, 4), 6, bias=True, groups=3),
    ),
    layers=(
        *(
            _layer("shufflenet_v1", batch, channels, out, side, groups)
            for batch in (16, 1)
            for channels, out, side, groups in (
                (240, 240, 28, 3),
                (240, 60, 28, 3),
                (60, 240, 28, 3),
                (480, 120, 14, 3),
                (120, 480, 14, 3),
                (960, 240, 7, 3),
                (240, 960, 7, 3),
                (384, 96, 28, 8),
                (1536, 384, 7, 8),
            )
        ),
        _layer("resnext50_32x4d", 16, 128, 128, 56, 32, 3, padding=1, shuffle_groups=1),
        _layer("resnext50_32x4d", 16, 256, 256, 28, 32, 3, padding=1, shuffle_groups=1),
        _layer("alexnet", 16, 384, 256, 13, 2, 3, padding=1, shuffle_groups=1),
    ),
    overload=_overload,
    gradients=(0, 1, 2),
    autocast="lower",
    peer={"torch": _torch},
    reduction=64,
)
