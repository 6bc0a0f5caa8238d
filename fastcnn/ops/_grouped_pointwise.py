"""A grouped 1x1 convolution on turned weights, with a residual or a channel shuffle: for inference, channels_last.

Float32 on a CPU. Not public: :class:`fastcnn.nn.grouped.FusedGroupedConv2d` calls it. Source: Zhang et al., ShuffleNet,
CVPR 2018, section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.ops import _library
from fastcnn.ops._convolutions import FUNCTIONS
from fastcnn.ops.channel_shuffle import shuffled


def turn(weight: Tensor, groups: int) -> Tensor:
    """The weights ``[out, C, 1, 1]`` as the kernel reads them: ``[groups, C, out / groups]``."""
    return weight.reshape(groups, -1, weight.size(1)).transpose(1, 2).contiguous()


def _reference(input, weight, turned, bias, groups, shuffle_groups, activation, residual):
    result = F.conv2d(input, weight, bias, groups=groups)
    result = FUNCTIONS[activation](result if residual is None else result + residual)
    return shuffled(result, shuffle_groups).contiguous(memory_format=torch.channels_last)


def _fake(input, weight, turned, bias, groups, shuffle_groups, activation, residual):
    size = input.size(0), weight.size(0), input.size(2), input.size(3)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


op = _library.define(
    "grouped_pointwise(Tensor input, Tensor weight, Tensor turned, Tensor? bias, int groups, int shuffle_groups, "
    "int activation, Tensor? residual) -> Tensor",
    reference=_reference,
    fake=_fake,
    flops=lambda input, weight, *_, out_shape=None, **__: (
        2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1]
    ),
)
