"""The row of ``batched_nms_padded``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, random_boxes, reference_of, torchvision_peer
from fastcnn.testing.specs.batched_nms import class_by_class


def _case(
    name: str, images: int | None, count: int, classes: int, size: int, threshold=0.5, image=1000.0, **kwargs: Any
) -> Case:
    def make(dtype, device, g):
        total = count * (1 if images is None else images)
        boxes, scores = random_boxes(total, g, image), torch.rand(total, generator=g)
        idxs = torch.randint(classes, (total,), generator=g)
        if images is not None:
            boxes, scores, idxs = boxes.view(images, count, 4), scores.view(images, count), idxs.view(images, count)
        return boxes.to(device, dtype), scores.to(device, dtype), idxs.to(device), threshold, size

    return Case(name, make, kwargs)


def _with_torchvision(
    boxes, scores, idxs, iou_threshold, size, score_threshold=None, suppress=None
) -> tuple[Tensor, Tensor]:
    """As torchvision's detectors end: suppression of one image, and its first boxes."""
    if boxes.dim() == 3:
        images = zip(boxes, scores, idxs, strict=True)
        if not len(boxes):
            return idxs.new_empty(0, size), idxs.new_empty(0)
        each = [_with_torchvision(*image, iou_threshold, size, score_threshold, suppress) for image in images]
        return torch.stack([e[0] for e in each]), torch.stack([e[1] for e in each])
    suppress = suppress or torchvision_peer("batched_nms")["torchvision"]
    above = (scores > (-torch.inf if score_threshold is None else score_threshold)).nonzero()[:, 0]
    keep = above[suppress(boxes[above], scores[above], idxs[above], iou_threshold)[:size]]
    return torch.nn.functional.pad(keep, (0, size - len(keep)), value=-1), keep.new_tensor(len(keep))


def _overload(boxes, scores, idxs, iou_threshold, size, score_threshold=None):
    images = (boxes, scores, idxs) if boxes.dim() == 3 else (boxes[None], scores[None], idxs[None])
    return torch.ops.fastcnn.batched_nms_padded.default, (*images, iou_threshold, size, score_threshold)


SPEC = OpSpec(
    name="batched_nms_padded",
    function=ops.batched_nms_padded,
    reference=reference_of(ops.batched_nms_padded),
    cases=(
        _case("filled", 3, 150, 5, 20, image=100.0, score_threshold=0.1),
        _case("one image", None, 150, 5, 20, image=100.0),
        _case("padded", 2, 60, 3, 80, image=100.0),
        _case("several looks", 1, 3000, 2, 100, threshold=0.01, image=100.0),
        _case("few above", 2, 60, 3, 10, image=100.0, score_threshold=0.95),
        _case("none above", 2, 60, 3, 10, image=100.0, score_threshold=1.5),
        _case("nothing wanted", 2, 10, 3, 0),
        _case("no boxes", 2, 0, 3, 5),
        _case("no images", 0, 10, 3, 5),
    ),
    layers=(
        _case("SSD300: 8732 boxes of 80 classes, 200 kept", None, 8732, 80, 200, threshold=0.45),
        _case("RetinaNet: 4 x 4507 boxes of 80 classes, 100 kept", 4, 4507, 80, 100),
        _case("100000 boxes of 80 classes, 300 kept", None, 100_000, 80, 300, score_threshold=0.05),
    ),
    overload=_overload,
    gradients=(),
    peer={"torchvision": _with_torchvision} if torchvision_peer("batched_nms") else {},
    judge=functools.partial(_with_torchvision, suppress=class_by_class) if torchvision_peer("batched_nms") else None,
    exact=True,
)
