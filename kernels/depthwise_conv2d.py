"""Depthwise convolution and its gradients: a few sums in registers, each pixel loaded once for all of them.

A tile has two axes. Across lies what memory has side by side, channels of channels_last tensors and columns of planes.
Down lie groups of results, of any image, so that small maps fill a tile too; and a thread has all QUEUE results of a
group, which follow one another along the *blocked* axis of the map: columns of channels_last tensors, rows of planes.
The other axis of the map is the *line* axis: channels_last has whole rows for lines, planes have columns.

Taps along the blocked axis are unrolled, those along the line axis are a loop. Images are found by 64-bit offsets, what
is within one by 32 bits.
"""

# ruff: noqa: RUF005 (Triton has no unpacking within a tuple.)

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.kernels import _math
from fastcnn.kernels._configs import depthwise_reduction, depthwise_tile

MAX_KERNEL = 11  # Taps of a side; beyond, unrolled code is long and multiplication bound, which takes tensor cores.
MAX_STRIDE = 4
_INT32 = 2**31 - 1
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def _plus(sums, INDEX: tl.constexpr, term):
    """The tuple with `term` added to one of its tensors."""
    return sums[:INDEX] + (sums[INDEX] + term,) + sums[INDEX + 1 :]


@triton.jit
def _zeros(COUNT: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr):
    zero = tl.zeros((DOWN, ACROSS), tl.float32)
    zeros = (zero,)
    for _ in tl.static_range(COUNT - 1):
        zeros = zeros + (zero,)
    return zeros


@triton.constexpr_function
def _meets(j, k, stride, dilation, transposed, queue):
    """Which result of a group a pixel `j` after its first reaches by tap `k`, or -1."""
    steps = j * stride + k * dilation if transposed else j - k * dilation
    if not transposed:
        steps = -1 if steps % stride else steps // stride
    return steps if 0 <= steps < queue else -1


@triton.jit
def _taps(weight_ptr, offset, step, mask, COUNT: tl.constexpr):
    """A filter's taps along the blocked axis, in a tuple."""
    taps = (tl.load(weight_ptr + offset, mask=mask, other=0).to(tl.float32),)
    for k in tl.static_range(1, COUNT):
        taps = taps + (tl.load(weight_ptr + (offset + k * step), mask=mask, other=0).to(tl.float32),)
    return taps


