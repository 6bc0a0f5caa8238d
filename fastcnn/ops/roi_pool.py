"""RoI pooling: the maxima of a map over the bins of a box (Fast R-CNN, Girshick 2015, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library
from fastcnn.ops.boxes import bins_of, check_images, empty_maps, index_errors, is_channels_last, rois_of

_FAR = 1 << 26  # As kFar of the kernels: pixels this far outside any map stand for all beyond.
_LOWEST = torch.finfo(torch.float32).min
_CHUNK = 64  # Boxes that the reference pools together.


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Takes the maximum over every bin of a fixed-size grid in every box, as :func:`torchvision.ops.roi_pool`.

    Corners are rounded to whole pixels, half away from zero, and both belong to the box, which is never less than one
    pixel; bin i of n covers its pixels from ``floor(i * size / n)`` to ``ceil((i + 1) * size / n)``, of which those on
    the map count. A bin with none is 0. NaN is never a maximum, and a bin without a value above the lowest float32 is
    that number: both torchvision's. A box with NaN gives zeros.

    Args:
        input: ``[N, C, H, W]`` features; float64, float32, bfloat16 or float16. channels_last is pooled as it lies and
            gives a channels_last result.
        boxes: ``[K, 5]`` rows ``(batch index, x1, y1, x2, y2)``, or one ``[L, 4]`` tensor for each image; any
            floating-point dtype. Coordinates are taken in float32 (float64 for float64 features).
        output_size: bins ``(height, width)``, or one number for both.
        spatial_scale: box coordinates times this are pixels of `input`.

    Returns:
        ``[K, C, height, width]`` of the dtype of `input`.

    Raises:
        ValueError: a wrong rank or width, a batch index outside the batch (CPU; on a GPU, where looking would mean
            waiting, such a box gives zeros), or two devices.
        TypeError: a tensor that is not floating-point, or an argument of the wrong type.

    Differentiable in `input`: the first maximum of a bin, in the order of rows, gets its gradient; it is found again
    in the backward pass, so that nothing but `input` is kept. Gradients are summed in a fixed order: deterministic.
    Under autocast the result keeps the dtype of `input`.
    """
    _checks.floating("roi_pool", input=input)
    if input.dim() != 4:
        raise ValueError(f"roi_pool: expected input with 4 dimensions, got shape {tuple(input.shape)}")
    if type(spatial_scale) is not float:
        _checks.number("roi_pool", spatial_scale=spatial_scale)
    height, width = bins_of("roi_pool", output_size)
    rois = rois_of("roi_pool", boxes, input)
    with index_errors("roi_pool"):
        return _library.call(_op, input, rois, float(spatial_scale), height, width)


def bin_bounds(
    low: Tensor, high: Tensor, scale: float, bins: int, size: int, closed: bool = True
) -> tuple[Tensor, Tensor]:
    """``[K, bins]`` first pixels of the bins of one axis, and those after their last; `closed`: with `high` itself."""

    def rounded(x: Tensor) -> Tensor:
        whole = x.trunc()
        return (whole + x.sign() * ((x - whole).abs() >= 0.5)).clamp(-_FAR, _FAR)

    start, end = rounded(low * scale)[:, None], rounded(high * scale)[:, None]
    step = (end - start + int(closed)).clamp(min=1) / bins
    i = torch.arange(bins, dtype=low.dtype, device=low.device)
    edges = (start.double() + (i * step).floor(), start.double() + ((i + 1) * step).ceil())
    first, after = (edge.clamp(0, size).nan_to_num(0).long() for edge in edges)
    return first, after


