"""Sizes that a fake kernel and a launcher have to agree on. Needs no Triton."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def conv2d_size(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """``[N, C_out, H', W']`` of a convolution's result; `padding`: top, bottom, left, right."""
    sides = (
        (input.size(2 + i) + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (weight.size(2 + i) - 1) - 1)
        // stride[i]
        + 1
        for i in (0, 1)
    )
    return (input.size(0), weight.size(0), *sides)
