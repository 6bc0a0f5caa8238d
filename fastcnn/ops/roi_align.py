"""RoI align: bilinear samples of a map, averaged over the bins of a box (Mask R-CNN, He et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library
from fastcnn.ops.boxes import MAX_GRID, bins_of, check_images, empty_maps, index_errors, is_channels_last, rois_of


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pools a fixed-size grid from every box, as :func:`torchvision.ops.roi_align`.

    Args:
        input: ``[N, C, H, W]`` features; float64, float32, bfloat16 or float16, summed in float32 (float64 for
            float64). channels_last is pooled as it lies and gives a channels_last result.
        boxes: ``[K, 5]`` rows ``(batch index, x1, y1, x2, y2)``, or one ``[L, 4]`` tensor for each image; any
            floating-point dtype. Coordinates are taken in float32 (float64 for float64 features).
        output_size: bins ``(height, width)``, or one number for both.
        spatial_scale: box coordinates times this are pixels of `input`.
        sampling_ratio: samples per bin and axis; 0 or less takes ``ceil(box size / bins)``.
        aligned: shift by half a pixel, so that pixel centres lie at whole coordinates (Detectron2's convention).

    Returns:
        ``[K, C, height, width]`` of the dtype of `input`.

    Raises:
        ValueError: a wrong rank or width, an empty map, a batch index outside the batch (CPU; on a GPU, where looking
            would mean waiting, such a box gives zeros), or two devices.
        TypeError: a tensor that is not floating-point, or an argument of the wrong type.

    Samples further than one pixel outside the map are 0. Differentiable in `input`, twice; boxes get no gradient. Every
    gradient is summed in a fixed order: deterministic, at no cost in memory. Under autocast the result keeps the dtype
    of `input`.
    """
    _checks.floating("roi_align", input=input)
    if input.dim() != 4:
        raise ValueError(f"roi_align: expected input with 4 dimensions, got shape {tuple(input.shape)}")
    if type(spatial_scale) is not float:
        _checks.number("roi_align", spatial_scale=spatial_scale)
    if type(sampling_ratio) is not int:
        _checks.integer("roi_align", sampling_ratio=sampling_ratio)
        sampling_ratio = int(sampling_ratio)
    if sampling_ratio > MAX_GRID:
        raise ValueError(f"roi_align: expected a sampling_ratio of at most 2**20, got {sampling_ratio}")
    if not isinstance(aligned, bool):
        raise TypeError(f"roi_align: expected aligned to be a bool, got {type(aligned).__name__} {aligned!r}")
    height, width = bins_of("roi_align", output_size)
    rois = rois_of("roi_align", boxes, input)
    if rois.size(0) and not (input.size(2) and input.size(3)):
        raise ValueError(f"roi_align: expected a feature map with pixels, got shape {tuple(input.shape)}")
    args = (input, rois, float(spatial_scale), height, width, max(sampling_ratio, -1), aligned)
    with index_errors("roi_align"):
        return _library.call(_op, *args)


@dataclass
class _Axis:
    """One axis of one RoI: of every sample on the map its bin, the two pixels it reads and their weights."""

    bins: Tensor
    low: Tensor
    high: Tensor
    w_low: Tensor
    w_high: Tensor
    grid: int

    def contract(self, x: Tensor, dim: int, bins: int) -> Tensor:
        """`x` with the pixels of `dim` summed into bins. Pixels no sample reads are not multiplied by anything."""
        shape = [-1 if d == dim else 1 for d in range(x.dim())]
        samples = x.index_select(dim, self.low) * self.w_low.view(shape)
        samples = samples + x.index_select(dim, self.high) * self.w_high.view(shape)
        out = x.new_zeros([bins if d == dim else n for d, n in enumerate(x.shape)])
        return out.index_add(dim, self.bins, samples)

    def spread(self, g: Tensor, dim: int, size: int) -> Tensor:
        """The adjoint of :meth:`contract`."""
        shape = [-1 if d == dim else 1 for d in range(g.dim())]
        samples = g.index_select(dim, self.bins)
        out = g.new_zeros([size if d == dim else n for d, n in enumerate(g.shape)])
        out = out.index_add(dim, self.low, samples * self.w_low.view(shape))
        return out.index_add(dim, self.high, samples * self.w_high.view(shape))


