"""Arithmetic of boxes: corners (x1, y1, x2, y2), of which every function takes any number of leading dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def broadcast_iou(first: Tensor, second: Tensor, least: float = 0.0) -> Tensor:
    """Area of the intersection over that of the union, (...) of boxes (..., 4) and (..., 4), broadcast.

    0/0, of two boxes without area, is NaN; or 0 where ``least``, an area that every union has, is above 0.
    """
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (box_area(first) + box_area(second) - shared).clamp(min=least)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU (N, M) of boxes (N, 4) and (M, 4), as torchvision's: 0/0, of two boxes without area, is NaN."""
    return broadcast_iou(first[:, None], second)


def generalized_box_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU (N, M) of boxes (N, 4) and (M, 4), from -1 to 1, as torchvision's: the IoU less the share of the smallest
    box around both that is in neither. Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, section 3.

    0/0, of two boxes without area, is NaN.
    """
    low = torch.minimum(first[:, None, :2], second[:, :2])
    high = torch.maximum(first[:, None, 2:], second[:, 2:])
    around = (high - low).prod(-1)
    iou = box_iou(first, second)
    # Of areas a and b the union u has an IoU of (a + b - u) / u.
    union = (box_area(first)[:, None] + box_area(second)) / (1 + iou)
    return iou - (around - union) / around


def image_limits(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(N, 4) corners (width, height, width, height) of N images (height, width), to clip boxes at."""
    return torch.tensor([(w, h, w, h) for h, w in sizes], dtype=like.dtype, device=like.device)


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (..., 4) cut off at 0 and at ``limits`` (..., 4), see :func:`image_limits`."""
    return torch.minimum(boxes.clamp(min=0), limits)


def is_large(boxes: Tensor, side: float) -> Tensor:
    """Which (...) of the boxes (..., 4) have both sides of at least ``side`` pixels; none of NaN."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side).all(-1)


def is_inside(boxes: Tensor, limits: Tensor) -> Tensor:
    """Which (...) of the boxes (..., 4) do not cross the border of the image."""
    return (boxes >= 0).all(-1) & (boxes <= limits).all(-1)
