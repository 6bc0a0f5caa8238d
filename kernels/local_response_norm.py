"""Local response normalisation and its gradient, of NCHW and channels_last as they lie.

Every result looks at its whole window again: neighbours in it come from the caches, and no sum is ever taken back, so
that what is not finite stays where it is.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.kernels._configs import LRN
from fastcnn.kernels._launch import laid_out_as, launch, require

# Windows of more channels would make the gradient, whose code is as long as two windows, long to compile.
_WIDEST = 9


@triton.jit
def _factor(d, beta, POWER: tl.constexpr):
    """d^-beta and d^-(beta + 1)."""
    if POWER == "3/4":
        root = tl.sqrt(tl.rsqrt(d))
        value = root * root * root
        return value, value * (value * root)
    elif POWER == "1/2":
        value = tl.rsqrt(d)
        return value, value * value * value
    elif POWER == "1":
        value = 1 / d
        return value, value * value
    elif POWER == "0":
        return tl.full(d.shape, 1.0, tl.float32), 1 / d
    elif POWER == "any":  # NaN where d is negative.
        value = tl.exp2(-beta * tl.log2(d))
        return value, value / d
    else:
        value = tl.exp2(-beta * tl.log2(tl.abs(d)))
        if POWER == "odd":
            value = tl.where(d < 0, -value, value)
        return value, value / d


@triton.jit
def _tile(channels, pixels, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Of this program: the image's first element, its channels and pixels, and what a channel and a pixel are apart."""
    program = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, CHANNELS)
    pixel_blocks = tl.cdiv(pixels, PIXELS)
    image = program // (channel_blocks * pixel_blocks)
    rest = program % (channel_blocks * pixel_blocks)
    c = (rest % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    p = (rest // channel_blocks) * PIXELS + tl.arange(0, PIXELS)[None, :]
    base = image.to(tl.int64) * channels * pixels
    if LAST:
        return base + p.to(tl.int64) * channels, c, p, 1
    else:
        return base + p, c.to(tl.int64), p, pixels


@triton.jit
def _load(ptr, at, c, step, p, channels, pixels):
    """Zero for channels that are not there, which add nothing to a window."""
    return tl.load(ptr + at + c * step, mask=(c >= 0) & (c < channels) & (p < pixels), other=0).to(tl.float32)


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, channels, pixels, scale, k, beta, BEFORE: tl.constexpr, AFTER: tl.constexpr, POWER: tl.constexpr,
    LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    at, c, p, step = _tile(channels, pixels, LAST, CHANNELS, PIXELS)
    total = tl.zeros([CHANNELS, PIXELS], tl.float32)
    for j in tl.static_range(-BEFORE, AFTER + 1):
        v = _load(x_ptr, at, c + j, step, p, channels, pixels)
        total += v * v
    x = _load(x_ptr, at, c, step, p, channels, pixels)
    value, _ = _factor(k + scale * total, beta, POWER)
    tl.store(out_ptr + at + c * step, (x * value).to(out_ptr.dtype.element_ty), mask=(c < channels) & (p < pixels))


@triton.jit
def _backward_kernel(
    grad_ptr, x_ptr, out_ptr, channels, pixels, scale, k, beta, BEFORE: tl.constexpr, AFTER: tl.constexpr,
    POWER: tl.constexpr, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    at, c, p, step = _tile(channels, pixels, LAST, CHANNELS, PIXELS)
    # A channel is in the windows of those from AFTER before it to BEFORE after it.
    x = (_load(x_ptr, at, c - (BEFORE + AFTER), step, p, channels, pixels),)
    for j in tl.static_range(1 - BEFORE - AFTER, BEFORE + AFTER + 1):
        x = x + (_load(x_ptr, at, c + j, step, p, channels, pixels),)  # noqa: RUF005
    through = tl.zeros([CHANNELS, PIXELS], tl.float32)
    direct = tl.zeros([CHANNELS, PIXELS], tl.float32)
    for j in tl.static_range(-AFTER, BEFORE + 1):
        total = tl.zeros([CHANNELS, PIXELS], tl.float32)
        for i in tl.static_range(AFTER + j, BEFORE + 2 * AFTER + j + 1):
            total += x[i] * x[i]
        g = _load(grad_ptr, at, c + j, step, p, channels, pixels)
        value, slope = _factor(k + scale * total, beta, POWER)
        # Past the channels there are the factor may be infinite, or no number.
        there = (c + j >= 0) & (c + j < channels)
        through += tl.where(there, g * x[BEFORE + AFTER + j] * slope, 0.0)
        if j == 0:
            direct = g * value
    result = direct - 2 * scale * beta * x[BEFORE + AFTER] * through
    tl.store(out_ptr + at + c * step, result.to(out_ptr.dtype.element_ty), mask=(c < channels) & (p < pixels))


def local_response_norm(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The op of this name on a GPU; float64 and wide windows run the reference. Deterministic."""
    return _run("local_response_norm", _forward_kernel, (), input, size, alpha, beta, k)


def local_response_norm_backward(grad: Tensor, input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The gradient of :func:`local_response_norm` with respect to `input`, given that of its result."""
    return _run("local_response_norm_backward", _backward_kernel, (grad,), input, size, alpha, beta, k)


def _run(
    name: str, kernel: Any, grads: tuple[Tensor, ...], input: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    require(input.dim() >= 3 and size >= 1, f"{name}: expected input of at least 3 dimensions and a positive size")
    require(all(g.shape == input.shape for g in grads), f"{name}: expected a gradient of the shape of the input")
    reach = input.size(1) - 1
    before, after = min(size // 2, reach), min((size - 1) // 2, reach)
    if input.dtype == torch.float64 or before + after >= _WIDEST:
        return NotImplemented
    layout = torch.contiguous_format
    if input.dim() == 4 and not input.is_contiguous():
        layout = suggest_memory_format(input)
    last = layout == torch.channels_last
    out = torch.empty_like(input, memory_format=layout)
    if input.numel() == 0:
        return out
    images, channels = input.shape[:2]
    pixels = input.numel() // (images * channels)
    tile = LRN[last]
    programs = images * -(-channels // tile.channels) * -(-pixels // tile.pixels)
    tensors = [laid_out_as(x, out) for x in (*grads, input)]
    constants = {"BEFORE": before, "AFTER": after, "POWER": _power(beta, alpha, k), "LAST": last}
    constants |= {"CHANNELS": tile.channels, "PIXELS": tile.pixels, "num_warps": tile.num_warps}
    numbers = (channels, pixels, alpha / size, k, beta)
    launch(kernel, programs, input, *tensors, out, *numbers, **constants, enable_fp_fusion=True)
    return out


def _power(beta: float, alpha: float, k: float) -> str:
    for name, value in (("3/4", 0.75), ("1/2", 0.5), ("1", 1), ("0", 0)):
        if beta == value:
            return name
    if (alpha >= 0 and k >= 0) or beta % 1:
        return "any"
    return "odd" if beta % 2 else "even"
