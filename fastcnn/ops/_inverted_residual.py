"""1x1, depthwise and 1x1 convolution as one op, for inference: what lies between them stays in a CPU's cache.

The result is channels_last. Not public: :class:`fastcnn.nn.ConvSequence` calls it for convolutions that ``fuse()`` has
prepared. Source: Sandler et al., MobileNetV2, CVPR 2018, section 3.3; and section 5, on inference within little memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.ops import _library
from fastcnn.ops._convolutions import FUNCTIONS, conv2d_size

_PACKED = "Tensor? {0}, Tensor? {0}_packed, Tensor? {0}_bias, int {0}_activation"


def _reference(
    input: Tensor,
    expand: Tensor | None,
    expand_packed: Tensor | None,
    expand_bias: Tensor | None,
    expand_activation: int,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    activation: int,
    project: Tensor | None,
    project_packed: Tensor | None,
    project_bias: Tensor | None,
    project_activation: int,
    residual: Tensor | None,
) -> Tensor:
    out = input
    if expand is not None:
        out = FUNCTIONS[expand_activation](F.conv2d(out, expand, expand_bias))
    top, bottom, left, right = padding
    out = F.conv2d(F.pad(out, (left, right, top, bottom)), weight, bias, stride, groups=weight.size(0))
    out = FUNCTIONS[activation](out)
    if project is not None:
        out = F.conv2d(out, project, project_bias)
        out = FUNCTIONS[project_activation](out if residual is None else out + residual)
    return out.contiguous(memory_format=torch.channels_last)


def _fake(input, expand, _packed, _bias, _activation, weight, bias, stride, padding, activation, project, *_):
    images, channels, height, width = conv2d_size(input, weight, stride, padding, [1, 1])
    size = (images, channels if project is None else project.size(0), height, width)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


op = _library.define(
    f"inverted_residual(Tensor input, {_PACKED.format('expand')}, Tensor weight, Tensor? bias, int[2] stride, "
    f"SymInt[4] padding, int activation, {_PACKED.format('project')}, Tensor? residual) -> Tensor",
    reference=_reference,
    fake=_fake,
)