@triton.jit(do_not_specialize=["items", "groups", "lines", "in_b", "out_b", "in_l", "out_l", "pad_b", "pad_l"])
def _correlate_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    items,
    groups,
    lines,
    in_channels,
    out_channels,
    filters,
    in_b,
    out_b,
    in_l,
    out_l,
    pad_b,
    pad_l,
    TAPS_B: tl.constexpr,
    TAPS_L: tl.constexpr,
    STRIDE_B: tl.constexpr,
    STRIDE_L: tl.constexpr,
    DILATION_B: tl.constexpr,
    DILATION_L: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ACTIVATION: tl.constexpr,
    QUEUE: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """The convolution, or (TRANSPOSED) its gradient in the input, for which x is that of the result.

    A result of the gradient meets only every STRIDE-th tap. Along the blocked axis groups begin where it is known
    which; along the line axis a program has only lines that meet the same ones.
    """
    CLASSES: tl.constexpr = STRIDE_L if TRANSPOSED else 1
    program = tl.program_id(0)
    width = out_channels if CHANNELS_LAST else lines
    blocks = tl.cdiv(width, ACROSS)
    across = (program % blocks) * ACROSS + tl.arange(0, ACROSS)[None, :]
    program = program // blocks
    phase = program % CLASSES
    item = (program // CLASSES) * DOWN + tl.arange(0, DOWN)[:, None]
    group = item % groups
    if CHANNELS_LAST:
        line = item // groups % lines
        image = item // groups // lines
        channel = across
        in_step_b, in_step_l, in_step_c = in_channels, in_channels * in_b, 1
        out_step_b, out_step_l, out_step_c = out_channels, out_channels * out_b, 1
    else:
        line = across
        image = item // groups // out_channels
        channel = item // groups % out_channels
        in_step_b, in_step_l, in_step_c = in_l, 1, in_b * in_l
        out_step_b, out_step_l, out_step_c = out_l, 1, out_b * out_l
    inside = (item < items) & (across < width)
    x_ptr += image.to(tl.int64) * (in_channels * in_b * in_l)
    out_ptr += image.to(tl.int64) * (out_channels * out_b * out_l)

    if TRANSPOSED:
        first_out = group * QUEUE - pad_b % STRIDE_B
        first_in = group * (QUEUE // STRIDE_B) + pad_b // STRIDE_B
        line_out = line * STRIDE_L + phase - pad_l % STRIDE_L
        FIRST: tl.constexpr = -((TAPS_B - 1) * DILATION_B // STRIDE_B)
        LAST: tl.constexpr = (QUEUE - 1) // STRIDE_B
        SUMMED: tl.constexpr = MULTIPLIER
    else:
        first_out = group * QUEUE
        first_in = group * (QUEUE * STRIDE_B) - pad_b
        line_out = line
        FIRST: tl.constexpr = 0
        LAST: tl.constexpr = (QUEUE - 1) * STRIDE_B + (TAPS_B - 1) * DILATION_B
        SUMMED: tl.constexpr = 1

    sums = _zeros(QUEUE, DOWN, ACROSS)
    for step in range(TAPS_L * SUMMED):
        tap_l = step % TAPS_L
        ahead = tap_l * DILATION_L
        if TRANSPOSED:
            # With one filter to a channel it must be seen that channels side by side lie side by side.
            filter = channel if MULTIPLIER == 1 else channel * MULTIPLIER + step // TAPS_L
            source = filter
            line_in = line + pad_l // STRIDE_L + (phase - ahead) // STRIDE_L
            meets = (phase - ahead) % STRIDE_L == 0
        else:
            filter = channel
            source = channel // MULTIPLIER
            line_in = line * STRIDE_L + ahead - pad_l
            meets = True
        if meets:
            readable = inside & (line_in >= 0) & (line_in < in_l)
            if CHANNELS_LAST:  # The kernel gets weights as [height, width, filters] there.
                taps = _taps(weight_ptr, tap_l * TAPS_B * filters + filter, filters, across < width, TAPS_B)
            else:
                taps = _taps(weight_ptr, filter * (TAPS_B * TAPS_L) + tap_l, TAPS_L, item < items, TAPS_B)
            pixels = x_ptr + (source * in_step_c + line_in * in_step_l + first_in * in_step_b)
            for j in tl.static_range(FIRST, LAST + 1):
                at = first_in + j
                x = tl.load(pixels + j * in_step_b, mask=readable & (at >= 0) & (at < in_b), other=0).to(tl.float32)
                for k in tl.static_range(TAPS_B):
                    if _meets(j, k, STRIDE_B, DILATION_B, TRANSPOSED, QUEUE) >= 0:
                        sums = _plus(sums, _meets(j, k, STRIDE_B, DILATION_B, TRANSPOSED, QUEUE), x * taps[k])

    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=(across < width) if CHANNELS_LAST else item < items, other=0)
    results = out_ptr + (channel * out_step_c + line_out * out_step_l + first_out * out_step_b)
    writable = inside & (line_out >= 0) & (line_out < out_l)
    for q in tl.static_range(QUEUE):
        result = sums[q]
        if bias_ptr is not None:
            result += bias.to(tl.float32)
        result = _math.activate(result, ACTIVATION).to(out_ptr.dtype.element_ty)
        at = first_out + q
        tl.store(results + q * out_step_b, result, mask=writable & (at >= 0) & (at < out_b))


@triton.jit(do_not_specialize=["chunks", "items", "groups", "in_b", "out_b", "in_l", "out_l", "pad_b", "pad_l"])
def _grad_weight_kernel(
    grad_ptr,
    x_ptr,
    partial_ptr,
    chunks,
    items,
    groups,
    channels,
    filters,
    in_b,
    out_b,
    in_l,
    out_l,
    pad_b,
    pad_l,
    TAPS_B: tl.constexpr,
    TAPS_L: tl.constexpr,
    STRIDE_B: tl.constexpr,
    STRIDE_L: tl.constexpr,
    DILATION_B: tl.constexpr,
    DILATION_L: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    LINES: tl.constexpr,
    EVEN: tl.constexpr,
    QUEUE: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """Sums of gradient times pixel over `chunks` tiles, for [part, tap, filter]: all taps of LINES along the line axis.

    EVEN is whether groups are full to the last.
    """
    program = tl.program_id(0)
    if CHANNELS_LAST:
        blocks = tl.cdiv(filters, ACROSS)
        across_blocks = 1
        in_step_b, in_step_l, in_step_c = channels, channels * in_b, 1
        out_step_b, out_step_l, out_step_c = filters, filters * out_b, 1
    else:  # A program has one filter.
        blocks = filters
        across_blocks = tl.cdiv(out_l, ACROSS)
        in_step_b, in_step_l, in_step_c = in_l, 1, in_b * in_l
        out_step_b, out_step_l, out_step_c = out_l, 1, out_b * out_l
    block = program % blocks
    first_tap = program // blocks % (TAPS_L // LINES) * LINES
    part = program // blocks // (TAPS_L // LINES)

    sums = _zeros(LINES * TAPS_B, DOWN, ACROSS)
    bias = tl.zeros((DOWN, ACROSS), tl.float32)
    for chunk in range(part * chunks, (part + 1) * chunks):
        across = (block if CHANNELS_LAST else chunk % across_blocks) * ACROSS + tl.arange(0, ACROSS)[None, :]
        item = chunk // across_blocks * DOWN + tl.arange(0, DOWN)[:, None]
        group = item % groups
        if CHANNELS_LAST:
            line, image, filter = item // groups % out_l, item // groups // out_l, across
            inside = (item < items) & (across < filters)
        else:
            line, image, filter = across, item // groups, block
            inside = (item < items) & (across < out_l)
        image = image.to(tl.int64)
        at = group * QUEUE
        position = filter * out_step_c + line * out_step_l + at * out_step_b
        position = grad_ptr + image * (filters * out_b * out_l) + position
        grads = (tl.load(position, mask=inside, other=0).to(tl.float32),)
        for q in tl.static_range(1, QUEUE):
            mask = inside & (at + q < out_b)
            grads = grads + (tl.load(position + q * out_step_b, mask=mask, other=0).to(tl.float32),)
        if HAS_BIAS:
            for q in tl.static_range(QUEUE):
                bias += grads[q]
        first = at * STRIDE_B - pad_b
        pixels = x_ptr + image * (channels * in_b * in_l) + (filter // MULTIPLIER * in_step_c + first * in_step_b)
        for t in tl.static_range(LINES):
            line_in = line * STRIDE_L + (first_tap + t) * DILATION_L - pad_l
            readable = inside & (line_in >= 0) & (line_in < in_l)
            for j in tl.static_range((QUEUE - 1) * STRIDE_B + (TAPS_B - 1) * DILATION_B + 1):
                mask = readable & (first + j >= 0) & (first + j < in_b)
                x = tl.load(pixels + (line_in * in_step_l + j * in_step_b), mask=mask, other=0).to(tl.float32)
                for k in tl.static_range(TAPS_B):
                    if _meets(j, k, STRIDE_B, DILATION_B, False, QUEUE) >= 0:
                        met = x
                        if not EVEN:  # Not 0 for a gradient that is not there: it would make NaN of an infinite pixel.
                            met = tl.where(at + _meets(j, k, STRIDE_B, DILATION_B, False, QUEUE) < out_b, x, 0)
                        term = met * grads[_meets(j, k, STRIDE_B, DILATION_B, False, QUEUE)]
                        sums = _plus(sums, t * TAPS_B + k, term)

    partial_ptr += part.to(tl.int64) * ((TAPS_B * TAPS_L + HAS_BIAS) * filters)
    if CHANNELS_LAST:
        filter = block * ACROSS + tl.arange(0, ACROSS)
        mask = filter < filters
        for t in tl.static_range(LINES):
            for k in tl.static_range(TAPS_B):
                position = partial_ptr + ((first_tap + t) * TAPS_B + k) * filters + filter
                tl.store(position, tl.sum(sums[t * TAPS_B + k], 0), mask=mask)
        if HAS_BIAS and first_tap == 0:
            tl.store(partial_ptr + TAPS_B * TAPS_L * filters + filter, tl.sum(bias, 0), mask=mask)
    else:
        for t in tl.static_range(LINES):
            for k in tl.static_range(TAPS_B):
                position = partial_ptr + (k * TAPS_L + first_tap + t) * filters + block
                tl.store(position, tl.sum(sums[t * TAPS_B + k]))
        if HAS_BIAS and first_tap == 0:
            tl.store(partial_ptr + TAPS_B * TAPS_L * filters + block, tl.sum(bias))


@triton.jit(do_not_specialize=["parts", "filters"])
def _reduce_kernel(
    partial_ptr,
    weight_ptr,
    bias_ptr,
    parts,
    filters,
    TAPS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """Sums [part, tap, filter] over parts, always in this order; the bias is one tap more."""
    column = tl.program_id(0) * ACROSS + tl.arange(0, ACROSS)
    tap, filter = column // filters, column % filters
    taps = TAPS if bias_ptr is None else TAPS + 1
    sums = tl.zeros((DOWN, ACROSS), tl.float32)
    for first in range(0, parts, DOWN):
        part = first + tl.arange(0, DOWN)[:, None]
        offset = part.to(tl.int64) * (taps * filters) + column[None, :]
        sums += tl.load(partial_ptr + offset, mask=(part < parts) & (tap < taps)[None, :], other=0)
    total = tl.sum(sums, 0)
    tl.store(weight_ptr + filter * TAPS + tap, total.to(weight_ptr.dtype.element_ty), mask=tap < TAPS)
    if bias_ptr is not None:
        tl.store(bias_ptr + filter, total.to(bias_ptr.dtype.element_ty), mask=tap == TAPS)


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: int,
) -> Tensor:
    """The op on CUDA tensors; NotImplemented where :func:`_covers` says no. Deterministic."""
    size = _out_size(input, weight, stride, padding, dilation)
    if bias is not None and (bias.dtype != input.dtype or bias.shape != weight.shape[:1]):
        return NotImplemented
    if not _covers(input, weight, size, stride, padding):
        return NotImplemented
    layout = suggest_memory_format(input)
    out = torch.empty(size, dtype=input.dtype, device=input.device, memory_format=layout)
    _correlate(input, weight, bias, out, stride, padding, dilation, activation, False)
    return out


def depthwise_conv2d_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`depthwise_conv2d` without activation in input, weight and bias, those not needed empty."""
    size = _out_size(input, weight, stride, padding, dilation)
    if grad.dtype != input.dtype or grad.shape != size or not _covers(input, weight, size, stride, padding):
        return NotImplemented
    none = input.new_empty(0)
    grad_input, grad_weight, grad_bias = none, none.clone(), none.clone()
    layout = suggest_memory_format(input)
    grad = grad.contiguous(memory_format=layout)
    if need_input:
        grad_input = torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=layout)
        _correlate(grad, weight, None, grad_input, stride, padding, dilation, 0, True)
    if need_weight:
        grad_weight = weight.new_empty(weight.shape)
        grad_bias = weight.new_empty(weight.size(0)) if need_bias else grad_bias
        _grad_weight(grad, input, grad_weight, grad_bias if need_bias else None, stride, padding, dilation)
    elif need_bias:
        grad_bias = grad.sum((0, 2, 3), dtype=torch.float32).to(input.dtype)
    return grad_input, grad_weight, grad_bias


def _out_size(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    sides = (
        (input.size(2 + i) + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (weight.size(2 + i) - 1) - 1)
        // stride[i]
        + 1
        for i in (0, 1)
    )
    return (input.size(0), weight.size(0), *sides)


def _covers(
    input: Tensor, weight: Tensor, out_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether the kernels are meant for this; PyTorch runs the rest, and refuses what does not fit together."""
    if weight.size(1) != 1 or weight.size(0) % max(input.size(1), 1):
        return False
    if input.dtype not in _DTYPES or weight.dtype != input.dtype or weight.device != input.device:
        return False
    if max(weight.shape[2:]) > MAX_KERNEL or max(stride) > MAX_STRIDE or min(padding) < 0:
        return False
    channels, height, width = input.shape[1:]
    images, filters, out_height, out_width = out_size
    largest = max(channels * height * width, filters * out_height * out_width)
    lines = images * max(height, out_height, channels, filters) * max(height, out_height, width, out_width)
    return min(*input.shape[1:], *out_size[1:]) > 0 and max(largest, lines) < _INT32 // 2


def _axes(values: Sequence[int], last: bool) -> tuple[int, int]:
    """Of a pair for height and width, that of the blocked axis first."""
    return (values[1], values[0]) if last else (values[0], values[1])


def _correlate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: int,
    transposed: bool,
) -> None:
    if out.numel() == 0:
        return
    layout = suggest_memory_format(out)
    last = layout == torch.channels_last
    x = x.contiguous(memory_format=layout)
    taps_b, taps_l = _axes(weight.shape[2:], last)
    stride_b, stride_l = _axes(stride, last)
    dilation_b, dilation_l = _axes(dilation, last)
    pad_b, pad_l = _axes(padding[::2], last)
    in_b, in_l = _axes(x.shape[2:], last)
    out_b, out_l = _axes(out.shape[2:], last)
    images, in_channels, out_channels = x.size(0), x.size(1), out.size(1)
    first, first_l = (pad_b % stride_b, pad_l % stride_l) if transposed else (0, 0)
    classes = stride_l if transposed else 1
    lines = -(-(out_l + first_l) // classes)
    tile = depthwise_tile(last, out.element_size(), taps_b, out_b, out_channels if last else lines)
    queue = -(-tile.queue // stride_b) * stride_b if transposed else tile.queue
    groups = -(-(out_b + first) // queue)
    items = images * groups * (lines if last else out_channels)
    across = out_channels if last else lines
    filters = weight.size(0)
    if last:
        weight = _packed(weight)
    grid = -(-items // tile.down) * classes * -(-across // tile.across)
    with torch.cuda.device_of(out):
        _correlate_kernel[(grid,)](
            x,
            weight.contiguous(),
            None if bias is None else bias.contiguous(),
            out,
            items,
            groups,
            lines,
            in_channels,
            out_channels,
            filters,
            in_b,
            out_b,
            in_l,
            out_l,
            pad_b,
            pad_l,
            TAPS_B=taps_b,
            TAPS_L=taps_l,
            STRIDE_B=stride_b,
            STRIDE_L=stride_l,
            DILATION_B=dilation_b,
            DILATION_L=dilation_l,
            MULTIPLIER=filters // (out_channels if transposed else in_channels),
            TRANSPOSED=transposed,
            CHANNELS_LAST=last,
            ACTIVATION=activation,
            QUEUE=queue,
            DOWN=tile.down,
            ACROSS=tile.across,
            num_warps=tile.num_warps,
            enable_fp_fusion=True,
        )


def _packed(weight: Tensor) -> Tensor:
    """Weights as [height, width, filters] in float32, so that threads side by side read side by side."""
    filters = weight.size(0)
    packed = torch.empty((weight[0].numel(), filters), dtype=torch.float32, device=weight.device)
    return packed.copy_(weight.reshape(filters, -1).t())


def _grad_weight(
    grad: Tensor,
    x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> None:
    layout = suggest_memory_format(x)
    last = layout == torch.channels_last
    x = x.contiguous(memory_format=layout)
    taps_b, taps_l = _axes(grad_weight.shape[2:], last)
    stride_b, stride_l = _axes(stride, last)
    dilation_b, dilation_l = _axes(dilation, last)
    pad_b, pad_l = _axes(padding[::2], last)
    in_b, in_l = _axes(x.shape[2:], last)
    out_b, out_l = _axes(grad.shape[2:], last)
    images, channels, filters = x.size(0), x.size(1), grad.size(1)
    tile = depthwise_tile(last, x.element_size(), taps_b, out_b, filters if last else out_l)
    lines = taps_l if taps_b * taps_l <= 9 else 1
    groups = -(-out_b // tile.queue)
    items = images * groups * (out_l if last else 1)
    tiles = -(-items // tile.down) * (1 if last else -(-out_l // tile.across))
    blocks = (-(-filters // tile.across) if last else filters) * (taps_l // lines)
    reduction = depthwise_reduction(tiles, blocks)
    rows = taps_b * taps_l + (grad_bias is not None)
    partial = torch.empty((reduction.parts, rows, filters), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        if reduction.parts:
            _grad_weight_kernel[(blocks * reduction.parts,)](
                grad,
                x,
                partial,
                reduction.chunks,
                items,
                groups,
                channels,
                filters,
                in_b,
                out_b,
                in_l,
                out_l,
                pad_b,
                pad_l,
                TAPS_B=taps_b,
                TAPS_L=taps_l,
                STRIDE_B=stride_b,
                STRIDE_L=stride_l,
                DILATION_B=dilation_b,
                DILATION_L=dilation_l,
                MULTIPLIER=filters // channels,
                CHANNELS_LAST=last,
                HAS_BIAS=grad_bias is not None,
                LINES=lines,
                EVEN=out_b % tile.queue == 0,
                QUEUE=tile.queue,
                DOWN=tile.down,
                ACROSS=tile.across,
                num_warps=tile.num_warps,
                enable_fp_fusion=True,
            )
        _reduce_kernel[(-(-rows * filters // reduction.across),)](
            partial,
            grad_weight,
            grad_bias,
            reduction.parts,
            filters,
            TAPS=taps_b * taps_l,
            DOWN=reduction.down,
            ACROSS=reduction.across,
            num_warps=4,
            enable_fp_fusion=True,
        )
