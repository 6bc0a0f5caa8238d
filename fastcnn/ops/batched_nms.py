"""Non-maximum suppression within classes (R-CNN, Girshick et al. 2014, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library
from fastcnn.ops.boxes import class_keys
from fastcnn.ops.nms import nms


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Keeps what :func:`fastcnn.ops.nms` keeps of each class alone, as :func:`torchvision.ops.batched_nms`.

    Classes are compared exactly. torchvision does so for more than 1,000 boxes on a CPU (25,000 on a GPU); for fewer
    it moves every class to coordinates of its own, ``idxs * (boxes.max() + 1)``, where rounding can change an IoU, and
    where boxes with negative coordinates can reach those of another class. Equal scores keep the order of their
    indices, NaN scores come first. Deterministic. Memory grows linearly with the number of boxes.

    Args:
        boxes: ``[N, 4]`` corners ``(x1, y1, x2, y2)``; float64, float32, bfloat16 or float16.
        scores: ``[N]``, any floating-point dtype, on the same device.
        idxs: ``[N]``, the class of each box: any numbers, of any dtype but complex; NaN is a class too.
        iou_threshold: a box is suppressed iff its IoU with a kept box of its class is strictly above this number.

    Returns:
        int64 indices of the kept boxes by descending score, all classes together. Their number is read from the device,
        so on a GPU this waits for it; :func:`fastcnn.ops.batched_nms_padded` has a result of fixed size.

    Raises:
        ValueError: a wrong rank, boxes that are not 4 wide, another number of scores or classes, or two devices.
        TypeError: boxes or scores that are not floating-point, no classes, or a threshold that is not a number.
    """
    _checks.floating("batched_nms", boxes=boxes, scores=scores)
    _checks.number("batched_nms", iou_threshold=iou_threshold)
    if boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"batched_nms: expected boxes of shape [N, 4], got {list(boxes.shape)}")
    classes = class_keys("batched_nms", boxes, scores, idxs)
    return _library.call(_op, boxes, scores, classes, float(iou_threshold))


def _reference(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    kept = torch.zeros_like(idxs, dtype=torch.bool)
    for class_ in idxs.unique():
        of_class = (idxs == class_).nonzero()[:, 0]
        kept[of_class[nms(boxes[of_class], scores[of_class], iou_threshold)]] = True
    order = scores.sort(descending=True, stable=True).indices
    return order[kept[order]]


def _fake(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    torch._check(kept <= boxes.size(0))
    return boxes.new_empty(kept, dtype=torch.int64)


_op = _library.define(
    "batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda boxes, scores, idxs, iou_threshold, **_: 0,
)
