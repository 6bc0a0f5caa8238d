"""Sigmoid focal loss and its gradient: a flat pass over memory, the formulas those of csrc/sigmoid_focal_loss."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcnn.kernels import _focal, _math
from fastcnn.kernels._configs import FOCAL
from fastcnn.kernels._launch import dense_in_memory, laid_out_as, launch, require

_NOT_SPECIALIZED = ["n", "classes", "ignore_index"]


@triton.jit
def _inputs(
    x_ptr, target_ptr, start, n, classes, ignore_index, WHOLE: tl.constexpr, DENSE: tl.constexpr, GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Logits, targets, which elements are there, and which of them count, of GROUPS times WIDTH elements.

    A group lies within a row of classes, so that one index is looked up for all of it.
    """
    group = tl.arange(0, GROUPS)[:, None] * WIDTH
    lane = tl.arange(0, WIDTH)[None, :]
    offsets = group + lane
    inside = offsets < n - start
    x = _focal.load(x_ptr + start, offsets, inside, WHOLE).to(tl.float32)
    if DENSE:
        y = _focal.load(target_ptr + start, offsets, inside, WHOLE).to(tl.float32)
        counts = inside
    else:
        first_row = start // classes
        at = (start - first_row * classes).to(tl.int32) + group
        row = at // classes
        there = group < n - start
        index = _focal.load(target_ptr + first_row, row, there, WHOLE)
        counts = index != ignore_index
        hot = index - (at - row * classes)
        hot = tl.where((hot >= 0) & (hot < WIDTH), hot, -1).to(tl.int32)
        y = (hot == lane).to(tl.float32)
        if not WHOLE:
            counts = counts & inside
    return x, y, offsets, inside, counts


@triton.jit
def _terms(x, y):
    """Of the target, what is not on the side of the logit's sign and what is; exp(-|x|); the probability of that side;
    what gives 1 - p_t when multiplied by it; the cross-entropy.

    No difference of nearly equal probabilities is ever taken.
    """
    size = tl.abs(x)
    same = tl.where(x < 0, 1 - y, y)
    other = tl.where(x < 0, y, 1 - y)
    tail = tl.exp(-size)
    # One division for two: it is what takes longest.
    inverse = 1 / ((1 + tail) * (2 + tail))
    head = (2 + tail) * inverse
    entropy = tl.where(other == 0, 0.0, size * other) + _math.atanh_doubled(tail * (1 + tail) * inverse)
    return other, same, tail, head, other + tail * same, entropy


@triton.jit
def _loss(x, y, background, difference, gamma, POWER: tl.constexpr):
    _, _, _, head, apart, entropy = _terms(x, y)
    return (background + y * difference) * entropy * _focal.modulation(head * apart, gamma, POWER)


@triton.jit
def _slope(x, y, background, difference, gamma, POWER: tl.constexpr):
    other, same, tail, head, apart, entropy = _terms(x, y)
    # Where it is large it is multiplied by a tail of 0, which infinity must not be.
    finite = tl.where(entropy > 1024, 1024.0, entropy)
    lean = other - tail * same
    lean = tl.where(x < 0, -lean, lean)  # Times head it is p - y.
    growth = gamma * finite * (1 - 2 * y)
    if POWER == 2:
        value = (head * head) * (head * apart) * (apart * lean + growth * tail)
    else:
        ratio = tl.where(other == 0, 1.0, tail / tl.where(other == 0, 1.0, apart))
        value = _focal.modulation(head * apart, gamma, POWER) * head * (lean + growth * ratio)
    return (background + y * difference) * value


