"""The mean of every channel over all pixels, ``[N, C, H, W]`` to ``[N, C, 1, 1]``, for inference in float32 on a CPU.

Not public: :class:`fastcnn.nn.fused.FusedMean2d` calls it. Sums are in an order that depends on the shape and the
layout: deterministic, whatever the number of threads.
"""

from fastcnn.ops import _library

op = _library.define(
    "channel_means(Tensor input) -> Tensor",
    reference=lambda input: input.mean((2, 3), keepdim=True).contiguous(),
    fake=lambda input: input.new_empty((input.size(0), input.size(1), 1, 1)),
)
