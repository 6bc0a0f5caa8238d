"""The boxes that dense detectors start from: anchors of region proposals and of RetinaNet, SSD's default boxes.

One tensor of them serves every image of a batch. Maps are (N, C, H, W); positions come in the order of rows, the boxes
of a position one after the other: the order of a head's outputs in :mod:`fastcnn.models.detection.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

Shape = tuple[float, float]  # Width and height.


class Anchors(Protocol):
    """What a dense detector asks of its boxes."""

    def per_position(self) -> tuple[int, ...]:
        """Boxes at each position, of every map."""

    def __call__(self, image_size: tuple[int, int], maps: Sequence[Tensor]) -> list[Tensor]:
        """(Hi * Wi * boxes per position, 4) corners in pixels of a batch of images (height, width), for each map.

        They have the dtype of the maps, but never a 16-bit one, which could not tell neighbouring pixels apart.
        """


class AnchorGenerator:
    """Anchors of every size and aspect ratio, centred on the corner of each position.

    Ren et al., Faster R-CNN, NIPS 2015, section 3.1.1 (one map, 3 sizes, 3 ratios); Lin et al., FPN, CVPR 2017, section
    4.1 (a size for each map). Sides are rounded to even numbers, as torchvision's; a ratio is height over width.

    Args:
        sizes: of each map, the sides of squares of the anchors' areas, in pixels.
        aspect_ratios: of all maps.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> None:
        self.sizes = tuple(map(tuple, sizes))
        self.aspect_ratios = tuple(aspect_ratios)

    def per_position(self) -> tuple[int, ...]:
        return tuple(len(sizes) * len(self.aspect_ratios) for sizes in self.sizes)

    def cells(self) -> list[Tensor]:
        """Float32 anchors (sizes * ratios, 4) of each map around the origin: the sizes of a ratio, then the next."""
        heights = torch.tensor(self.aspect_ratios, dtype=torch.float32, device="cpu").sqrt()[:, None]
        cells = []
        for sizes in self.sizes:
            sides = torch.tensor(sizes, dtype=torch.float32, device="cpu")
            width, height = (1 / heights * sides).flatten(), (heights * sides).flatten()
            cells.append((torch.stack((-width, -height, width, height), 1) / 2).round())
        return cells

    def __call__(self, image_size: tuple[int, int], maps: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`Anchors.__call__`. A stride is the image's side over the map's, cut off.

        Raises:
            ValueError: another number of maps than of ``sizes``.
        """
        _check_maps(len(self.sizes), maps)
        result = []
        for cell, map_ in zip(self.cells(), maps, strict=True):
            shifts = _grid(map_, image_size[1] // map_.size(3), image_size[0] // map_.size(2))
            result.append((shifts.repeat(1, 2)[:, None] + cell.to(shifts)).reshape(-1, 4))
        return result


class _Shaped:
    """Boxes of the same shapes, (width, height), at every position of a map."""

    def __init__(self, shapes: Sequence[Sequence[Shape]], steps: Sequence[float] | None) -> None:
        if steps is not None and len(steps) != len(shapes):
            raise ValueError(f"{type(self).__name__} need a step for each of {len(shapes)} maps, got {len(steps)}")
        self.shapes, self.steps = tuple(map(tuple, shapes)), None if steps is None else tuple(steps)

    def per_position(self) -> tuple[int, ...]:
        return tuple(map(len, self.shapes))


class DefaultBoxes(_Shaped):
    """SSD's boxes of fixed shapes around the centre of every position: Liu et al., SSD, ECCV 2016, section 2.2.

    They are those of float32 whatever the dtype, as torchvision's.

    Args:
        shapes: (width, height) of the boxes of each map, as parts of the image's; see :func:`ssd_shapes`.
        steps: pixels from one position to the next, of each map; None divides the image evenly.
    """

    def __init__(self, shapes: Sequence[Sequence[Shape]], steps: Sequence[float] | None = None) -> None:
        super().__init__(shapes, steps)

    def __call__(self, image_size: tuple[int, int], maps: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`Anchors.__call__`.

        Raises:
            ValueError: another number of maps than of ``shapes``.
        """
        _check_maps(len(self.shapes), maps)
        height, width = image_size
        result = []
        for index, (shapes, map_) in enumerate(zip(self.shapes, maps, strict=True)):
            rows, columns = map(float, map_.shape[2:])
            if self.steps is not None:
                rows, columns = height / self.steps[index], width / self.steps[index]
            grid = _grid(map_, 1, 1)
            centres = (grid.float() + 0.5) / torch.tensor((columns, rows), device=map_.device)
            sides = torch.tensor(shapes, device=map_.device).clamp(0, 1)
            centres, sides = centres[:, None].to(grid.dtype), sides.to(grid.dtype)
            corners = torch.cat((centres - 0.5 * sides, centres + 0.5 * sides), 2)
            result.append((corners * corners.new_tensor((width, height, width, height))).reshape(-1, 4))
        return result


class Templates(_Shaped):
    """Boxes of given shapes at every position, one after the other, whatever the size of the image.

    Args:
        shapes: (width, height) of the boxes of each map, in pixels.
        steps: pixels from one position to the next, of each map.
        offset: of the first position's centre, in steps.
    """

    def __init__(self, shapes: Sequence[Sequence[Shape]], steps: Sequence[float], offset: float = 0.5) -> None:
        super().__init__(shapes, steps)
        self.offset = offset

    def __call__(self, image_size: tuple[int, int], maps: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`Anchors.__call__`.

        Raises:
            ValueError: another number of maps than of ``shapes``.
        """
        _check_maps(len(self.shapes), maps)
        result = []
        for shapes, step, map_ in zip(self.shapes, self.steps or (), maps, strict=True):
            centres = (_grid(map_, step, step) + self.offset * step)[:, None]
            half = centres.new_tensor(shapes) / 2
            result.append(torch.cat((centres - half, centres + half), 2).reshape(-1, 4))
        return result


def ssd_shapes(aspect_ratios: Sequence[Sequence[float]], scales: Sequence[float]) -> list[list[Shape]]:
    """Default boxes of each map: a square of its scale, one between its scale and the next, and both ways of a ratio.

    Equation 4 and what follows it of Liu et al. ``scales`` are one more than the maps.
    """
    if len(scales) != len(aspect_ratios) + 1:
        raise ValueError(f"{len(aspect_ratios)} maps need {len(aspect_ratios) + 1} scales, got {len(scales)}")
    shapes: list[list[Shape]] = []
    for ratios, scale, following in zip(aspect_ratios, scales, scales[1:], strict=False):
        between = math.sqrt(scale * following)
        boxes: list[Shape] = [(scale, scale), (between, between)]
        for ratio in ratios:
            width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            boxes += [(width, height), (height, width)]
        shapes.append(boxes)
    return shapes


def even_scales(first: float, last: float, maps: int) -> list[float]:
    """Scales of so many maps in even steps, equation 4, and 1 after the last."""
    return [first + (last - first) * index / max(maps - 1, 1) for index in range(maps)] + [1.0]


def _grid(map_: Tensor, step_x: float, step_y: float) -> Tensor:
    """(H * W, 2) positions (x, y) of a map times the steps, row by row."""
    dtype = torch.promote_types(map_.dtype, torch.float32)
    rows, columns = (torch.arange(side, dtype=dtype, device=map_.device) for side in map_.shape[2:])
    y, x = torch.meshgrid(rows * step_y, columns * step_x, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1)


def _check_maps(expected: int, maps: Sequence[Tensor]) -> None:
    if len(maps) != expected:
        raise ValueError(f"anchors are for {expected} feature maps, got {len(maps)}")
