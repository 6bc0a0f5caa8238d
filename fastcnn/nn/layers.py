"""Twins of the standard modules whose forward runs ``fastcnn.ops``, with the same constructors and keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from fastcnn import ops


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
