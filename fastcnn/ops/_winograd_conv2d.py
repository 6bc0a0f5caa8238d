"""3x3 convolution by Winograd's algorithm, bias, residual and activation, for inference: channels_last, on a CPU.

In float32, with 16 products for 36, and no more lost to rounding than otherwise, as sums are a ninth as long. A number
that is not finite makes NaN of all results of its tiles, two pixels away at most. Not public:
:class:`fastcnn.nn.FusedConv2d` calls it.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1, F(2x2, 3x3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _library
from fastcnn.ops._dense_conv2d import _fake as _dense_fake
from fastcnn.ops._dense_conv2d import _reference as _dense_reference
from fastcnn.ops.pointwise_conv2d import pack


def pack_tiles(weight: Tensor) -> Tensor:
    """The weights ``[out, C, 3, 3]`` as the kernel reads them: 16 times those of a 1x1 convolution, ``G g G'``."""
    rows = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]]
    turned = torch.tensor(rows, dtype=torch.float64, device=weight.device)
    tiles = (turned @ weight.double() @ turned.T).to(weight.dtype).flatten(2).permute(2, 0, 1)
    return torch.cat([pack(tile[:, :, None, None]) for tile in tiles])


def _reference(input, weight, packed, bias, padding, activation, residual, slope=0.0):
    return _dense_reference(input, weight, packed, bias, [1, 1], padding, activation, residual, slope)


def _fake(input, weight, packed, bias, padding, activation, residual, slope=0.0):
    return _dense_fake(input, weight, packed, bias, [1, 1], padding, activation, residual)


op = _library.define(
    "winograd_conv2d(Tensor input, Tensor weight, Tensor packed, Tensor? bias, SymInt[2] padding, int activation, "
    "Tensor? residual, float slope=0.0) -> Tensor",
    reference=_reference,
    fake=_fake,
    flops=lambda input, weight, *_, out_shape=None, **__: (
        2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1] * weight[2] * weight[3]
    ),
)
