"""Checks of predictions and targets, once for all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_pairs(
    predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]], masks: bool = False
) -> None:
    """Detections and targets of the same images.

    Raises:
        ValueError: another number of one than of the other, a part that is missing or of another shape, a score that
            is NaN.
    """
    if len(predictions) != len(targets):
        raise ValueError(
            f"predictions and targets must be of the same images, got {len(predictions)} and {len(targets)}"
        )
    for index, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        _check(f"predictions[{index}]", prediction, ("labels", "scores"), masks)
        _check(f"targets[{index}]", target, ("labels",), masks)
        if bool(torch.isnan(prediction["scores"]).any()):
            raise ValueError(f"predictions[{index}]['scores'] has a NaN")


def _check(name: str, found: Mapping[str, Tensor], vectors: Sequence[str], masks: bool) -> None:
    for key in ("boxes", *vectors, *(["masks"] if masks else [])):
        if key not in found:
            raise ValueError(f"{name} has no {key!r}")
    boxes = found["boxes"]
    if boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"{name}['boxes'] must be (L, 4), got {tuple(boxes.shape)}")
    for key in vectors:
        if found[key].shape != (len(boxes),):
            raise ValueError(f"{name}[{key!r}] must be ({len(boxes)},), got {tuple(found[key].shape)}")
    if masks and (found["masks"].dim() not in (3, 4) or len(found["masks"]) != len(boxes)):
        raise ValueError(f"{name}['masks'] must be ({len(boxes)}, H, W), got {tuple(found['masks'].shape)}")
