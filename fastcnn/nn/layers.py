"""Twins of the standard modules whose forward runs ``fastcnn.ops``, with the same constructors and keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn import ops


class BatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` with the activation that follows it, on :func:`fastcnn.ops.batch_norm`.

    Constructor, with one keyword more, keys and running statistics are those of the twin: (N, C, H, W), channels_last
    kept. Errors, dtypes and determinism are those of the op. Source: Ioffe and Szegedy, Batch Normalization, ICML 2015.

    Args:
        activation: None, "relu", "relu6", "hardswish" or "silu", applied to the result.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        if activation not in (None, "relu", "relu6", "hardswish", "silu"):
            raise ValueError(f"BatchNorm2d: no such activation: {activation!r}")
        super().__init__(*args, **kwargs)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        return normalize(self, input, self.activation)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


def normalize(norm: nn.BatchNorm2d, input: Tensor, activation: str | None) -> Tensor:
    """What :class:`torch.nn.BatchNorm2d` does, and then the activation, on :func:`fastcnn.ops.batch_norm`."""
    norm._check_input_dim(input)
    mean, variance, momentum, training = norm.running_mean, norm.running_var, norm.momentum, norm.training
    if training and not norm.track_running_stats:
        mean = variance = None
    elif training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # The average of all batches.
            momentum = 1.0 / float(norm.num_batches_tracked)
    batch = training or (mean is None and variance is None)
    return ops.batch_norm(
        input,
        mean,
        variance,
        norm.weight,
        norm.bias,
        batch,
        0.0 if momentum is None else momentum,
        norm.eps,
        activation,
    )


class ChannelShuffle(nn.ChannelShuffle):
    """Takes the channels of all groups in turn, on :func:`fastcnn.ops.channel_shuffle`.

    Drop-in for :class:`torch.nn.ChannelShuffle`: any dtype, ``[N, C, *]``, channels_last kept. Deterministic. Source:
    Zhang et al., ShuffleNet, CVPR 2018, section 3.1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.channel_shuffle(input, self.groups)


class DepthwiseConv2d(nn.Conv2d):
    """One group a channel of :class:`torch.nn.Conv2d`, with its constructor and keys.

    ``forward(input, padding=None)``: (N, C, H, W) or (C, H, W) to as many images of ``out_channels``, a multiple of C;
    a `padding` of four numbers, (above, below, left, right), is in place of the layer's. Errors,
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

    def forward(self, input: Tensor, padding: Any = None) -> Tensor:
        if padding is None:
            padding = self.padding
            if self.padding_mode != "zeros":
                input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        return ops.depthwise_conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.activation)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


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


class Hardsigmoid(nn.Hardsigmoid):
    """``relu6(x + 3) / 6``, elementwise, on :func:`fastcnn.ops.hardsigmoid`.

    Drop-in for :class:`torch.nn.Hardsigmoid`: any shape, floating dtype and memory format, all of them kept.
    Deterministic. Source: Howard et al., Searching for MobileNetV3, ICCV 2019, section 5.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.hardsigmoid(input, self.inplace)


class Hardswish(nn.Hardswish):
    """``x * relu6(x + 3) / 6``, elementwise, on :func:`fastcnn.ops.hardswish`.

    Drop-in for :class:`torch.nn.Hardswish`: any shape, floating dtype and memory format, all of them kept.
    Deterministic. Source: Howard et al., Searching for MobileNetV3, ICCV 2019, section 5.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.hardswish(input, self.inplace)


class LocalResponseNorm(nn.LocalResponseNorm):
    """Divides by a power of neighbouring channels' mean square, on :func:`fastcnn.ops.local_response_norm`.

    Drop-in for :class:`torch.nn.LocalResponseNorm`: (N, C, ...) of any floating dtype, channels_last kept. Errors and
    determinism are those of the op. Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
    Networks, NIPS 2012, section 3.3.
    """

    def forward(self, input: Tensor) -> Tensor:
        return ops.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class MultiScaleRoIAlign(nn.Module):
    """RoI align over a pyramid on :func:`fastcnn.ops.multi_scale_roi_align`, with torchvision's constructor.

    ``forward(x, boxes, image_shapes)``: ``x`` is a dict of (N, C, Hi, Wi) maps, from the finest to the coarsest, of
    which those named count; ``boxes`` one tensor (L, 4) for each image, in input-image coordinates; ``image_shapes``
    the (height, width) of every image. The scale of a map is the power of 2 nearest to its height over that of the
    tallest image, worked out at every call, where torchvision keeps those of the first. The result is (K, C, output
    height, output width). Errors and determinism are those of the op. Source: Lin et al., Feature Pyramid Networks,
    CVPR 2017, section 4.2.

    Args:
        featmap_names: of the maps to pool from.
        output_size: side, or (height, width), of the output in bins.
        sampling_ratio: samples per bin and axis; 0 or less means ``ceil(RoI side / output side)``.
        canonical_scale: side of a box that belongs to `canonical_level`.
        canonical_level: the level, counted as ``-log2(scale)``.
    """

    def __init__(
        self,
        featmap_names: list[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names = featmap_names
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        maps = [value for name, value in x.items() if name in self.featmap_names]
        if not image_shapes:
            raise ValueError("MultiScaleRoIAlign: expected image_shapes of one image or more, got none")
        tallest = max(shape[0] for shape in image_shapes)
        scales = [2.0 ** round(math.log2(m.size(2) / tallest)) for m in maps]
        return ops.multi_scale_roi_align(
            maps,
            boxes,
            self.output_size,  # type: ignore[arg-type]
            scales,
            self.sampling_ratio,
            self.canonical_scale,
            self.canonical_level,
        )

    def extra_repr(self) -> str:
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, sampling_ratio={self.sampling_ratio}"
        )


class PointwiseConv2d(nn.Conv2d):
    """1x1 :class:`torch.nn.Conv2d` of one group on :func:`fastcnn.ops.pointwise_conv2d`, with its constructor and keys.

    (N, C, H, W) to (N, out_channels, H, W). Errors, dtypes, layouts and determinism are those of the op on a CPU, for
    channels_last; elsewhere, for single images (C, H, W) and under ``torch.compile``, which fuses what it sees, it is
    PyTorch's convolution. Source: Howard et al., MobileNets, 2017, section 3.1.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not input.is_cpu or input.dim() != 4 or input.is_contiguous():
            return super().forward(input)
        return ops.pointwise_conv2d(input, self.weight, self.bias)


