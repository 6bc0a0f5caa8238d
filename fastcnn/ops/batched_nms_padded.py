"""Non-maximum suppression within classes with a result of fixed size: what detectors end in."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library
from fastcnn.ops.batched_nms import batched_nms
from fastcnn.ops.boxes import class_keys


def batched_nms_padded(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    max_output_size: int,
    score_threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The first `max_output_size` of what :func:`fastcnn.ops.batched_nms` keeps, of one image or of a batch.

    Shapes depend on shapes alone, so that ``torch.compile(fullgraph=True)`` and ``torch.export`` need no dynamic shapes
    for it, and the CUDA kernels wait for nothing, so that a CUDA graph can hold it (the reference, which runs where
    they are missing, does wait). Work stops when the result is full; on a GPU, in each class that would fill it alone.
    Memory grows linearly with the number of boxes. Deterministic. Greedy suppression within classes is that of R-CNN
    (Girshick et al. 2014, section 2.3).

    Args:
        boxes: ``[N, 4]`` or ``[B, N, 4]`` corners ``(x1, y1, x2, y2)``; float64, float32, bfloat16 or float16.
        scores: ``[N]`` or ``[B, N]``, any floating-point dtype, on the same device.
        idxs: ``[N]`` or ``[B, N]``, the class of each box, as for :func:`fastcnn.ops.batched_nms`.
        iou_threshold: a box is suppressed iff its IoU with a kept box of its class is strictly above this number.
        max_output_size: how many boxes of an image to keep at most, 0 or more.
        score_threshold: if given, boxes take part only with a score above it (compared in float32, for float64 scores
            in float64); NaN scores then do not.

    Returns:
        int64 indices ``[max_output_size]`` or ``[B, max_output_size]`` of the kept boxes by descending score, filled up
        with -1, and how many they are: int64, a scalar tensor or ``[B]``.

    Raises:
        ValueError: a wrong rank, boxes that are not 4 wide, scores or classes of another shape, a negative
            `max_output_size`, or two devices.
        TypeError: boxes or scores that are not floating-point, no classes, or a threshold that is not a number.
    """
    op = "batched_nms_padded"
    _checks.floating(op, boxes=boxes, scores=scores)
    _checks.number(op, iou_threshold=iou_threshold)
    _checks.integer(op, max_output_size=max_output_size)
    if score_threshold is not None:
        _checks.number(op, score_threshold=score_threshold)
        score_threshold = float(score_threshold)
    if boxes.dim() not in (2, 3) or boxes.size(-1) != 4:
        raise ValueError(f"{op}: expected boxes of shape [N, 4] or [B, N, 4], got {list(boxes.shape)}")
    if max_output_size < 0:
        raise ValueError(f"{op}: expected a max_output_size of 0 or more, got {max_output_size}")
    classes = class_keys(op, boxes, scores, idxs)
    images = [t if boxes.dim() == 3 else t[None] for t in (boxes, scores, classes)]
    indices, counts = _library.call(_op, *images, float(iou_threshold), max_output_size, score_threshold)
    return (indices, counts) if boxes.dim() == 3 else (indices[0], counts[0])


def _reference(boxes, scores, idxs, iou_threshold, max_output_size, score_threshold):
    indices = boxes.new_full((boxes.size(0), max_output_size), -1, dtype=torch.int64)
    counts = boxes.new_zeros(boxes.size(0), dtype=torch.int64)
    wide = scores if scores.dtype == torch.float64 else scores.float()
    for image in range(boxes.size(0)):
        each = (boxes[image], scores[image], idxs[image])
        if score_threshold is None:
            keep = batched_nms(*each, iou_threshold)
        else:
            # Before suppression: NaN comes first and would suppress others.
            above = (wide[image] > score_threshold).nonzero()[:, 0]
            keep = above[batched_nms(*(t[above] for t in each), iou_threshold)]
        keep = keep[:max_output_size]
        indices[image, : keep.size(0)] = keep
        counts[image] = keep.size(0)
    return indices, counts


def _fake(boxes, scores, idxs, iou_threshold, max_output_size, score_threshold):
    indices = boxes.new_empty((boxes.size(0), max_output_size), dtype=torch.int64)
    return indices, boxes.new_empty(boxes.size(0), dtype=torch.int64)


_op = _library.define(
    "batched_nms_padded(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold, SymInt max_output_size, "
    "float? score_threshold) -> (Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    cuda=True,
    flops=lambda boxes, scores, idxs, iou_threshold, *_, **__: 0,
)