def _places(pixels: Tensor, rois: Tensor, spatial_scale: float, bins: Sequence[int], size: torch.Size) -> Tensor:
    """``[K, height, width, C]`` rows of ``pixels [N * H * W, C]`` where the bins have their first maximum.

    -1 for a bin without pixels, -2 for one of nothing above the lowest number. Each step looks at one more pixel of
    every bin of some boxes of about a size, so that there are few.
    """
    _, _, height, width = size
    wide = rois.detach().to(torch.float64 if pixels.dtype == torch.float64 else torch.float32)
    top, bottom = bin_bounds(wide[:, 2], wide[:, 4], spatial_scale, bins[0], height)
    left, right = bin_bounds(wide[:, 1], wide[:, 3], spatial_scale, bins[1], width)
    area = (bottom - top).amax(1) * (right - left).amax(1)
    places = torch.empty(0, *bins, pixels.size(1), dtype=torch.int64, device=pixels.device)
    order = area.argsort(stable=True)
    chunks = [places]
    for some in order.split(_CHUNK) if order.numel() else ():
        y0, y1 = top[some][:, :, None, None], bottom[some][:, :, None, None]
        x0, x1 = left[some][:, None, :, None], right[some][:, None, :, None]
        origin = wide[some, 0].long().view(-1, 1, 1, 1) * height * width
        place = torch.where((y0 < y1) & (x0 < x1), -2, -1).expand(-1, -1, -1, pixels.size(1))
        largest = torch.full_like(place, _LOWEST, dtype=pixels.dtype)
        for dy in range(int((y1 - y0).max())):
            for dx in range(int((x1 - x0).max())):
                y, x = y0 + dy, x0 + dx
                at = torch.where((y < y1) & (x < x1), origin + y * width + x, -1)
                value = pixels.detach()[at.clamp(min=0)[..., 0]]
                larger = (value > largest) & (at >= 0)
                largest, place = torch.where(larger, value, largest), torch.where(larger, at, place)
        chunks.append(place)
    return torch.cat(chunks)[order.argsort()]


def _pixels(input: Tensor) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    return wide.permute(0, 2, 3, 1).flatten(0, 2)


def _reference(input, rois, spatial_scale, pooled_height, pooled_width):
    check_images("roi_pool", rois, input.size(0))
    pixels = _pixels(input)
    # A pixel to look up where there is none.
    padded = torch.cat([pixels, pixels.new_zeros(1, pixels.size(1))])
    places = _places(pixels, rois, spatial_scale, (pooled_height, pooled_width), input.shape)
    flat = torch.where(places < 0, pixels.size(0), places).flatten(0, 2)
    values = padded.gather(0, flat).view(places.shape)
    values = torch.where(places == -2, _LOWEST, values).permute(0, 3, 1, 2)
    return empty_maps(values.shape, input, is_channels_last(input)).copy_(values)


def _reference_backward(grad, input, rois, spatial_scale):
    places = _places(_pixels(input), rois, spatial_scale, grad.shape[2:], input.shape)
    wide = grad if grad.dtype == torch.float64 else grad.float()
    channels = input.size(1)
    flat = (places * channels + torch.arange(channels, device=grad.device))[places >= 0]
    given = wide.permute(0, 2, 3, 1)[places >= 0]
    total = wide.new_zeros(input.numel())
    if grad.is_cuda:
        total.index_put_((flat,), given, accumulate=True)  # Sorts, where scatter_add_ is not deterministic.
    else:
        total.scatter_add_(0, flat, given)
    images, _, height, width = input.shape
    maps = total.view(images, height, width, channels).permute(0, 3, 1, 2)
    return empty_maps(input.shape, input, is_channels_last(input)).copy_(maps)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width):
    shape = (rois.size(0), input.size(1), pooled_height, pooled_width)
    return empty_maps(shape, input, is_channels_last(input))


def _fake_backward(grad, input, rois, spatial_scale):
    return empty_maps(input.shape, input, is_channels_last(input))


_op = _library.define(
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> Tensor",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda *_, **__: 0,
)
_backward_op = _library.define(
    "roi_pool_backward(Tensor grad, Tensor input, Tensor rois, float spatial_scale) -> Tensor",
    reference=_reference_backward,
    fake=_fake_backward,
    cuda=True,
)


def _setup_context(ctx, inputs, output):
    input, rois, spatial_scale, _, _ = inputs
    ctx.save_for_backward(input, rois)
    ctx.spatial_scale = spatial_scale


def _backward(ctx, grad):
    input, rois = ctx.saved_tensors
    return _library.call_backward(_backward_op, grad, input, rois, ctx.spatial_scale), None, None, None, None


_library.autograd(_op, _backward, _setup_context)