class ReLU6(nn.ReLU6):
    """``min(max(x, 0), 6)``, elementwise: :class:`torch.nn.ReLU6`, which with ``inplace`` copies its input first where
    a gradient will be wanted. Here that writes a new tensor, and ``inplace`` is for the rest.

    Any shape, dtype and memory format, all kept. Deterministic.
    """

    def forward(self, input: Tensor) -> Tensor:
        copies = torch.is_grad_enabled() and input.requires_grad
        return F.relu6(input, self.inplace and not copies)


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


class RoIPool(nn.Module):
    """Region-of-interest max pooling on :func:`fastcnn.ops.roi_pool`, with torchvision.ops.RoIPool's constructor.

    ``forward(input, rois)`` is that of :class:`RoIAlign`. Errors and determinism are those of the op. Source: Girshick,
    Fast R-CNN, ICCV 2015, section 2.1.

    Args:
        output_size: side, or (height, width), of the output in bins.
        spatial_scale: feature-map pixels per box-coordinate unit, e.g. 1/16 for a map of stride 16.
    """

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        return ops.roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class SigmoidFocalLoss(nn.Module):
    """Focal loss of independent classes on :func:`fastcnn.ops.sigmoid_focal_loss`, whose arguments and errors it has.

    ``forward(inputs, targets)``: logits of any shape, and probabilities of the same shape or, for logits (..., K),
    class indices (...) with -1 for background. Deterministic. Source: Lin et al., Focal Loss for Dense Object
    Detection, ICCV 2017, section 3.

    Args:
        alpha: weight of the foreground, in [0, 1]; -1 leaves out the weights.
        gamma: exponent of the factor that takes easy examples out.
        reduction: "none", "mean" or "sum".
        ignore_index: class index of rows that do not count.
    """

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none", ignore_index: int = -100
    ) -> None:
        super().__init__()
        _check_reduction("SigmoidFocalLoss", reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction
        self.ignore_index = ignore_index

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return ops.sigmoid_focal_loss(inputs, targets, self.alpha, self.gamma, self.reduction, self.ignore_index)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


class SoftmaxFocalLoss(nn.Module):
    """Focal loss of exclusive classes on :func:`fastcnn.ops.softmax_focal_loss`, whose arguments and errors it has.

    ``forward(inputs, targets)``: logits (N, C, ...) and class indices (N, ...). Deterministic. Source: Lin et al.,
    Focal Loss for Dense Object Detection, ICCV 2017, section 3.

    Args:
        alpha: weight (C) of each class, kept as a buffer that moves with the module and is not in its state dict; a
            number for all classes; or None.
        gamma: exponent of the factor that takes easy examples out.
        reduction: "none", "mean" or "sum".
        ignore_index: target that does not count.
    """

    def __init__(
        self,
        alpha: float | Tensor | None = None,
        gamma: float = 2.0,
        reduction: str = "none",
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        _check_reduction("SoftmaxFocalLoss", reduction)
        self.alpha: float | Tensor | None
        if isinstance(alpha, Tensor):
            self.register_buffer("alpha", alpha, persistent=False)
        else:
            self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction
        self.ignore_index = ignore_index

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return ops.softmax_focal_loss(inputs, targets, self.alpha, self.gamma, self.reduction, self.ignore_index)

    def extra_repr(self) -> str:
        alpha = f"[{self.alpha.numel()}]" if isinstance(self.alpha, Tensor) else self.alpha
        return f"alpha={alpha}, gamma={self.gamma}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


def _check_reduction(module: str, reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{module}: expected reduction 'none', 'mean' or 'sum', got {reduction!r}")
