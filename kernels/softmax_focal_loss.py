"""Softmax focal loss and its gradient, of classes that lie side by side or a plane apart, read as they lie."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcnn.kernels import _focal
from fastcnn.kernels._configs import SOFTMAX_FOCAL
from fastcnn.kernels._launch import launch, require

_NOT_SPECIALIZED = ["positions", "ignore_index"]


@triton.jit
def _scores(x_ptr, at, c, step, classes, inside):
    """-inf, which adds nothing, for what is not there."""
    return tl.load(x_ptr + at + c * step, mask=(c < classes) & inside, other=float("-inf")).to(tl.float32)


@triton.jit
def _position(block, positions, classes, pixels, ROWS: tl.constexpr, POSITIONS: tl.constexpr):
    """Of a block of positions: their numbers, which are there, where their first scores lie, and a class's step."""
    p = block.to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)[None, :]
    if ROWS:
        return p, p < positions, p * classes, 1
    else:
        return p, p < positions, p // pixels * classes * pixels + p % pixels, pixels


@triton.jit
def _terms(
    x_ptr, target_ptr, alpha_ptr, p, inside, at, step, classes, ignore_index, WEIGHTED: tl.constexpr,
    CLASSES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Of every position: its target, -1 where it is ignored; the largest score; the sum of exponentials; p_t; 1 - p_t;
    -log p_t; its weight. A target that is no class gives NaN.
    """
    target = tl.load(target_ptr + p, mask=inside, other=ignore_index)
    ignored = target == ignore_index
    known = (target >= 0) & (target < classes) & ~ignored
    target = tl.where(ignored, -1, tl.where(known, target, -2))
    peak = tl.full([1, POSITIONS], float("-inf"), tl.float32)
    rest = tl.zeros([1, POSITIONS], tl.float32)
    first = 0
    while first < classes:
        c = first + tl.arange(0, CLASSES)[:, None].to(tl.int64)
        x = _scores(x_ptr, at, c, step, classes, inside)
        higher = tl.max(x, 0)[None, :]
        higher = tl.where(higher > peak, higher, peak)
        # Nothing but -inf so far: then any peak will do.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        # Without the target in it, the sum keeps its accuracy where the target has nearly all of the probability.
        others = tl.where(c == target, 0.0, tl.exp(x - base))
        rest = tl.where(rest == 0, 0.0, rest * tl.exp(peak - base)) + tl.sum(others, 0)[None, :]
        peak = higher
        first += CLASSES
    score = tl.load(x_ptr + at + target * step, mask=known & inside, other=0).to(tl.float32)
    shift = tl.where(known, score - peak, float("nan"))
    rest = tl.where(ignored, 0.0, rest)
    shift = tl.where(ignored, 0.0, shift)
    mine = tl.exp(shift)
    total = mine + rest
    # What the sum lost to rounding: where one of the two is small, the logarithm is.
    lost = tl.where(mine > rest, rest - (total - mine), mine - (total - rest))
    entropy = (tl.log(total) + lost / total) - shift
    weight = tl.where(ignored, 0.0, 1.0)
    if WEIGHTED:
        weight = tl.load(alpha_ptr + target, mask=known, other=0).to(tl.float32)
    return target, peak, total, mine / total, rest / total, entropy, weight


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _forward_kernel(
    x_ptr, target_ptr, alpha_ptr, out_ptr, positions, classes, pixels, ignore_index, gamma, SUM: tl.constexpr,
    WEIGHTED: tl.constexpr, POWER: tl.constexpr, ROWS: tl.constexpr, CLASSES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Losses, or for SUM one number of each program."""
    block = tl.program_id(0).to(tl.int64)
    sums = tl.zeros([1, POSITIONS], tl.float32)
    while block * POSITIONS < positions:
        p, inside, at, step = _position(block, positions, classes, pixels, ROWS, POSITIONS)
        target, _, _, _, miss, entropy, weight = _terms(
            x_ptr, target_ptr, alpha_ptr, p, inside, at, step, classes, ignore_index, WEIGHTED, CLASSES, POSITIONS
        )
        loss = tl.where(target == -1, 0.0, weight * _focal.modulation(miss, gamma, POWER) * entropy)
        if SUM:
            sums += tl.where(inside, loss, 0.0)
        else:
            tl.store(out_ptr + p, loss.to(out_ptr.dtype.element_ty), mask=inside)
        block += tl.num_programs(0)
    if SUM:
        tl.store(out_ptr + tl.program_id(0), tl.sum(sums))


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _backward_kernel(
    grad_ptr, x_ptr, target_ptr, alpha_ptr, count_ptr, out_ptr, positions, classes, pixels, ignore_index, gamma,
    COUNTED: tl.constexpr, EACH: tl.constexpr, WEIGHTED: tl.constexpr, POWER: tl.constexpr, ROWS: tl.constexpr,
    CLASSES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    p, inside, at, step = _position(tl.program_id(0), positions, classes, pixels, ROWS, POSITIONS)
    target, peak, total, mine, miss, entropy, weight = _terms(
        x_ptr, target_ptr, alpha_ptr, p, inside, at, step, classes, ignore_index, WEIGHTED, CLASSES, POSITIONS
    )
    grad = tl.load(grad_ptr + p, mask=inside, other=0) if EACH else tl.load(grad_ptr)
    # -log p_t / miss goes to 1; where it is infinite, p_t is 0, and so is their product.
    product = tl.where(mine == 0, 0.0, mine * entropy)
    ratio = tl.where(miss == 0, 1.0, product / tl.where(miss == 0, 1.0, miss))
    slope = grad.to(tl.float32) / _focal.divisor_of(count_ptr, 1.0, COUNTED) * weight
    slope = slope * _focal.modulation(miss, gamma, POWER) * (1 + gamma * ratio)
    first = 0
    while first < classes:
        c = first + tl.arange(0, CLASSES)[:, None].to(tl.int64)
        x = _scores(x_ptr, at, c, step, classes, inside)
        value = slope * tl.where(c == target, -miss, tl.exp(x - peak) / total)
        value = tl.where(target == -1, 0.0, value)
        tl.store(out_ptr + at + c * step, value.to(out_ptr.dtype.element_ty), mask=(c < classes) & inside)
        first += CLASSES


def softmax_focal_loss(
    input: Tensor, target: Tensor, alpha: Tensor | None, gamma: float, reduction: int, ignore_index: int
) -> Tensor:
    """The op of this name on a GPU; float64 runs the reference. Deterministic: sums have a fixed order."""
    if input.dtype == torch.float64:
        return NotImplemented
    x, tensors, numbers, options = _arguments("softmax_focal_loss", input, target, alpha, gamma, ignore_index)
    blocks = -(-target.numel() // options["POSITIONS"])
    if reduction == _focal.NONE:
        out = torch.empty(target.shape, dtype=input.dtype, device=input.device)
        launch(_forward_kernel, blocks, input, x, *tensors, out, *numbers, SUM=False, **options)
        return out
    if blocks == 0:
        return _focal.nothing(input, reduction)
    partial = _focal.empty_partials(blocks, input)
    launch(_forward_kernel, partial.numel(), input, x, *tensors, partial, *numbers, SUM=True, **options)
    count = _focal.counted(target, ignore_index) if reduction == _focal.MEAN else None
    return _focal.add_up(partial, input, count, 1.0)


def softmax_focal_loss_backward(
    grad: Tensor, input: Tensor, target: Tensor, alpha: Tensor | None, gamma: float, reduction: int, ignore_index: int
) -> Tensor:
    """The gradient of :func:`softmax_focal_loss` with respect to `input`, given that of its result."""
    name = "softmax_focal_loss_backward"
    if input.dtype == torch.float64:
        return NotImplemented
    x, tensors, numbers, options = _arguments(name, input, target, alpha, gamma, ignore_index)
    each = _focal.has_numbers(name, grad, reduction, target)
    count = _focal.counted(target, ignore_index) if reduction == _focal.MEAN else target
    out = torch.empty_like(x)
    options |= {"COUNTED": reduction == _focal.MEAN, "EACH": each}
    blocks = -(-target.numel() // options["POSITIONS"])
    grad = grad.contiguous() if each else grad
    launch(_backward_kernel, blocks, input, grad, x, *tensors, count, out, *numbers, **options)
    return out if x is input else torch.empty_like(input).copy_(out)


def _arguments(
    name: str, input: Tensor, target: Tensor, alpha: Tensor | None, gamma: float, ignore_index: int
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Any, ...], dict[str, Any]]:
    """Scores as the kernels read them, targets and weights, then what every kernel is given."""
    require(
        input.dim() >= 2
        and target.dtype == torch.int64
        and target.shape == input.shape[:1] + input.shape[2:]
        and input.size(1) < 1 << 30,
        f"{name}: expected scores [N, C, ...] and int64 targets [N, ...]",
    )
    require(alpha is None or alpha.shape == (input.size(1),), f"{name}: expected a weight for each class")
    last = input.dim() > 2 and not input.is_contiguous() and input.movedim(1, -1).is_contiguous()
    x = input if last else input.contiguous()
    y = target.contiguous()
    classes, pixels = input.size(1), max(input[0, 0].numel(), 1) if input.numel() else 1
    rows = last or pixels == 1
    tile = SOFTMAX_FOCAL[rows]
    options = {"WEIGHTED": alpha is not None, "POWER": _focal.power_of(gamma), "ROWS": rows}
    options |= {"CLASSES": tile.channels, "POSITIONS": tile.pixels, "num_warps": tile.num_warps}
    weights = y if alpha is None else alpha.contiguous()
    numbers = (y.numel(), classes, pixels, ignore_index, float(gamma))
    return x, (y, weights), numbers, options | {"enable_fp_fusion": False}
