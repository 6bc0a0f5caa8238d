"""RoI align over a feature pyramid, each box from the level of its size (FPN, Lin et al. 2017, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library, roi_align
from fastcnn.ops.boxes import bins_of, check_images, empty_maps, index_errors, is_channels_last, rois_of

_EPSILON = 1e-6  # torchvision's: a box of exactly a level's size must not fall below it by rounding.
_MAX_MAPS = 16  # Of the CUDA kernels, whose table of maps is an argument.


def multi_scale_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = -1,
    canonical_scale: float = 224,
    canonical_level: int = 4,
    aligned: bool = False,
) -> Tensor:
    """Pools every box by :func:`fastcnn.ops.roi_align` from one map, as :class:`torchvision.ops.MultiScaleRoIAlign`.

    The map is that of level ``floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6)`` (equation 1 of the
    paper), held between the levels of the first and the last scale, the level of a scale being ``-log2(scale)``. With
    one map all boxes are pooled from it. One op: no shape depends on which box goes where, and the CUDA kernels do not
    wait for the device (the reference, which runs where they are missing, does).

    Args:
        features: ``[N, C, Hi, Wi]`` maps from the finest to the coarsest, at most 16 on a GPU; float64, float32,
            bfloat16 or float16, those of another dtype than the first's are cast to it. If the first is channels_last,
            so are the result and all gradients.
        boxes: ``[K, 5]`` rows ``(batch index, x1, y1, x2, y2)``, or one ``[L, 4]`` tensor for each image; any
            floating-point dtype. Coordinates are taken in float32 (float64 for float64 features).
        output_size: bins ``(height, width)``, or one number for both.
        scales: one for each map; box coordinates times this are its pixels. Powers of 2, each half of the one before;
            a box whose level was left out gives zeros, as in torchvision, and so does one of negative or NaN area.
        sampling_ratio: samples per bin and axis; 0 or less takes ``ceil(box size / bins)``.
        canonical_scale: side of a box that belongs to `canonical_level`.
        canonical_level: 4 for a pyramid that counts levels as the paper does.
        aligned: shift by half a pixel, as for :func:`fastcnn.ops.roi_align`.

    Returns:
        ``[K, C, height, width]`` in the order of the boxes, of the dtype of the first map.

    Raises:
        ValueError: no maps, other than one scale for each, maps that differ in more than height and width, a wrong rank
            or width, an empty map, more than 16 maps on a GPU, a batch index outside the batch (CPU; the CUDA kernels,
            for which looking would mean waiting, give zeros for such a box), or two devices.
        TypeError: a tensor that is not floating-point, or an argument of the wrong type.

    Differentiable in all `features`, twice; boxes get no gradient. Every gradient is summed in a fixed order:
    deterministic. Under autocast the result keeps the dtype of the first map.
    """
    op = "multi_scale_roi_align"
    if not isinstance(features, (list, tuple)):
        raise TypeError(f"{op}: expected features to be a list of tensors, got {type(features).__name__}")
    if not features or len(scales) != len(features):
        raise ValueError(f"{op}: expected a scale for each feature map, got {len(scales)} for {len(features)}")
    for i, x in enumerate(features):
        _checks.floating(op, **{f"features[{i}]": x})
        if x.dim() != 4 or x.shape[:2] != features[0].shape[:2]:
            raise ValueError(
                f"{op}: expected features [N, C, H, W] of one N and C, got shapes {[tuple(x.shape) for x in features]}"
            )
        if x.device != features[0].device:
            _checks.same_device(op, **{"features[0]": features[0], f"features[{i}]": x})
    if features[0].device.type == "cuda" and len(features) > _MAX_MAPS:
        raise ValueError(f"{op}: expected at most {_MAX_MAPS} feature maps on a GPU, got {len(features)}")
    _checks.number(op, canonical_scale=canonical_scale, **{f"scales[{i}]": s for i, s in enumerate(scales)})
    _checks.integer(op, sampling_ratio=sampling_ratio, canonical_level=canonical_level)
    scales = [float(scale) for scale in scales]
    if min(scales) <= 0:
        raise ValueError(f"{op}: expected positive scales, got {scales}")
    if sampling_ratio > roi_align.MAX_GRID:
        raise ValueError(f"{op}: expected a sampling_ratio of at most 2**20, got {sampling_ratio}")
    if not isinstance(aligned, bool):
        raise TypeError(f"{op}: expected aligned to be a bool, got {type(aligned).__name__} {aligned!r}")
    bins = bins_of(op, output_size)
    rois = rois_of(op, boxes, features[0])
    if rois.size(0) and not all(x.size(2) and x.size(3) for x in features):
        raise ValueError(f"{op}: expected maps with pixels, got shapes {[tuple(x.shape) for x in features]}")
    maps = [x if x.dtype == features[0].dtype else x.to(features[0].dtype) for x in features]
    levels = levels_of(rois, scales, float(canonical_scale), canonical_level)
    with index_errors(op):
        return _library.call(_op, maps, rois, levels, scales, *bins, max(int(sampling_ratio), -1), aligned)


def levels_of(rois: Tensor, scales: Sequence[float], canonical_scale: float, canonical_level: int) -> Tensor:
    """For each row of `rois` the number of its scale: int64, -1 for an area that is negative or NaN."""
    if len(scales) == 1:
        return rois.new_zeros(rois.size(0), dtype=torch.int64)
    wide = rois.detach().to(torch.float64 if rois.dtype == torch.float64 else torch.float32)
    area = (wide[:, 3] - wide[:, 1]) * (wide[:, 4] - wide[:, 2])
    # Rounded step by step as torchvision does it.
    level = (canonical_level + (area.sqrt() / canonical_scale).log2() + _EPSILON).floor()
    first, last = (int(-math.log2(scales[i])) for i in (0, -1))
    return (level.clamp(first, last) - first).nan_to_num(nan=-1).long()


def _reference(features, rois, levels, scales, pooled_height, pooled_width, sampling_ratio, aligned):
    check_images("multi_scale_roi_align", rois, features[0].size(0))
    size = (pooled_height, pooled_width)
    pooled, order = [], []
    for i, (x, scale) in enumerate(zip(features, scales, strict=True)):
        order.append((levels == i).nonzero()[:, 0])
        pooled.append(roi_align.roi_align(x, rois[order[-1]], size, scale, sampling_ratio, aligned))
    order.append(((levels < 0) | (levels >= len(scales))).nonzero()[:, 0])
    pooled.append(pooled[0].new_zeros(order[-1].size(0), *pooled[0].shape[1:]))
    result = torch.cat(pooled)[torch.cat(order).argsort()]
    return empty_maps(result.shape, result, True).copy_(result) if is_channels_last(features[0]) else result


def _reference_backward(grad, rois, levels, scales, sampling_ratio, aligned, sizes, channels_last):
    grads = []
    for i, scale in enumerate(scales):
        of_level = (levels == i).nonzero()[:, 0]
        size = [*sizes[:2], *sizes[2 + 2 * i : 4 + 2 * i]]
        args = (grad[of_level], rois[of_level], scale, sampling_ratio, aligned, size, channels_last)
        grads.append(_library.call(roi_align._backward_op, *args))
    return grads


def _fake(features, rois, levels, scales, pooled_height, pooled_width, sampling_ratio, aligned):
    shape = (rois.size(0), features[0].size(1), pooled_height, pooled_width)
    return empty_maps(shape, features[0], is_channels_last(features[0]))


def _fake_backward(grad, rois, levels, scales, sampling_ratio, aligned, sizes, channels_last):
    maps = [sizes[2 + 2 * i : 4 + 2 * i] for i in range(len(scales))]
    return [empty_maps((*sizes[:2], *size), grad, channels_last) for size in maps]


_op = _library.define(
    "multi_scale_roi_align(Tensor[] features, Tensor rois, Tensor levels, float[] scales, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda features, rois, levels, scales, height, width, ratio, aligned, *, out_shape=None, **_: (
        8 * rois[0] * features[0][1] * height * width * max(ratio, 1) ** 2
    ),
)
_backward_op = _library.define(
    "multi_scale_roi_align_backward(Tensor grad, Tensor rois, Tensor levels, float[] scales, int sampling_ratio, "
    "bool aligned, SymInt[] sizes, bool channels_last) -> Tensor[]",
    reference=_reference_backward,
    fake=_fake_backward,
    cuda=True,
)


def _setup_context(ctx, inputs, output):
    features, rois, levels, scales, _, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, levels)
    sizes = [*features[0].shape[:2], *(n for x in features for n in x.shape[2:])]
    ctx.args = (scales, sampling_ratio, aligned, sizes, is_channels_last(features[0]))


def _backward(ctx, grad):
    grads = _library.call_backward(_backward_op, grad, *ctx.saved_tensors, *ctx.args)
    return grads, None, None, None, None, None, None, None


def _setup_backward_context(ctx, inputs, output):
    grad, rois, levels, scales, sampling_ratio, aligned, _, _ = inputs
    ctx.save_for_backward(rois, levels)
    ctx.args = (scales, grad.size(2), grad.size(3), sampling_ratio, aligned)


def _double_backward(ctx, grads):
    # RoI align is linear in its maps, so the adjoint of the adjoint is the op itself.
    rois, levels = ctx.saved_tensors
    scales, *args = ctx.args
    grad = _library.call_backward(_op, grads, rois, levels, scales, *args)
    return grad, None, None, None, None, None, None, None


_library.autograd(_op, _backward, _setup_context)
_library.autograd(_backward_op, _double_backward, _setup_backward_context)
