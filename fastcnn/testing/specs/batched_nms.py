"""The row of ``batched_nms``."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, random_boxes, reference_of, torchvision_peer


def _case(name: str, count: int, classes: int, threshold=0.5, image=1000.0, levels=0, spread=1, distinct=False) -> Case:
    def make(dtype, device, g):
        boxes = random_boxes(count, g, image)
        scores = torch.rand(count, generator=g)
        if levels:  # Quantised scores tie often.
            scores = (scores * levels).round() / levels
        if distinct:  # torchvision's order of equal scores is not a stable one.
            scores = torch.randperm(count, generator=g) / count
        idxs = torch.randint(classes, (count,), generator=g) * spread
        return boxes.to(device, dtype), scores.to(device, dtype), idxs.to(device), threshold

    return Case(name, make)


def class_by_class(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """torchvision for many boxes. For fewer, on a GPU up to 25,000, it moves classes apart, and rounds coordinates."""
    from torchvision.ops.boxes import _batched_nms_vanilla

    keep = _batched_nms_vanilla(boxes, scores, idxs, iou_threshold).sort().values
    return keep[scores[keep].sort(descending=True, stable=True).indices]


SPEC = OpSpec(
    name="batched_nms",
    function=ops.batched_nms,
    reference=reference_of(ops.batched_nms),
    cases=(
        _case("uniform", 300, 20, image=100.0),
        _case("ties", 200, 3, 0.3, image=150.0, levels=8),
        _case("one class", 300, 1, image=150.0),
        # More than 1,000 boxes: for fewer torchvision does not compare classes exactly.
        _case("far class numbers", 1100, 5, image=300.0, spread=10**9),
        _case("many boxes", 2500, 7, image=400.0),
        _case("threshold 0", 100, 4, 0.0, image=300.0),
        _case("threshold -1", 1100, 4, -1.0),
        _case("one box", 1, 1),
        _case("no boxes", 0, 1),
    ),
    layers=tuple(_case(f"{n} boxes of 80 classes", n, 80, distinct=True) for n in (1000, 6000, 24564, 100_000)),
    overload=lambda *args: (torch.ops.fastcnn.batched_nms.default, args),
    gradients=(),
    data_dependent=True,
    peer=torchvision_peer("batched_nms"),
    judge=class_by_class if torchvision_peer("batched_nms") else None,
    exact=True,
)
