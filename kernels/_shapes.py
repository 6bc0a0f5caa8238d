"""Sizes that a fake kernel and a launcher have to agree on. Needs no Triton."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def conv2d_size(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """``[N, C_out, H', W']`` of a convolution's result; `padding`: top, bottom, left, right.

    Sides are below 1 where the kernel is larger than the padded input.
    """
    images, _, height, width = input.shape
    filters, _, kernel_h, kernel_w = weight.shape
    top, bottom, left, right = padding
    return (
        images,
        filters,
        (height + top + bottom - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1,
        (width + left + right - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1,
    )