@triton.jit
def _loss_block(
    x_ptr, target_ptr, out_ptr, start, n, classes, ignore_index, background, difference, gamma, WHOLE: tl.constexpr,
    DENSE: tl.constexpr, POWER: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    x, y, offsets, inside, counts = _inputs(
        x_ptr, target_ptr, start, n, classes, ignore_index, WHOLE, DENSE, GROUPS, WIDTH
    )
    loss = _loss(x, y, background, difference, gamma, POWER)
    if not DENSE:
        loss = tl.where(counts, loss, 0.0)
    _focal.store(out_ptr + start, offsets, loss, inside, WHOLE)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _forward_kernel(
    x_ptr, target_ptr, out_ptr, n, classes, ignore_index, background, difference, gamma, DENSE: tl.constexpr,
    POWER: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * (GROUPS * WIDTH)
    if start + GROUPS * WIDTH <= n:
        _loss_block(
            x_ptr, target_ptr, out_ptr, start, n, classes, ignore_index, background, difference, gamma, True, DENSE,
            POWER, GROUPS, WIDTH,
        )  # fmt: skip
    else:
        _loss_block(
            x_ptr, target_ptr, out_ptr, start, n, classes, ignore_index, background, difference, gamma, False, DENSE,
            POWER, GROUPS, WIDTH,
        )  # fmt: skip


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _sum_kernel(
    x_ptr, target_ptr, partial_ptr, n, classes, ignore_index, background, difference, gamma, DENSE: tl.constexpr,
    POWER: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    whole = n.to(tl.int64) // (GROUPS * WIDTH)
    total = tl.zeros([GROUPS, WIDTH], tl.float32)
    for block in range(program.to(tl.int64), whole, programs):
        x, y, _, _, counts = _inputs(
            x_ptr, target_ptr, block * (GROUPS * WIDTH), n, classes, ignore_index, True, DENSE, GROUPS, WIDTH
        )
        loss = _loss(x, y, background, difference, gamma, POWER)
        total += loss if DENSE else tl.where(counts, loss, 0.0)
    if program == whole % programs:
        x, y, _, _, counts = _inputs(
            x_ptr, target_ptr, whole * (GROUPS * WIDTH), n, classes, ignore_index, False, DENSE, GROUPS, WIDTH
        )
        total += tl.where(counts, _loss(x, y, background, difference, gamma, POWER), 0.0)
    tl.store(partial_ptr + program, tl.sum(total))


@triton.jit
def _slope_block(
    grad_ptr, x_ptr, target_ptr, out_ptr, factor, start, n, classes, ignore_index, background, difference, gamma,
    WHOLE: tl.constexpr, EACH: tl.constexpr, DENSE: tl.constexpr, POWER: tl.constexpr, GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    x, y, offsets, inside, counts = _inputs(
        x_ptr, target_ptr, start, n, classes, ignore_index, WHOLE, DENSE, GROUPS, WIDTH
    )
    slope = _slope(x, y, background, difference, gamma, POWER) * factor
    if EACH:
        slope *= _focal.load(grad_ptr + start, offsets, inside, WHOLE).to(tl.float32)
    if not DENSE:
        slope = tl.where(counts, slope, 0.0)
    _focal.store(out_ptr + start, offsets, slope, inside, WHOLE)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _backward_kernel(
    grad_ptr, x_ptr, target_ptr, count_ptr, out_ptr, n, classes, ignore_index, divisor, background, difference, gamma,
    COUNTED: tl.constexpr, EACH: tl.constexpr, DENSE: tl.constexpr, POWER: tl.constexpr, GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * (GROUPS * WIDTH)
    factor = 1 / _focal.divisor_of(count_ptr, divisor, COUNTED)
    if not EACH:
        factor *= tl.load(grad_ptr).to(tl.float32)
    if start + GROUPS * WIDTH <= n:
        _slope_block(
            grad_ptr, x_ptr, target_ptr, out_ptr, factor, start, n, classes, ignore_index, background, difference,
            gamma, True, EACH, DENSE, POWER, GROUPS, WIDTH,
        )  # fmt: skip
    else:
        _slope_block(
            grad_ptr, x_ptr, target_ptr, out_ptr, factor, start, n, classes, ignore_index, background, difference,
            gamma, False, EACH, DENSE, POWER, GROUPS, WIDTH,
        )  # fmt: skip


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, alpha: float, gamma: float, reduction: int, ignore_index: int
) -> Tensor:
    """The op of this name on a GPU; float64 runs the reference. Deterministic: sums have a fixed order."""
    if input.dtype == torch.float64:
        return NotImplemented
    x, y, numbers, options = _arguments("sigmoid_focal_loss", input, target, alpha, gamma, ignore_index)
    blocks = -(-input.numel() // FOCAL[input.element_size()].block)
    if reduction == _focal.NONE:
        out = torch.empty_like(x)
        launch(_forward_kernel, blocks, input, x, y, out, *numbers, **options)
        return out if options["DENSE"] else _in_layout_of(input, out)
    if blocks == 0:
        return _focal.nothing(input, reduction)
    partial = _focal.empty_partials(blocks, input)
    launch(_sum_kernel, partial.numel(), input, x, y, partial, *numbers, **options)
    count, divisor = _divisor(input, y, reduction, ignore_index)
    return _focal.add_up(partial, input, count, divisor)


def sigmoid_focal_loss_backward(
    grad: Tensor, input: Tensor, target: Tensor, alpha: float, gamma: float, reduction: int, ignore_index: int
) -> Tensor:
    """The gradient of :func:`sigmoid_focal_loss` with respect to `input`, given that of its result."""
    name = "sigmoid_focal_loss_backward"
    if input.dtype == torch.float64:
        return NotImplemented
    x, y, numbers, options = _arguments(name, input, target, alpha, gamma, ignore_index)
    each = _focal.has_numbers(name, grad, reduction, input)
    count, divisor = _divisor(input, y, reduction, ignore_index)
    out = torch.empty_like(x)
    args = (laid_out_as(grad, out) if each else grad, x, y, y if count is None else count, out)
    blocks = -(-input.numel() // FOCAL[input.element_size()].block)
    numbers = (*numbers[:3], divisor, *numbers[3:])
    launch(_backward_kernel, blocks, input, *args, *numbers, COUNTED=count is not None, EACH=each, **options)
    return out if options["DENSE"] else _in_layout_of(input, out)


def _arguments(
    name: str, input: Tensor, target: Tensor, alpha: float, gamma: float, ignore_index: int
) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]:
    """Input and target in one order in memory, then what every kernel is given."""
    dense = target.dtype != torch.int64
    require(
        target.dtype == input.dtype and target.shape == input.shape
        if dense
        else input.dim() > 0 and target.shape == input.shape[:-1] and input.size(-1) < 1 << 30,
        f"{name}: expected targets like the input, or one int64 index for each row of it",
    )
    # Class indices are those of rows, which must lie in memory one after the other.
    x = dense_in_memory(input) if dense else input.contiguous()
    y = laid_out_as(target, x) if dense else target.contiguous()
    classes = 1 if dense else input.size(-1)
    width = 1 if dense or classes % (16 // x.element_size()) else 16 // x.element_size()
    background, difference = (1.0, 0.0) if alpha < 0 else (1 - alpha, 2 * alpha - 1)
    config = FOCAL[x.element_size()]
    options = {"DENSE": dense, "POWER": _focal.power_of(gamma), "GROUPS": config.block // width, "WIDTH": width}
    options |= {"num_warps": config.num_warps, "enable_fp_fusion": True}
    return x, y, (x.numel(), classes, ignore_index, background, difference, float(gamma)), options


def _divisor(input: Tensor, target: Tensor, reduction: int, ignore_index: int) -> tuple[Tensor | None, float]:
    """What a mean is over: a count on the device, or a number."""
    if reduction != _focal.MEAN:
        return None, 1.0
    if target.dtype != torch.int64:
        return None, float(input.numel())
    return _focal.counted(target, ignore_index) * input.size(-1), 1.0


def _in_layout_of(input: Tensor, result: Tensor) -> Tensor:
    return result if input.is_contiguous() else torch.empty_like(input).copy_(result)
