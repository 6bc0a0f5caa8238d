"""Which box of the ground truth an anchor, a default box or a region is to find: from IoU (boxes, anchors)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVE = -1  # Nothing to be found.
IGNORED = -2  # Neither: takes no part in training.


@dataclass(frozen=True)
class Matcher:
    """By two thresholds: Ren et al., Faster R-CNN, NIPS 2015, section 3.1.2 (0.7 and 0.3, and the best anchor).

    Deterministic; the first of equally good boxes is matched.

    Attributes:
        high: an IoU of at least this matches, as in torchvision.
        low: an IoU below this does not; in between an anchor is ignored.
        keep_best: also match the best anchors of each box that any overlaps, all of them where they are equally good,
            with whichever box they overlap most.
    """

    high: float
    low: float
    keep_best: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a matcher needs 0 <= low <= high, got low {self.low} and high {self.high}")

    def __call__(self, iou: Tensor) -> Tensor:
        """(A) int64 of IoU (G, A): the index of a box, or ``NEGATIVE``, or ``IGNORED``; no boxes match none."""
        if not iou.numel():
            return torch.full(iou.shape[1:], NEGATIVE, dtype=torch.int64, device=iou.device)
        best, matches = iou.max(0)
        result = torch.where(best < self.high, IGNORED, matches)
        result = torch.where(best < self.low, NEGATIVE, result)
        if self.keep_best:
            highest = iou.amax(1, keepdim=True)
            # Of a box that no anchor overlaps all would be the best.
            is_best = (iou == highest.masked_fill(highest <= 0, torch.inf)).any(0)
            result = torch.where(is_best, matches, result)
        return result


@dataclass(frozen=True)
class SSDMatcher:
    """The best default box of each box, and every one above a threshold: Liu et al., SSD, ECCV 2016, section 2.2.

    Where boxes share their best default box, the largest IoU gets it and the others their next, as in the authors'
    code; in torchvision the last box gets it, and the others may get none. Deterministic.

    Attributes:
        threshold: an IoU above this matches.
    """

    threshold: float = 0.5

    def __call__(self, iou: Tensor) -> Tensor:
        """(A) int64 of IoU (G, A): the index of a box, or ``NEGATIVE``; no boxes match none.

        Every box is matched where there are as many anchors.
        """
        if not iou.numel():
            return torch.full(iou.shape[1:], NEGATIVE, dtype=torch.int64, device=iou.device)
        best, matches = iou.max(0)
        result = torch.where(best > self.threshold, matches, NEGATIVE)
        anchors = iou.argmax(1)
        if len(anchors.unique()) == len(anchors):
            result[anchors] = torch.arange(len(anchors), device=iou.device)
            return result
        left = iou.clone()
        for _ in range(min(iou.shape)):
            box, anchor = divmod(int(left.argmax()), iou.size(1))
            result[anchor] = box
            left[box], left[:, anchor] = -1, -1
        return result
