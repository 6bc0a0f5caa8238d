"""Twins of the standard modules whose forward runs ``fastcnn.ops``, with the same constructors and keys."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn import ops


class ChannelShuffle(nn.ChannelShuffle):
    """Takes the channels of all groups in turn, on :func:`fastcnn.ops.channel_shuffle`.

    Drop-in for :class:`torch.nn.ChannelShuffle`: any dtype, ``[N, C, *]``, channels_last kept. Deterministic. Source:
    Zhang et al., ShuffleNet, CVPR 2018, section 3.1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.channel_shuffle(input, self.groups)


class GroupedConv2dShuffle(nn.Conv2d):
    """A grouped convolution with its activation and channel shuffle, on :func:`fastcnn.ops.grouped_conv2d_shuffle`.

    Constructor and state-dict keys are those of :class:`torch.nn.Conv2d`, the constructor's with two keywords more.
    Deterministic. Source: Zhang et al., ShuffleNet, CVPR 2018, section 3.1.

    Args:
        shuffle_groups: groups of the shuffle, by default `groups`; 1 leaves the channels in order.
        activation: None or "relu", applied to the convolution's result.
    """

    def __init__(
        self, *args: Any, shuffle_groups: int | None = None, activation: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.shuffle_groups = shuffle_groups
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode), 0
        stride: Any = self.stride
        dilation: Any = self.dilation
        return ops.grouped_conv2d_shuffle(
            input,
            self.weight,
            self.bias,
            stride,
            padding,
            dilation,
            self.groups,
            self.shuffle_groups,
            self.activation,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shuffle_groups={self.shuffle_groups}, activation={self.activation}"


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
