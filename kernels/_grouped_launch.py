"""Launches of the kernels in _grouped and _grouped_weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor

from fastcnn.kernels._configs import (
    GroupedTile,
    depthwise_reduction,
    grouped_taps,
    grouped_tile,
    grouped_weight_tile,
)
from fastcnn.kernels._depthwise import reduce_kernel
from fastcnn.kernels._grouped import convolve_kernel, pack_kernel
from fastcnn.kernels._grouped_weight import grad_weight_kernel
from fastcnn.kernels._launch import launch

MAX_TOGETHER = 8  # Groups that a program can store by turns; of more, each stores its own channels apart.


def _maps(
    x: Tensor, out: Tensor, window: Sequence[int], padding: Sequence[int], channels_last: bool
) -> tuple[bool, int, Sequence[int], Sequence[int]]:
    """Whether each pixel of one map belongs to one of the other, how many images, and their sizes and areas."""
    point = tuple(window[:4]) == (1, 1, 1, 1) and tuple(padding) == (0, 0)
    images, (in_h, in_w), (out_h, out_w) = x.size(0), x.shape[2:], out.shape[2:]
    in_plane, out_plane = in_h * in_w, out_h * out_w
    if point and channels_last:
        images, in_plane, out_plane = 1, images * in_plane, images * out_plane
    return point, images, (in_h, in_w, in_plane), (out_h, out_w, out_plane)


def _channels(
    tile: GroupedTile, in_channels: int, out_channels: int, groups: int, shuffle_groups: int
) -> tuple[tuple[int, ...], dict[str, int | bool]]:
    """What kernels have to know of channels, in the order in which they take it, and how they are compiled."""
    in_group, out_group = in_channels // groups, out_channels // groups
    in_block, out_block = tile.merged * in_group, tile.merged * out_group
    in_unit, out_unit = gcd(in_block, in_channels, 16), gcd(out_block, out_channels, 16)
    blocks = (in_block // in_unit, out_block // out_unit)
    numbers = (in_group, out_group, *blocks, in_channels // in_unit, out_channels // out_unit, shuffle_groups)
    units = {"IN_UNIT": in_unit, "OUT_UNIT": out_unit}
    sides = {"POSITIONS": tile.positions, "COLUMNS": tile.columns, "DEPTH": tile.depth}
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": True}
    return numbers, {**units, **sides, **options}


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    window: Sequence[int],
    padding: Sequence[int],
    groups: int,
    shuffle_groups: int,
    relu: bool,
    transposed: bool,
    channels_last: bool,
) -> None:
    """Both maps are dense in the format said, which the strides of one with a single pixel do not tell."""
    if out.numel() == 0:
        return
    in_channels, out_channels = x.size(1), out.size(1)
    in_group, out_group = in_channels // groups, out_channels // groups
    shuffled_out = not transposed and 1 < shuffle_groups < out_channels
    interleaved = channels_last and shuffled_out and shuffle_groups == groups <= MAX_TOGETHER
    point, images, in_size, out_size = _maps(x, out, window, padding, channels_last)
    tile = grouped_tile(channels_last, x.element_size(), in_group, out_group, groups, interleaved, point)
    in_block = tile.merged * in_group
    chunks = -(-in_block // tile.depth)
    strides = window[2:4] if transposed else (1, 1)
    rows, cols = (-(-n // s) for n, s in zip(out_size[:2], strides, strict=True))
    tiles = -(-(out_size[2] if point else rows * cols) // tile.positions)
    blocks = -(-groups // (tile.merged * tile.together))
    column_tiles = -(-tile.merged * out_group // tile.columns)
    numbers, constants = _channels(tile, in_channels, out_channels, groups, shuffle_groups)
    launch(
        convolve_kernel,
        images * tiles * strides[0] * strides[1] * blocks * column_tiles,
        out,
        x,
        _packed(weight.contiguous(), tile, chunks * tile.depth, groups, transposed),
        None if bias is None else bias.contiguous(),
        out,
        tiles,
        blocks,
        column_tiles,
        chunks,
        *numbers,
        *in_size,
        *out_size,
        rows,
        cols,
        *padding,
        WINDOW=tuple(window),
        TRANSPOSED=transposed,
        CHANNELS_LAST=channels_last,
        SHUFFLED=shuffled_out or (transposed and 1 < shuffle_groups < in_channels),
        POINT=point,
        RELU=relu,
        MERGED=tile.merged,
        TOGETHER=tile.together,
        EVEN=in_block % tile.depth == 0 and groups % tile.merged == 0,
        **constants,
    )


def _packed(weight: Tensor, tile: GroupedTile, depth: int, groups: int, transposed: bool) -> Tensor:
    """Weights in the order of `convolve_kernel`, `depth` of them to a channel of its result."""
    out_channels, in_group, height, width = weight.shape
    out_group = out_channels // groups
    if not transposed and height == width == tile.merged == 1 and depth == in_group:
        return weight
    columns = groups * in_group if transposed else out_channels
    packed = torch.empty((height * width, columns, depth), dtype=weight.dtype, device=weight.device)
    block = 1024
    launch(
        pack_kernel,
        -(-packed.numel() // block),
        weight,
        weight,
        packed,
        packed.numel(),
        columns,
        depth,
        in_group,
        out_group,
        MERGED=tile.merged,
        TAPS=height * width,
        TRANSPOSED=transposed,
        BLOCK=block,
        num_warps=4,
    )
    return packed


def grad_weight(
    grad: Tensor,
    x: Tensor,
    out: Tensor,
    window: Sequence[int],
    padding: Sequence[int],
    groups: int,
    shuffle_groups: int,
    channels_last: bool,
) -> None:
    if out.numel() == 0:
        return
    in_channels, out_channels = x.size(1), out.size(0)
    in_group, out_group = in_channels // groups, out_channels // groups
    point, images, in_size, out_size = _maps(x, grad, window, padding, channels_last)
    tile = grouped_weight_tile(x.element_size(), in_group, out_group, groups)
    taps = grouped_taps(tile, window[0] * window[1], window[1], channels_last)
    blocks = -(-groups // tile.merged)
    column_tiles, depth_tiles = -(-tile.merged * out_group // tile.columns), -(-tile.merged * in_group // tile.depth)
    tiles = -(-out_size[2] // tile.positions)
    programs = blocks * column_tiles * depth_tiles * (window[0] * window[1] // taps)
    reduction = depthwise_reduction(images * tiles, programs)
    numbers, constants = _channels(tile, in_channels, out_channels, groups, shuffle_groups)
    partial = torch.empty((reduction.parts, out.numel()), dtype=torch.float32, device=x.device)
    launch(
        grad_weight_kernel,
        programs * reduction.parts,
        x,
        grad,
        x,
        partial,
        reduction.chunks,
        images * tiles,
        tiles,
        blocks,
        column_tiles,
        depth_tiles,
        *numbers,
        *in_size,
        out_size[2],
        out_size[1],
        *padding,
        WINDOW=tuple(window),
        CHANNELS_LAST=channels_last,
        SHUFFLED=1 < shuffle_groups < out_channels,
        POINT=point,
        TAPS=taps,
        **constants,
    )
    launch(
        reduce_kernel,
        -(-out.numel() // reduction.across),
        x,
        partial,
        out,
        None,
        reduction.parts,
        out.numel(),
        TAPS=1,
        DOWN=reduction.down,
        ACROSS=reduction.across,
        num_warps=4,
        enable_fp_fusion=True,
    )
