"""Poolings that PyTorch lacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn import ops
from fastcnn.nn.layers import RoIPool
from fastcnn.ops import _checks
from fastcnn.ops.boxes import bins_of, check_images, rois_of
from fastcnn.ops.roi_pool import bin_bounds


class SpatialPyramidPool2d(nn.Module):
    """Max-pools a map of any size to grids of fixed sizes: (N, C, H, W) to (N, C * sum of squared levels).

    Bin i of n over a side of s pixels goes from ``floor(i * s / n)`` to ``ceil((i + 1) * s / n)``. The output has the
    levels one after another, each flattened as (C, level, level). Deterministic. Source: He et al., Spatial Pyramid
    Pooling in Deep Convolutional Networks, ECCV 2014, section 2.2 and appendix A.

    Args:
        levels: sides of the grids, e.g. (7, 3, 2, 1).

    Raises:
        ValueError: no level, or one that is no positive int.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or not all(isinstance(level, int) and level > 0 for level in levels):
            raise ValueError(f"levels must be positive ints, one or more, got {levels!r}")
        self.levels = tuple(levels)

    @property
    def bins(self) -> int:
        """Values per channel."""
        return sum(level * level for level in self.levels)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(input, level).flatten(1) for level in self.levels], 1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class SpatialPyramidRoIPool(SpatialPyramidPool2d):
    """The same of regions of interest: a map (N, C, H, W) and K boxes to (K, C * sum of squared levels).

    Each level is :func:`fastcnn.ops.roi_pool` of so many bins, whose rounding of corners, errors and determinism it
    has: one level is Fast R-CNN's pooling, flattened. ``forward(input, rois)`` takes boxes as the op does. Source: He
    et al., ECCV 2014, section 4.1; appendix A there rounds corners towards the inside of the box instead.

    Args:
        levels: sides of the grids, e.g. (6, 3, 2, 1).
        spatial_scale: feature-map pixels per box-coordinate unit, e.g. 1/16 for a map of stride 16.

    Raises:
        ValueError: no level, or one that is no positive int.
    """

    def __init__(self, levels: Sequence[int], spatial_scale: float) -> None:
        super().__init__(levels)
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:  # type: ignore[override]
        return torch.cat([ops.roi_pool(input, rois, level, self.spatial_scale).flatten(1) for level in self.levels], 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, spatial_scale={self.spatial_scale}"


def ps_roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Takes the mean over every bin of a box, of another map for every bin: as :func:`torchvision.ops.ps_roi_pool`.

    Output channel c at bin (i, j) is pooled from input channel ``(c * height + i) * width + j``. Corners are rounded to
    whole pixels, half away from zero, and a side is never less than one pixel; bin i of n covers pixels from
    ``floor(i * size / n)`` to before ``ceil((i + 1) * size / n)``. The last row and the last column of the map do not
    count, as in torchvision's forward pass; gradients are those of what was computed, where torchvision's own backward
    pass counts the two. A bin without pixels is 0, as are those of a box with NaN.

    Sums come from an integral image in float64, so that the cost does not depend on the size of boxes, and rounding is
    relative to the largest sums: a NaN or an infinity makes NaN of bins to its right and below it too.

    Args:
        input: ``[N, C * height * width, H, W]`` score maps; float64, float32, bfloat16 or float16.
        boxes, output_size, spatial_scale: as of :func:`fastcnn.ops.roi_pool`.

    Returns:
        ``[K, C, height, width]`` of the dtype of `input`, contiguous.

    Raises:
        ValueError: a wrong rank or width, channels that are no multiple of the bins, a batch index outside the batch,
            or two devices.
        TypeError: a tensor that is not floating-point, or an argument of the wrong type.

    Differentiable in `input`, twice too. Deterministic on a CPU. Source: Dai et al., R-FCN, NIPS 2016, equation 1.
    """
    _checks.floating("ps_roi_pool", input=input)
    if input.dim() != 4:
        raise ValueError(f"ps_roi_pool: expected input with 4 dimensions, got shape {tuple(input.shape)}")
    _checks.number("ps_roi_pool", spatial_scale=spatial_scale)
    bins = height, width = bins_of("ps_roi_pool", output_size)
    if input.size(1) % (height * width):
        raise ValueError(f"ps_roi_pool: expected channels in multiples of {height} * {width} bins, got {input.size(1)}")
    rois = rois_of("ps_roi_pool", boxes, input).detach()
    if not rois.is_meta:
        check_images("ps_roi_pool", rois, input.size(0))
    rois = rois.to(torch.float64 if input.dtype == torch.float64 else torch.float32)
    # A bin's channels together: (N, height, width, H + 1, W + 1, C).
    maps = input.double().unflatten(1, (-1, *bins)).permute(0, 2, 3, 4, 5, 1)
    integral = F.pad(maps.cumsum(3).cumsum(4), (0, 0, 1, 0, 1, 0))
    edges = zip((rois[:, 2], rois[:, 1]), (rois[:, 4], rois[:, 3]), bins, input.shape[2:], strict=True)
    (top, bottom), (left, right) = (
        bin_bounds(low, high, spatial_scale, count, side - 1, closed=False) for low, high, count, side in edges
    )
    image = rois[:, 0].long()[:, None, None]
    row, column = (torch.arange(count, device=input.device) for count in bins)

    def sums(y: Tensor, x: Tensor) -> Tensor:
        """(K, height, width, C) of all pixels above and to the left."""
        return integral[image, row[:, None], column, y[:, :, None], x[:, None]]

    total = sums(bottom, right) - sums(top, right) - sums(bottom, left) + sums(top, left)
    area = (bottom - top).clamp(min=0)[:, :, None] * (right - left).clamp(min=0)[:, None]
    mean = torch.where(area[..., None] > 0, total / area.clamp(min=1)[..., None], 0)
    return mean.permute(0, 3, 1, 2).to(input.dtype).contiguous()


class PSRoIPool(RoIPool):
    """Position-sensitive pooling, :func:`ps_roi_pool`, whose results and errors it has: torchvision's PSRoIPool.

    ``forward(input, rois)``: (N, C * height * width, H, W) and boxes to (K, C, height, width). Arguments are those of
    :class:`RoIPool`.
    """

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)