def _axis(begin: Tensor, end: Tensor, bins: int, size: int, scale: float, ratio: int, aligned: bool) -> _Axis:
    offset = 0.5 if aligned else 0.0
    start = begin * scale - offset
    length = (end * scale - offset) - start
    if not aligned and length < 1:
        length = torch.ones_like(length)
    step = length / bins
    grid = ratio if ratio > 0 else int(step.ceil()) if 0 < step <= MAX_GRID else 0
    bin_of = torch.arange(bins, device=begin.device).repeat_interleave(grid)
    sample = torch.arange(grid, device=begin.device, dtype=begin.dtype).repeat(bins)
    at = start + bin_of.to(begin.dtype) * step + (sample + 0.5) * step / max(grid, 1)
    inside = (at >= -1) & (at <= size)
    bin_of, at = bin_of[inside], at[inside].clamp(min=0)
    low = at.floor().clamp(max=size - 1)
    w_high = torch.where(low >= size - 1, 0, at - low)
    return _Axis(bin_of, low.long(), (low.long() + 1).clamp(max=size - 1), 1 - w_high, w_high, grid)


def _rois(rois: Tensor, like: Tensor, height: int, width: int, args: tuple) -> Iterator[tuple[int, _Axis, _Axis, int]]:
    """Of every RoI the image, both axes and the number of samples in a bin."""
    scale, bins_y, bins_x, *rest = args
    for roi in rois.detach().to(torch.float64 if like.dtype == torch.float64 else torch.float32):
        batch, x1, y1, x2, y2 = roi
        y = _axis(y1, y2, bins_y, height, scale, *rest)
        x = _axis(x1, x2, bins_x, width, scale, *rest)
        yield int(batch), y, x, max(y.grid * x.grid, 1)


def _reference(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
    images, channels, height, width = input.shape
    args = (spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)
    check_images("roi_align", rois, images)
    wide = input if input.dtype == torch.float64 else input.float()
    pooled = [wide.sum().expand(0, channels, pooled_height, pooled_width)]
    for image, y, x, count in _rois(rois, input, height, width, args):
        pooled.append(x.contract(y.contract(wide[image], 1, pooled_height), 2, pooled_width)[None] / count)
    result = empty_maps((rois.size(0), channels, pooled_height, pooled_width), input, is_channels_last(input))
    return result.copy_(torch.cat(pooled))


def _reference_backward(grad, rois, spatial_scale, sampling_ratio, aligned, input_size, channels_last):
    _, _, height, width = input_size
    args = (spatial_scale, grad.size(2), grad.size(3), sampling_ratio, aligned)
    wide = grad if grad.dtype == torch.float64 else grad.float()
    total = wide.new_zeros(input_size)
    for k, (image, y, x, count) in enumerate(_rois(rois, grad, height, width, args)):
        total[image] += y.spread(x.spread(wide[k], 2, width), 1, height) / count
    return empty_maps(input_size, grad, channels_last).copy_(total)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
    shape = (rois.size(0), input.size(1), pooled_height, pooled_width)
    return empty_maps(shape, input, is_channels_last(input))


def _fake_backward(grad, rois, spatial_scale, sampling_ratio, aligned, input_size, channels_last):
    return empty_maps(input_size, grad, channels_last)


_op = _library.define(
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda input, rois, scale, height, width, ratio, aligned, *, out_shape=None, **_: (
        8 * rois[0] * input[1] * height * width * max(ratio, 1) ** 2
    ),
)
_backward_op = _library.define(
    "roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int sampling_ratio, bool aligned, "
    "SymInt[] input_size, bool channels_last) -> Tensor",
    reference=_reference_backward,
    fake=_fake_backward,
    cuda=True,
)


def _setup_context(ctx, inputs, output):
    input, rois, spatial_scale, _, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois)
    ctx.args = (spatial_scale, sampling_ratio, aligned, input.shape, is_channels_last(input))


def _backward(ctx, grad):
    (rois,) = ctx.saved_tensors
    return _library.call_backward(_backward_op, grad, rois, *ctx.args), None, None, None, None, None, None


def _setup_backward_context(ctx, inputs, output):
    grad, rois, spatial_scale, sampling_ratio, aligned, _, _ = inputs
    ctx.save_for_backward(rois)
    ctx.args = (spatial_scale, grad.size(2), grad.size(3), sampling_ratio, aligned)


def _double_backward(ctx, grad):
    # RoI align is linear in its input, so the adjoint of the adjoint is the op itself.
    (rois,) = ctx.saved_tensors
    return _library.call_backward(_op, grad, rois, *ctx.args), None, None, None, None, None, None


_library.autograd(_op, _backward, _setup_context)
_library.autograd(_backward_op, _double_backward, _setup_backward_context)
