"""Grouped convolution stored shuffled, and its gradients, on a GPU: what is launched for which call.

The kernels are in _grouped and _grouped_weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

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
from fastcnn.kernels._launch import launch, require

MAX_TOGETHER = 8  # Groups that a program can store by turns; of more, each stores its own channels apart.
_LARGEST = 2**30
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_NAME = "grouped_conv2d_shuffle"


def grouped_conv2d_shuffle(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shuffle_groups: int,
    relu: bool,
) -> Tensor:
    """The op on CUDA tensors; NotImplemented where :func:`_covers` says no. Deterministic."""
    window = (*weight.shape[2:], *stride, *dilation)
    size = _result_size(_NAME, input.shape, weight.shape, stride, padding, dilation, groups, shuffle_groups)
    require(input.dtype == weight.dtype and input.device == weight.device, f"{_NAME}: expected tensors of one dtype")
    if bias is not None:
        require(
            bias.dtype == input.dtype and bias.device == input.device and bias.shape == weight.shape[:1],
            f"{_NAME}: expected a bias of {weight.size(0)} elements",
        )
    if not _covers(input, size, window, padding):
        return NotImplemented
    layout = suggest_memory_format(input)
    out = torch.empty(size, dtype=input.dtype, device=input.device, memory_format=layout)
    x = input.contiguous(memory_format=layout)
    _convolve(x, weight, bias, out, window, padding, groups, shuffle_groups, relu, False)
    return out


def grouped_conv2d_shuffle_backward_input(
    grad: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shuffle_groups: int,
    channels_last: bool,
) -> Tensor:
    """Gradient of :func:`grouped_conv2d_shuffle` without ReLU in its input, of this memory format."""
    name = f"{_NAME}_backward_input"
    window = (*weight.shape[2:], *stride, *dilation)
    size = _result_size(name, input_size, weight.shape, stride, padding, dilation, groups, shuffle_groups)
    require(grad.shape == size, f"{name}: expected grad of shape {size}, got {tuple(grad.shape)}")
    require(grad.dtype == weight.dtype and grad.device == weight.device, f"{name}: expected tensors of one dtype")
    if not _covers(grad, input_size, window, padding):
        return NotImplemented
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(tuple(input_size), dtype=grad.dtype, device=grad.device, memory_format=layout)
    grad, shuffle_groups = _in_order(grad, channels_last, shuffle_groups)
    _convolve(grad, weight, None, out, window, padding, groups, shuffle_groups, False, True)
    return out


def grouped_conv2d_shuffle_backward_weight(
    grad: Tensor,
    input: Tensor,
    weight_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shuffle_groups: int,
) -> Tensor:
    """Gradient of :func:`grouped_conv2d_shuffle` without ReLU in its weight."""
    name = f"{_NAME}_backward_weight"
    window = (*weight_size[2:], *stride, *dilation)
    size = _result_size(name, input.shape, weight_size, stride, padding, dilation, groups, shuffle_groups)
    require(grad.shape == size, f"{name}: expected grad of shape {size}, got {tuple(grad.shape)}")
    require(grad.dtype == input.dtype and grad.device == input.device, f"{name}: expected tensors of one dtype")
    if not _covers(input, size, window, padding):
        return NotImplemented
    last = suggest_memory_format(input) == torch.channels_last
    x = input.contiguous(memory_format=suggest_memory_format(input))
    grad, shuffle_groups = _in_order(grad, last, shuffle_groups)
    out = torch.empty(tuple(weight_size), dtype=input.dtype, device=input.device)
    _grad_weight(grad, x, out, window, padding, groups, shuffle_groups, last)
    return out


def _result_size(
    name: str,
    input: Sequence[int],
    weight: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shuffle_groups: int,
) -> tuple[int, ...]:
    """Of the convolution's result, the arguments of a raw call having been checked."""
    require(len(input) == 4 == len(weight), f"{name}: expected input and weight with 4 dimensions")
    require(len(stride) == len(padding) == len(dilation) == 2, f"{name}: expected pairs")
    sizes = (*input, *weight, *stride, *padding, *dilation, groups, shuffle_groups)
    require(min(sizes) >= 0 and max(sizes) < 2**31, f"{name}: expected sizes below 2^31")
    fits = groups > 0 and input[1] == weight[1] * groups and weight[0] % groups == 0
    require(fits, f"{name}: expected {groups} groups of channels")
    divides = shuffle_groups > 0 and weight[0] % shuffle_groups == 0
    require(divides, f"{name}: {weight[0]} channels are not divisible into {shuffle_groups} groups")
    require(min(*weight[2:], *stride, *dilation) > 0, f"{name}: expected positive sizes")
    reach = [input[2 + i] + 2 * padding[i] - dilation[i] * (weight[2 + i] - 1) - 1 for i in (0, 1)]
    require(min(reach) >= 0, f"{name}: the kernel is larger than the padded input")
    return (input[0], weight[0], *(n // s + 1 for n, s in zip(reach, stride, strict=True)))


def _covers(x: Tensor, other: Sequence[int], window: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether the kernels are meant for this; PyTorch runs the rest. `x` and `other` are the two maps."""
    if x.dtype not in _DTYPES:
        return False
    maps = (x.shape, other)
    pixels = max(n * (h + 2 * padding[0]) * (w + 2 * padding[1]) for n, _, h, w in maps)
    image = max(c * (h + 2 * padding[0]) * (w + 2 * padding[1]) for _, c, h, w in maps)
    weights = (maps[0][1] + 64) * (maps[1][1] + 64) * window[0] * window[1]
    return max(pixels, image, weights, max(window) * 256) < _LARGEST


def _in_order(grad: Tensor, channels_last: bool, shuffle_groups: int) -> tuple[Tensor, int]:
    """The gradient dense in its format, and the shuffle that is left to undo.

    Planes are read from where they are; channels that lie side by side are worth bringing back into order first.
    """
    if not channels_last:
        return grad.contiguous(), shuffle_groups
    if not 1 < shuffle_groups < grad.size(1):
        return grad.contiguous(memory_format=torch.channels_last), 1
    result = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    each = grad.size(1) // shuffle_groups
    pixels = result.permute(0, 2, 3, 1).unflatten(3, (shuffle_groups, each))
    pixels.copy_(grad.permute(0, 2, 3, 1).unflatten(3, (each, shuffle_groups)).transpose(3, 4))
    return result, 1


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


def _convolve(
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
) -> None:
    if out.numel() == 0:
        return
    last = suggest_memory_format(out) == torch.channels_last
    in_channels, out_channels = x.size(1), out.size(1)
    in_group, out_group = in_channels // groups, out_channels // groups
    shuffled_out = not transposed and 1 < shuffle_groups < out_channels
    interleaved = last and shuffled_out and shuffle_groups == groups <= MAX_TOGETHER
    point, images, in_size, out_size = _maps(x, out, window, padding, last)
    tile = grouped_tile(last, x.element_size(), in_group, out_group, groups, interleaved, point)
    in_block, out_block = tile.merged * in_group, tile.merged * out_group
    chunks = -(-in_block // tile.depth)
    strides = window[2:4] if transposed else (1, 1)
    rows, cols = (-(-n // s) for n, s in zip(out_size[:2], strides, strict=True))
    tiles = -(-(out_size[2] if point else rows * cols) // tile.positions)
    blocks = -(-groups // (tile.merged * tile.together))
    column_tiles = -(-out_block // tile.columns)
    in_unit, out_unit = gcd(in_block, in_channels, 16), gcd(out_block, out_channels, 16)
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
        in_group,
        out_group,
        in_block // in_unit,
        out_block // out_unit,
        in_channels // in_unit,
        out_channels // out_unit,
        shuffle_groups,
        *in_size,
        *out_size,
        rows,
        cols,
        *padding,
        WINDOW=tuple(window),
        TRANSPOSED=transposed,
        CHANNELS_LAST=last,
        SHUFFLED=shuffled_out or (transposed and 1 < shuffle_groups < in_channels),
        POINT=point,
        RELU=relu,
        MERGED=tile.merged,
        TOGETHER=tile.together,
        EVEN=in_block % tile.depth == 0 and groups % tile.merged == 0,
        IN_UNIT=in_unit,
        OUT_UNIT=out_unit,
        POSITIONS=tile.positions,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        enable_fp_fusion=True,
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


def _grad_weight(
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
    taps = grouped_taps(tile, window[0] * window[1], window[1])
    in_block, out_block = tile.merged * in_group, tile.merged * out_group
    blocks, column_tiles, depth_tiles = (
        -(-n // size) for n, size in ((groups, tile.merged), (out_block, tile.columns), (in_block, tile.depth))
    )
    tiles = -(-out_size[2] // tile.positions)
    programs = blocks * column_tiles * depth_tiles * (window[0] * window[1] // taps)
    reduction = depthwise_reduction(images * tiles, programs)
    in_unit, out_unit = gcd(in_block, in_channels, 16), gcd(out_block, out_channels, 16)
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
        in_group,
        out_group,
        in_block // in_unit,
        out_block // out_unit,
        in_channels // in_unit,
        out_channels // out_unit,
        shuffle_groups,
        *in_size,
        out_size[2],
        out_size[1],
        *padding,
        WINDOW=tuple(window),
        CHANNELS_LAST=channels_last,
        SHUFFLED=1 < shuffle_groups < out_channels,
        POINT=point,
        TAPS=taps,
        IN_UNIT=in_unit,
        OUT_UNIT=out_unit,
        POSITIONS=tile.positions,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        enable_fp_fusion=True,
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
