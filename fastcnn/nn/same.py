"""TensorFlow's "SAME" padding: with a stride of 2 it depends on the input's size."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.nn.blocks import Size, _pair, conv2d
from fastcnn.nn.layers import DepthwiseConv2d


def same_padding(input: Tensor, kernel_size: Size, stride: Size) -> tuple[int, int, int, int]:
    """What :func:`pad_same` puts above, below, left and right of (..., H, W)."""
    pads: list[int] = []
    for kernel, step, side in zip(_pair(kernel_size), _pair(stride), input.shape[-2:], strict=True):
        total = kernel - step + side % step if kernel >= step else 0
        pads += [total // 2, total - total // 2]
    top, bottom, left, right = pads
    return top, bottom, left, right


def pad_same(input: Tensor, kernel_size: Size, stride: Size, value: float = 0.0) -> Tensor:
    """Pads (..., H, W) as TensorFlow's "SAME": the output has ceil(H / stride) rows, an odd pixel goes to the end.

    For strides 1 and 2. A kernel smaller than its stride needs none.
    """
    top, bottom, left, right = same_padding(input, kernel_size, stride)
    return F.pad(input, (left, right, top, bottom), value=value)


class SamePool2d(nn.Module):
    """Max or average pooling with :func:`pad_same`: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    Args:
        average: of the window, else its maximum.
        count_zeros: whether padding counts as zeros in an average; TensorFlow's does not.
    """

    def __init__(self, kernel_size: int, stride: int, *, average: bool, count_zeros: bool = False) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.average, self.count_zeros = average, count_zeros

    def forward(self, input: Tensor) -> Tensor:
        sizes = self.kernel_size, self.stride
        if not self.average:
            return F.max_pool2d(pad_same(input, *sizes, value=float("-inf")), *sizes)
        padded = pad_same(input, *sizes)
        if self.count_zeros:
            return F.avg_pool2d(padded, *sizes)
        pixels = pad_same(input.new_ones(1, 1, *input.shape[2:]), *sizes)
        return F.avg_pool2d(padded, *sizes, divisor_override=1) / F.avg_pool2d(pixels, *sizes, divisor_override=1)

    def extra_repr(self) -> str:
        count = f", count_zeros={self.count_zeros}" if self.average else ""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, average={self.average}{count}"


def conv2d_same(
    in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, dilation: int = 1, **options: Any
) -> nn.Conv2d:
    """A :func:`fastcnn.nn.conv2d` without bias that :func:`run_same` runs; by itself it pads at stride 1 only."""
    strided = _pair(stride) != (1, 1)
    padding = tuple(0 if strided else dilation * (side - 1) // 2 for side in _pair(kernel_size))
    options |= {"padding": padding, "dilation": dilation, "bias": False}
    return conv2d(in_channels, out_channels, kernel_size, stride, **options)


def run_same(conv: nn.Conv2d, input: Tensor) -> Tensor:
    """The convolution with "SAME" padding: (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).

    A depthwise one pads within its kernel.
    """
    if conv.stride == (1, 1) or conv.kernel_size == (1, 1):
        return conv(input)
    height, width = (step * (side - 1) + 1 for side, step in zip(conv.kernel_size, conv.dilation, strict=True))
    stride: Any = conv.stride
    if isinstance(conv, DepthwiseConv2d):
        return conv(input, same_padding(input, (height, width), stride))
    return conv(pad_same(input, (height, width), stride))
