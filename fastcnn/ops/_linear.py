"""A linear layer for few inputs on weights that :func:`fastcnn.ops.pointwise_conv2d.pack` has packed, for inference.

``[N, C]`` and weight ``[out, C]`` to ``[N, out]``. Not public: :class:`fastcnn.nn.fused.FusedLinear` calls it.
"""

import torch.nn.functional as F

from fastcnn.ops import _library

op = _library.define(
    "linear(Tensor input, Tensor weight, Tensor packed, Tensor? bias) -> Tensor",
    reference=lambda input, weight, packed, bias: F.linear(input, weight, bias),
    fake=lambda input, weight, packed, bias: input.new_empty((input.size(0), weight.size(0))),
    flops=lambda input, weight, *_, **__: 2 * input[0] * weight[0] * weight[1],
)
