"""Gradient of a grouped convolution in its weights: products of tiles over positions, in parts that are added up later.

Blocks of several groups are as in _grouped; here only those on the diagonal are kept, so nothing spreads.
"""

# ruff: noqa: RUF005 (Triton has no unpacking within a tuple.)

from __future__ import annotations

import triton
import triton.language as tl

from fastcnn.kernels._grouped import shuffled


@triton.jit(
    do_not_specialize=["chunks", "items", "tiles", "blocks", "column_tiles", "depth_tiles", "in_group", "out_group"]
    + ["shuffle_groups", "in_h", "in_w", "cols", "pad_h", "pad_w"]
)
def grad_weight_kernel(
    grad_ptr,
    x_ptr,
    partial_ptr,
    chunks,
    items,
    tiles,
    blocks,
    column_tiles,
    depth_tiles,
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
    out_plane,
    cols,
    pad_h,
    pad_w,
    WINDOW: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SHUFFLED: tl.constexpr,
    POINT: tl.constexpr,
    TAPS: tl.constexpr,
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    POSITIONS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Sums of gradient times pixel over `chunks` of the `items` tiles of positions, as [part, *weight].

    A program has TAPS taps, which divides their number. The other arguments are those of `convolve_kernel`.
    """
    KERNEL_W: tl.constexpr = WINDOW[1]
    ALL_TAPS: tl.constexpr = WINDOW[0] * WINDOW[1]
    TAP_TILES: tl.constexpr = ALL_TAPS // TAPS
    in_block, in_channels = in_block * IN_UNIT, in_channels * IN_UNIT
    out_block, out_channels = out_block * OUT_UNIT, out_channels * OUT_UNIT
    program = tl.program_id(0)
    first_tap = program % TAP_TILES * TAPS
    program = program // TAP_TILES
    k = program % depth_tiles * DEPTH + tl.arange(0, DEPTH)
    program = program // depth_tiles
    n = program % column_tiles * COLUMNS + tl.arange(0, COLUMNS)
    program = program // column_tiles
    block = program % blocks
    part = program // blocks
    channel, column = block * in_block + k, block * out_block + n
    channel_inside = (k < in_block) & (channel < in_channels)
    column_inside = (n < out_block) & (column < out_channels)
    target = column
    if SHUFFLED:
        target = shuffled(column, out_channels, shuffle_groups)

    sums = ()
    for _ in tl.static_range(TAPS):
        sums = sums + (tl.zeros((COLUMNS, DEPTH), tl.float32),)
    for item in range(part * chunks, tl.minimum((part + 1) * chunks, items)):
        tile = item % tiles
        image = (item // tiles).to(tl.int64)
        xs = x_ptr + image * (in_channels * in_plane)
        grads = grad_ptr + image * (out_channels * out_plane)
        position = tile * POSITIONS + tl.arange(0, POSITIONS)
        inside = position < out_plane
        pixel = position
        if POINT and CHANNELS_LAST:  # All images are one.
            xs += tile.to(tl.int64) * POSITIONS * in_channels
            grads += tile.to(tl.int64) * POSITIONS * out_channels
            pixel = tl.arange(0, POSITIONS)
        if CHANNELS_LAST:
            offset = pixel[:, None] * out_channels + target[None, :]
        else:
            offset = pixel[:, None] + target[None, :] * out_plane
        grad = tl.load(grads + offset, mask=inside[:, None] & column_inside[None, :], other=0)
        if not POINT:
            row, col = position // cols * WINDOW[2] - pad_h, position % cols * WINDOW[3] - pad_w
        added = ()
        for t in tl.static_range(TAPS):
            readable = inside
            if not POINT:
                tap = first_tap + t
                at_h, at_w = row + tap // KERNEL_W * WINDOW[4], col + tap % KERNEL_W * WINDOW[5]
                readable = inside & (at_h >= 0) & (at_h < in_h) & (at_w >= 0) & (at_w < in_w)
                pixel = at_h * in_w + at_w
            if CHANNELS_LAST:
                offset = pixel[:, None] * in_channels + channel[None, :]
            else:
                offset = pixel[:, None] + channel[None, :] * in_plane
            x = tl.load(xs + offset, mask=readable[:, None] & channel_inside[None, :], other=0)
            added = added + (tl.dot(tl.trans(grad), x, sums[t], input_precision="ieee"),)
        sums = added

    partial_ptr += part.to(tl.int64) * (out_channels * in_group * ALL_TAPS)
    same = (n // out_group)[:, None] == (k // in_group)[None, :]
    stored = same & column_inside[:, None] & channel_inside[None, :]
    offset = (column[:, None] * in_group + (k % in_group)[None, :]) * ALL_TAPS + first_tap
    for t in tl.static_range(TAPS):
        tl.store(partial_ptr + (offset + t), sums[t], mask=stored)
