"""Greedy non-maximum suppression (used from R-CNN, Girshick et al. 2014, section 2.3, onwards)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keeps boxes from the highest score down, each unless it overlaps a kept one too much.

    Exactly :func:`torchvision.ops.nms`, box by box: a box is suppressed iff its IoU with a kept box is strictly above
    the threshold; equal scores keep the order of their indices; NaN scores come first; a box that is empty, inverted or
    NaN neither suppresses nor is suppressed (for a threshold of 0 or more). 16-bit boxes are compared in float32.
    Deterministic. Memory grows linearly with the number of boxes.

    Args:
        boxes: ``[N, 4]`` corners ``(x1, y1, x2, y2)``; float64, float32, bfloat16 or float16.
        scores: ``[N]``, any floating-point dtype, on the same device.
        iou_threshold: any number; below 0 even disjoint boxes suppress each other.

    Returns:
        int64 indices of the kept boxes by descending score. Their number is read from the device, so on a GPU this
        waits for it.

    Raises:
        ValueError: a wrong rank, boxes that are not 4 wide, another number of scores, or two devices.
        TypeError: not floating-point tensors, or a threshold that is not a number.
    """
    _checks.floating("nms", boxes=boxes, scores=scores)
    _checks.number("nms", iou_threshold=iou_threshold)
    if boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"nms: expected boxes of shape [N, 4], got {list(boxes.shape)}")
    if scores.dim() != 1 or scores.size(0) != boxes.size(0):
        raise ValueError(
            f"nms: expected scores of shape [{boxes.size(0)}] for {boxes.size(0)} boxes, got {list(scores.shape)}"
        )
    _checks.same_device("nms", boxes=boxes, scores=scores)
    return _library.call(_op, boxes, scores, float(iou_threshold))


def _reference(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    order = scores.sort(descending=True, stable=True).indices
    wide = (boxes if boxes.dtype == torch.float64 else boxes.float())[order].detach()
    x1, y1, x2, y2 = wide.unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    keep = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        keep.append(i)
        rest = slice(i + 1, None)
        # where() and not clamp(): a NaN side counts as 0, as in torchvision.
        width = torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest])
        height = torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest])
        inter = torch.where(width > 0, width, 0) * torch.where(height > 0, height, 0)
        iou = inter / (areas[i] + areas[rest] - inter)
        alive[rest] &= ~(iou.double() > iou_threshold)
    return order[torch.tensor(keep, dtype=torch.int64, device=boxes.device)]


def _fake(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    torch._check(kept <= boxes.size(0))
    return boxes.new_empty(kept, dtype=torch.int64)


_op = _library.define(
    "nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda boxes, scores, iou_threshold, **_: 0,
)
