"""Dense convolution, bias, residual and activation for inference on packed weights: channels_last, float32, on a CPU.

The result is channels_last. Not public: :class:`fastcnn.nn.FusedConv2d` calls it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.ops import _library
from fastcnn.ops._convolutions import activate, conv2d_size
from fastcnn.ops.pointwise_conv2d import pack


def pack_taps(weight: Tensor) -> Tensor:
    """The weights ``[out, C, h, w]`` as the kernel reads them: those of a 1x1 convolution of h * w * C channels."""
    return pack(weight.permute(0, 2, 3, 1))


def _reference(input, weight, packed, bias, stride, padding, activation, residual, slope=0.0):
    result = F.conv2d(input, weight, bias, stride, padding)
    result = activate(activation, result if residual is None else result + residual, slope)
    return result.contiguous(memory_format=torch.channels_last)


def _fake(input, weight, packed, bias, stride, padding, activation, residual, slope=0.0):
    size = conv2d_size(input, weight, stride, [padding[0]] * 2 + [padding[1]] * 2, [1, 1])
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


def _reference_into(out, first, input, weight, packed, bias, stride, padding, activation, slope=0.0):
    result = activate(activation, F.conv2d(input, weight, bias, stride, padding), slope)
    out[:, first : first + weight.size(0)].copy_(result)


op = _library.define(
    "dense_conv2d(Tensor input, Tensor weight, Tensor packed, Tensor? bias, int[2] stride, SymInt[2] padding, "
    "int activation, Tensor? residual, float slope=0.0) -> Tensor",
    reference=_reference,
    fake=_fake,
    flops=lambda input, weight, *_, out_shape=None, **__: (
        2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1] * weight[2] * weight[3]
    ),
)
into = _library.define(
    "dense_conv2d_into(Tensor(a!) out, SymInt first, Tensor input, Tensor weight, Tensor packed, Tensor? bias, "
    "int[2] stride, SymInt[2] padding, int activation, float slope=0.0) -> ()",
    reference=_reference_into,
    fake=lambda *_: None,
)
