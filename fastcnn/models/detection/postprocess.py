"""From a head's numbers to detections: all images and classes of a batch at once, without a loop over either."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastcnn import ops

Detections = list[dict[str, Tensor]]


class Candidates(NamedTuple):
    """Boxes (M, 4) with scores (M), int64 labels (M) and the image (M) of each."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    images: Tensor


def top_of_groups(scores: Tensor, groups: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest scores (M) of each group (M): groups ascending, scores in each descending.

    Deterministic: equal scores keep their order.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    sorted_ = groups[order].contiguous()
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_, sorted_)
    return order[rank < count]


def suppress(
    candidates: Candidates,
    batch: int,
    *,
    iou_threshold: float,
    max_detections: int,
    **others: Tensor,
) -> Detections:
    """Non-maximum suppression within every class of every image, and the best detections that it leaves.

    Args:
        candidates: of all images.
        batch: number of images.
        iou_threshold: of :func:`fastcnn.ops.batched_nms`.
        max_detections: of an image.
        others: what else is known of every candidate (M, ...).

    Returns:
        For every image ``boxes`` (D, 4), ``scores`` (D), descending, and int64 ``labels`` (D); and ``others`` (D, ...)
        by their names.
    """
    boxes, scores, labels, images = candidates
    classes = images * (int(labels.max()) + 1 if len(labels) else 1) + labels
    keep = ops.batched_nms(boxes, scores, classes, iou_threshold)
    keep = keep[top_of_groups(scores[keep], images[keep], max_detections)]
    counts = images[keep].bincount(minlength=batch).tolist()
    known = {"boxes": boxes, "scores": scores, "labels": labels, **others}
    parts = zip(*(each[keep].split(counts) for each in known.values()), strict=True)
    return [dict(zip(known, part, strict=True)) for part in parts]


def suppress_padded(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    candidates: int,
    iou_threshold: float,
    max_detections: int,
    background: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`suppress` of the best ``candidates`` of each class, but every shape depends on shapes alone.

    So ``torch.compile(fullgraph=True)`` takes it, and a GPU need not be waited for.

    Args:
        boxes: (N, A, 4), of all classes alike.
        scores: (N, A, classes).
        score_threshold: candidates have a score above this.
        background: so many first classes are nothing to be detected.

    Returns:
        ``boxes`` (N, D, 4), ``scores`` and int64 ``labels`` (N, D) with D = ``max_detections``, filled up with zeros,
        and their numbers (N).
    """
    scores = scores[..., background:].transpose(1, 2)
    best, anchors = scores.topk(min(candidates, scores.size(2)), sorted=False)
    labels = torch.arange(background, background + scores.size(1), device=scores.device)[:, None].expand_as(best[0])
    best, anchors = best.flatten(1), anchors.flatten(1)
    labels = labels.flatten().expand_as(anchors)
    boxes = take(boxes, anchors)
    keep, counts = ops.batched_nms_padded(boxes, best, labels, iou_threshold, max_detections, score_threshold)
    missing = keep < 0
    keep = keep.clamp(min=0)
    kept = (take(boxes, keep), best.gather(1, keep), labels.gather(1, keep))
    boxes, best, labels = (each.masked_fill(missing[..., None] if each.dim() == 3 else missing, 0) for each in kept)
    return boxes, best, labels, counts


def take(boxes: Tensor, indices: Tensor) -> Tensor:
    """(N, K, 4) of boxes (N, A, 4) at indices (N, K)."""
    return boxes.gather(1, indices[..., None].expand(*indices.shape, boxes.size(-1)))


def unpad(boxes: Tensor, scores: Tensor, labels: Tensor, counts: Tensor) -> Detections:
    """What :func:`suppress_padded` gives, as :func:`suppress` gives it."""
    return [
        {"boxes": b[:n], "scores": s[:n], "labels": c[:n]}
        for b, s, c, n in zip(boxes, scores, labels, counts.tolist(), strict=True)
    ]
