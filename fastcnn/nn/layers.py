"""Twins of the standard modules whose forward runs ``fastcnn.ops``, with the same constructors and keys."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn import ops


class DepthwiseConv2d(nn.Conv2d):
    """One group a channel of :class:`torch.nn.Conv2d`, with its constructor and keys.

    ``forward(input)``: (N, C, H, W) or (C, H, W) to as many images of ``out_channels``, a multiple of C. Errors,
    dtypes, layouts and determinism are those of :func:`fastcnn.ops.depthwise_conv2d`. Source: Howard et al.,
    MobileNets, 2017, section 3.1.

    Args:
        groups: ``in_channels``, which is what None means.
        activation: None, "relu", "relu6", "hardswish" or "silu", applied to the result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
    ) -> None:
        if groups not in (None, in_channels):
            raise ValueError(f"DepthwiseConv2d: expected groups to be in_channels = {in_channels}, got {groups}")
        if activation not in (None, "relu", "relu6", "hardswish", "silu"):
            raise ValueError(f"DepthwiseConv2d: no such activation: {activation!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            in_channels,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        return ops.depthwise_conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.activation)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


class Hardswish(nn.Hardswish):
    """``x * relu6(x + 3) / 6``, elementwise, on :func:`fastcnn.ops.hardswish`.

    Drop-in for :class:`torch.nn.Hardswish`: any shape, floating dtype and memory format, all of them kept.
    Deterministic. Source: Howard et al., Searching for MobileNetV3, ICCV 2019, section 5.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.hardswish(input, self.inplace)


class RoIAlign(nn.Module):
    """Region-of-interest align on :func:`fastcnn.ops.roi_align`, with torchvision.ops.RoIAlign's constructor.

    ``forward(input, rois)``: ``input`` is (N, C, H, W); ``rois`` is (K, 5) rows of (batch index, x1, y1, x2,
    y2) or a list of N tensors (L, 4), in input-image coordinates; the result is (K, C, output height, output
    width). Errors and determinism are those of the op. Source: He et al., Mask R-CNN, ICCV 2017, section 3.

    Args:
        output_size: side, or (height, width), of the output in bins.
        spatial_scale: feature-map pixels per box-coordinate unit, e.g. 1/16 for a map of stride 16.
        sampling_ratio: samples per bin and axis; 0 or less means ``ceil(RoI side / output side)``.
        aligned: shift box coordinates by half a pixel, so that pixel centres line up.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        return ops.roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
