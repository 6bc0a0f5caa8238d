"""Grouped convolution and its gradient in the input as products of tiles: positions by channels of the result.

A program has some positions of one image and the channels of one block. Of groups with few channels a block has
several, for a tensor core multiplies no fewer than 16: their weights then stand on the diagonal of a tile that is 0
elsewhere. Such a 0 times what is not finite is NaN, so programs whose sums are not finite compute them again, group by
group.

Weights come packed, as [tap, channel of the result, channel of the block that is read], zeros included. Images are
found by 64-bit offsets, what is within one by 32 bits.
"""

# ruff: noqa: RUF005 (Triton has no unpacking within a tuple.)

from __future__ import annotations

import triton
import triton.language as tl

from fastcnn.kernels import _math


@triton.jit(do_not_specialize=["count", "columns", "depth", "in_group", "out_group"])
def pack_kernel(
    weight_ptr,
    packed_ptr,
    count,
    columns,
    depth,
    in_group,
    out_group,
    MERGED: tl.constexpr,
    TAPS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weights as `convolve_kernel` reads them, `depth` to a channel of the result; TRANSPOSED as it does."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k, column, tap = i % depth, i // depth % columns, i // depth // columns
    each_k, each_column = in_group, out_group
    if TRANSPOSED:
        each_k, each_column = out_group, in_group
    group = column // each_column
    inside = (i < count) & (k // each_k == group % MERGED)
    if TRANSPOSED:
        source = (group * out_group + k % out_group) * in_group + column % in_group
    else:
        source = column * in_group + k % in_group
    value = tl.load(weight_ptr + (source * TAPS + tap), mask=inside, other=0)
    tl.store(packed_ptr + i, value, mask=i < count)


@triton.jit
def shuffled(channel, channels, shuffle_groups):
    """Where a channel of the convolution's result is stored."""
    each = channels // shuffle_groups
    return channel % each * shuffle_groups + channel // each


@triton.jit
def _sums(
    x_ptr,
    weight_ptr,
    positions,
    channels,
    columns,
    sizes,
    chunks,
    only,
    WINDOW: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SHUFFLED: tl.constexpr,
    POINT: tl.constexpr,
    EVEN: tl.constexpr,
    ISOLATED: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """[positions, columns] over all taps and channels of the block from `first` on; ISOLATED, of its group `only`."""
    row, col, inside, from_h, from_w = positions
    first, in_group, in_block, in_channels, shuffle_groups = channels
    column, column_inside, out_channels = columns
    in_h, in_w, in_plane = sizes
    KERNEL_H: tl.constexpr = WINDOW[0]
    KERNEL_W: tl.constexpr = WINDOW[1]
    STRIDE_H: tl.constexpr = WINDOW[2]
    STRIDE_W: tl.constexpr = WINDOW[3]
    sums = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for step in range(KERNEL_H * KERNEL_W * chunks):
        tap = step // chunks
        k = step % chunks * DEPTH + tl.arange(0, DEPTH)
        readable, pixel = inside, col
        meets = True
        if not POINT:
            ahead_h, ahead_w = tap // KERNEL_W * WINDOW[4] - from_h, tap % KERNEL_W * WINDOW[5] - from_w
            if TRANSPOSED:
                ahead_h, ahead_w = -ahead_h, -ahead_w
                if STRIDE_H > 1 or STRIDE_W > 1:
                    meets = (ahead_h % STRIDE_H == 0) & (ahead_w % STRIDE_W == 0)
                    ahead_h, ahead_w = ahead_h // STRIDE_H, ahead_w // STRIDE_W
            at_h, at_w = row + ahead_h, col + ahead_w
            readable = inside & (at_h >= 0) & (at_h < in_h) & (at_w >= 0) & (at_w < in_w)
            pixel = at_h * in_w + at_w
        if meets:
            channel = first + k
            mask = readable[:, None]
            if not EVEN:
                mask = mask & ((k < in_block) & (channel < in_channels))[None, :]
            if SHUFFLED:
                channel = shuffled(channel, in_channels, shuffle_groups)
            if CHANNELS_LAST:
                offset = pixel[:, None] * in_channels + channel[None, :]
            else:
                offset = pixel[:, None] + channel[None, :] * in_plane
            x = tl.load(x_ptr + offset, mask=mask, other=0)
            if ISOLATED:
                x = tl.where((k // in_group == only)[None, :], x, tl.zeros_like(x))
            offset = (tap * out_channels + column)[None, :] * (chunks * DEPTH) + k[:, None]
            weight = tl.load(weight_ptr + offset, mask=column_inside[None, :], other=0)
            sums = tl.dot(x, weight, sums, input_precision="ieee")
    return sums


@triton.jit
def _in_turns(parts, COUNT: tl.constexpr):
    """[positions, COUNT * columns] of a tuple of tiles, a power of 2 of them: the first column of each, and so on."""
    if COUNT == 8:
        low = tl.interleave(parts[0], parts[4]), tl.interleave(parts[2], parts[6])
        high = tl.interleave(parts[1], parts[5]), tl.interleave(parts[3], parts[7])
        return tl.interleave(tl.interleave(low[0], low[1]), tl.interleave(high[0], high[1]))
    elif COUNT == 4:
        return tl.interleave(tl.interleave(parts[0], parts[2]), tl.interleave(parts[1], parts[3]))
    else:
        return tl.interleave(parts[0], parts[1])


@triton.jit(
    do_not_specialize=["tiles", "blocks", "column_tiles", "chunks", "in_group", "out_group", "shuffle_groups"]
    + ["in_h", "in_w", "out_h", "out_w", "rows", "cols", "pad_h", "pad_w"]
)
def convolve_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    tiles,
    blocks,
    column_tiles,
    chunks,
    in_group,
    out_group,
    in_block,
    out_block,
    in_channels,
    out_channels,
    shuffle_groups,
    in_h,
    in_w,
    in_plane,
    out_h,
    out_w,
    out_plane,
    rows,
    cols,
    pad_h,
    pad_w,
    WINDOW: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SHUFFLED: tl.constexpr,
    POINT: tl.constexpr,
    RELU: tl.constexpr,
    MERGED: tl.constexpr,
    TOGETHER: tl.constexpr,
    EVEN: tl.constexpr,
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    POSITIONS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The convolution, or (TRANSPOSED) its gradient in the input, for which x is that of the result.

    WINDOW: kernel, stride and dilation, each by height and width. `rows` and `cols` are of the positions that programs
    of one kind share: all, or, of the gradient, those that meet the same taps. A POINT of the result needs only the one
    below it. Channels of blocks and tensors are counted in UNITs.

    Of a shuffled result with channels last, each program has the same channels of all TOGETHER groups, which it stores
    side by side.
    """
    STRIDE_H: tl.constexpr = WINDOW[2]
    STRIDE_W: tl.constexpr = WINDOW[3]
    PHASES: tl.constexpr = STRIDE_H * STRIDE_W if TRANSPOSED else 1
    in_block, in_channels = in_block * IN_UNIT, in_channels * IN_UNIT
    out_block, out_channels = out_block * OUT_UNIT, out_channels * OUT_UNIT
    program = tl.program_id(0)
    first_column = program % column_tiles * COLUMNS
    n = first_column + tl.arange(0, COLUMNS)
    program = program // column_tiles
    block = program % blocks
    program = program // blocks
    phase_h, phase_w = program % PHASES // STRIDE_W, program % PHASES % STRIDE_W
    program = program // PHASES
    tile = program % tiles
    image = (program // tiles).to(tl.int64)
    x_ptr += image * (in_channels * in_plane)
    out_ptr += image * (out_channels * out_plane)

    position = tile * POSITIONS + tl.arange(0, POSITIONS)
    if POINT:
        inside = position < out_plane
        if CHANNELS_LAST:  # All images are one.
            x_ptr += tile.to(tl.int64) * POSITIONS * in_channels
            out_ptr += tile.to(tl.int64) * POSITIONS * out_channels
            position = tl.arange(0, POSITIONS)
        pixel, positions = position, (position, position, inside, 0, 0)
    else:
        row, col = position // cols, position % cols
        inside = row < rows
        if TRANSPOSED:
            out_row, out_col = row * STRIDE_H + phase_h, col * STRIDE_W + phase_w
            inside = inside & (out_row < out_h) & (out_col < out_w)
            pixel, positions = out_row * out_w + out_col, (row, col, inside, phase_h + pad_h, phase_w + pad_w)
        else:
            pixel, positions = row * out_w + col, (row * STRIDE_H, col * STRIDE_W, inside, pad_h, pad_w)

    parts = ()
    sizes = (in_h, in_w, in_plane)
    for g in tl.static_range(TOGETHER):
        first = (block * TOGETHER + g) * in_block
        column = (block * TOGETHER + g) * out_block + n
        column_inside = (n < out_block) & (column < out_channels)
        channels = (first, in_group, in_block, in_channels, shuffle_groups)
        columns = (column, column_inside, out_channels)
        # fmt: off
        sums = _sums(
            x_ptr, weight_ptr, positions, channels, columns, sizes, chunks, 0,
            WINDOW, TRANSPOSED, CHANNELS_LAST, SHUFFLED and TRANSPOSED, POINT, EVEN, False, DEPTH,
        )
        if MERGED > 1:
            spoilt = tl.max(tl.where(sums - sums == 0, 0, 1))
            for only in range(MERGED * spoilt):
                part = _sums(
                    x_ptr, weight_ptr, positions, channels, columns, sizes, chunks, only,
                    WINDOW, TRANSPOSED, CHANNELS_LAST, SHUFFLED and TRANSPOSED, POINT, EVEN, True, DEPTH,
                )
                sums = tl.where((n // out_group == only)[None, :], part, sums)
        # fmt: on
        parts = parts + (sums,)

    if TOGETHER > 1:
        PLACES: tl.constexpr = 2 if TOGETHER == 2 else 4 if TOGETHER <= 4 else 8
        for _ in tl.static_range(PLACES - TOGETHER):
            parts = parts + (tl.zeros((POSITIONS, COLUMNS), tl.float32),)
        result = _in_turns(parts, PLACES)
        place = tl.arange(0, COLUMNS * PLACES)
        g, n = place % PLACES, first_column + place // PLACES
        column_inside = (g < TOGETHER) & (n < out_block)
        column, target = g * out_block + n, n * TOGETHER + g
    else:
        result, target = parts[0], column
        if SHUFFLED and not TRANSPOSED:
            target = shuffled(column, out_channels, shuffle_groups)
    if bias_ptr is not None:
        result += tl.load(bias_ptr + column, mask=column_inside, other=0).to(tl.float32)[None, :]
    result = _math.activate(result, 1 if RELU else 0).to(out_ptr.dtype.element_ty)
    if CHANNELS_LAST:
        offset = pixel[:, None] * out_channels + target[None, :]
    else:
        offset = pixel[:, None] + target[None, :] * out_plane
    tl.store(out_ptr + offset, result, mask=inside[:, None] & column_inside[None, :])
