"""VOC's average precision: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcnn.metrics._inputs import check_pairs
from fastcnn.models.detection.boxes import box_iou

INTERPOLATIONS = ("all-point", "11-point")
# Of each detection, the IoU with the object it goes to and which that is; of each object, whether it counts.
PARTS = ("label", "score", "best", "reached", "object_label", "difficult")


class VOCMetrics:
    """Average precision of boxes, per class and its mean.

    Detections of a class, the highest score first over all images, each go to the object of that class, in their
    image, of the largest IoU. The first of IoU >= ``iou_threshold`` is right, later ones are wrong, and so is what
    reaches no object. Objects marked ``difficult`` (or ``iscrowd``) count neither way, nor do detections that go to
    them. Equal scores keep the order in which they came. Deterministic.

    Args:
        iou_threshold: in (0, 1].
        interpolation: "all-point", VOC's since 2010, or "11-point", until then.

    Raises:
        ValueError: another interpolation, or a threshold out of range.
    """

    def __init__(self, iou_threshold: float = 0.5, interpolation: str = "all-point") -> None:
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be above 0 and at most 1, got {iou_threshold}")
        _check_interpolation(interpolation)
        self.iou_threshold, self.interpolation = iou_threshold, interpolation
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._objects = 0
        self._parts: dict[str, list[Tensor]] = {name: [] for name in PARTS}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds images.

        Args:
            predictions: an image's each: ``boxes`` (D, 4), ``scores`` and ``labels`` (D), as a detector gives them.
            targets: an image's each: ``boxes`` (L, 4), ``labels`` (L), and perhaps ``difficult`` or ``iscrowd`` (L).

        Raises:
            ValueError: parts that are missing or of other shapes; a score that is NaN.
        """
        check_pairs(predictions, targets)
        for prediction, target in zip(predictions, targets, strict=True):
            self._add(prediction, target)

    def _add(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        label, object_label = prediction["labels"].cpu(), target["labels"].cpu()
        overlap = box_iou(prediction["boxes"].cpu().double(), target["boxes"].cpu().double())
        # Two boxes without area have no IoU, and objects of other classes are none.
        overlap = overlap.nan_to_num(0).masked_fill(label[:, None] != object_label, 0)
        if len(object_label):
            best, reached = overlap.max(1)
        else:
            best, reached = overlap.new_zeros(len(label)), label.new_zeros(len(label))
        difficult = torch.zeros(len(object_label), dtype=torch.bool)
        for key in ("difficult", "iscrowd"):
            if key in target:
                difficult |= target[key].cpu().bool()
        found = (label, prediction["scores"].detach().cpu().double(), best, reached + self._objects)
        for name, part in zip(PARTS, (*found, object_label, difficult), strict=True):
            self._parts[name].append(part)
        self._objects += len(object_label)

    def compute(self) -> dict[str, Any]:
        """``mAP``, the mean over classes that have objects (NaN if none has), and ``AP``, a dict of label to that of
        the class, NaN for one that was detected but has no object that counts."""
        parts = {name: torch.cat(part) if part else torch.zeros(0) for name, part in self._parts.items()}
        precisions = {}
        for label in torch.cat((parts["label"], parts["object_label"])).unique().tolist():
            right, positives = self._right(parts, label)
            precisions[int(label)] = average_precision(right, positives, self.interpolation)
        counted = torch.tensor([value for value in precisions.values() if value == value], dtype=torch.float64)
        return {"mAP": counted.mean().item(), "AP": precisions}

    def _right(self, parts: Mapping[str, Tensor], label: int) -> tuple[Tensor, int]:
        """Which detections of a class are right, the highest score first, without those that count neither way."""
        positives = int(((parts["object_label"] == label) & ~parts["difficult"].bool()).sum())
        score, best, reached = (parts[name][parts["label"] == label] for name in ("score", "best", "reached"))
        order = score.argsort(descending=True, stable=True)
        good, reached = best[order] >= self.iou_threshold, reached[order].long()
        counts = torch.ones_like(good)
        counts[good] = ~parts["difficult"][reached[good]].bool()
        good, reached = good[counts], reached[counts]
        # The first detection of each object, in the order of scores.
        first = torch.full((self._objects,), len(good)).scatter_reduce(
            0, reached[good], good.nonzero()[:, 0], "amin", include_self=True
        )
        right = torch.zeros_like(good)
        right[first[first < len(good)]] = True
        return right, positives


def average_precision(right: Tensor, positives: int, interpolation: str = "all-point") -> float:
    """Area under the curve of precision over recall, which is made to fall: a precision is the best at that recall or
    more.

    Args:
        right: bool (D), whether each detection is right, the highest score first.
        positives: the number of objects to be found.
        interpolation: "all-point" is the area; "11-point" the mean at recalls of 0, 0.1, ... 1.

    Returns:
        From 0 to 1; NaN without positives.

    Raises:
        ValueError: another interpolation, or more right ones than positives.
    """
    _check_interpolation(interpolation)
    found = right.bool().cumsum(0)
    if len(found) and found[-1] > positives:
        raise ValueError(f"{int(found[-1])} detections are right, of {positives} objects")
    if not positives:
        return float("nan")
    precision = found.double() / torch.arange(1, len(found) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    if interpolation == "all-point":
        return float(envelope[right.bool()].sum() / positives)
    # In whole numbers, for 3/10 is not 3 * 0.1.
    enough = [(10 * found >= step * positives).nonzero() for step in range(11)]
    return float(sum(envelope[where[0, 0]].item() for where in enough if len(where)) / 11)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be {' or '.join(INTERPOLATIONS)}, got {interpolation!r}")
