"""Checks of what people pass to a detector, each with the offending value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.models.detection.transform import Size, Target


def check_images(images: Sequence[Tensor] | Tensor, channels: int) -> list[Size]:
    """Sizes (height, width) of a list of (channels, H, W) images or of a batch.

    Raises:
        TypeError: not a list of floating tensors.
        ValueError: no image, or one of another shape or without a pixel.
    """
    if not isinstance(images, Tensor | list | tuple):
        raise TypeError(f"images must be a list of tensors, got {type(images).__name__}")
    if isinstance(images, Tensor) and images.dim() != 4:
        raise ValueError(f"images must be (N, {channels}, H, W) or a list, got {tuple(images.shape)}")
    if not len(images):
        raise ValueError("images must be one or more, got none")
    for index, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(f"images[{index}] must be a tensor, got {type(image).__name__}")
        if not image.is_floating_point():
            raise TypeError(f"images[{index}] must be floating with values in [0, 1], got {image.dtype}")
        if image.dim() != 3 or image.size(0) != channels or 0 in image.shape:
            raise ValueError(f"images[{index}] must be ({channels}, H, W), got {tuple(image.shape)}")
    return [(image.size(1), image.size(2)) for image in images]


def check_targets(
    targets: Sequence[Target], sizes: Sequence[Size], classes: range, masks: bool = False, landmarks: int = 0
) -> None:
    """Targets of images of these sizes: see :meth:`fastcnn.models.detection.detector.Detector.forward`.

    Raises:
        TypeError: no list of dicts, or tensors of another dtype.
        ValueError: another number of targets than of images, or a missing, misshapen or impossible part of one.
    """
    if not isinstance(targets, list | tuple):
        raise TypeError(f"targets must be a list of dicts, got {type(targets).__name__}")
    if len(targets) != len(sizes):
        raise ValueError(f"targets must be one for each of {len(sizes)} images, got {len(targets)}")
    for index, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        for key in ("boxes", "labels", *(["masks"] if masks else []), *(["landmarks"] if landmarks else [])):
            if not isinstance(target, dict) or not isinstance(target.get(key), Tensor):
                raise ValueError(f"targets[{index}] must be a dict with a tensor {key!r}")
        _check_boxes(f"targets[{index}]['boxes']", target["boxes"])
        _check_inside(f"targets[{index}]['boxes']", target["boxes"], size)
        count = len(target["boxes"])
        _check_labels(f"targets[{index}]['labels']", target["labels"], count, classes)
        if masks and target["masks"].shape != (count, *size):
            raise ValueError(f"targets[{index}]['masks'] must be {(count, *size)}, got {tuple(target['masks'].shape)}")
        if landmarks:
            _check_landmarks(f"targets[{index}]['landmarks']", target["landmarks"], (count, landmarks, 2))


def check_proposals(proposals: Sequence[Tensor], count: int) -> None:
    """Boxes (P, 4) to look at, for each of ``count`` images.

    Raises:
        TypeError: no list, or tensors that are not floating.
        ValueError: another number of them, or one that is misshapen, not finite or without area.
    """
    if not isinstance(proposals, list | tuple):
        raise TypeError(f"proposals must be a list of tensors, got {type(proposals).__name__}")
    if len(proposals) != count:
        raise ValueError(f"proposals must be one tensor for each of {count} images, got {len(proposals)}")
    for index, boxes in enumerate(proposals):
        _check_boxes(f"proposals[{index}]", boxes)


def _check_boxes(name: str, boxes: Tensor) -> None:
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must be floating, got {boxes.dtype}")
    if boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"{name} must be (G, 4), got {tuple(boxes.shape)}")
    # Written so that NaN is wrong too.
    wrong = ~(torch.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{name} must be finite with x1 < x2 and y1 < y2, got {boxes[row].tolist()} in row {row}")


def _check_inside(name: str, boxes: Tensor, size: Size) -> None:
    """That of every box something lies in the image: what no anchor overlaps would be learnt from any."""
    outside = (boxes[:, 2:] <= 0).any(1) | (boxes[:, :2] >= boxes.new_tensor((size[1], size[0]))).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(f"{name} must lie in the image of {size}, got {boxes[row].tolist()} in row {row}")


def _check_landmarks(name: str, points: Tensor, shape: tuple[int, int, int]) -> None:
    if not points.is_floating_point():
        raise TypeError(f"{name} must be floating, got {points.dtype}")
    if points.shape != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(points.shape)}")
    wrong = points.isinf().any(-1) | (points.isnan().any(-1) != points.isnan().all(-1))
    if bool(wrong.any()):
        row = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name} must be points that are finite, or NaN for none, got {points[tuple(row)].tolist()}")


def _check_labels(name: str, labels: Tensor, count: int, classes: range) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name} must be ({count},), one for each box, got {tuple(labels.shape)}")
    wrong = (labels < classes.start) | (labels >= classes.stop)
    if bool(wrong.any()):
        found = int(labels[wrong][0])
        raise ValueError(f"{name} must be {classes.start} to {classes.stop - 1}, got {found}")
