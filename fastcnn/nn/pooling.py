"""Poolings that PyTorch lacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn import ops


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
