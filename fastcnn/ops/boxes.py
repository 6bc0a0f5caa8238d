"""Boxes in the forms detectors pass them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.ops import _checks


def rois_of(op: str, boxes: Tensor | Sequence[Tensor], input: Tensor) -> Tensor:
    """``[K, 5]`` rows ``(batch index, x1, y1, x2, y2)`` from such a tensor or from one ``[L, 4]`` tensor per image.

    Raises ValueError or TypeError, in the name of `op`, for anything else or for another device than that of `input`.
    """
    if isinstance(boxes, Tensor):
        _checks.floating(op, boxes=boxes)
        if boxes.dim() != 2 or boxes.size(1) != 5:
            raise ValueError(
                f"{op}: expected boxes of shape [K, 5] or a list of [L, 4] tensors, got a tensor of shape "
                f"{list(boxes.shape)}"
            )
        rois = boxes
    elif isinstance(boxes, (list, tuple)):
        if len(boxes) > input.size(0):
            raise ValueError(f"{op}: got boxes for {len(boxes)} images, but the input holds {input.size(0)}")
        for i, b in enumerate(boxes):
            _checks.floating(op, **{f"boxes[{i}]": b})
            if b.dim() != 2 or b.size(1) != 4:
                raise ValueError(f"{op}: expected boxes[{i}] of shape [L, 4], got {list(b.shape)}")
            if b.device != input.device:
                _checks.same_device(op, input=input, **{f"boxes[{i}]": b})
        rois = convert_boxes_to_rois(boxes) if boxes else input.new_zeros(0, 5)
    else:
        raise TypeError(f"{op}: expected boxes to be a tensor or a list of tensors, got {type(boxes).__name__}")
    if rois.device != input.device:
        _checks.same_device(op, input=input, boxes=rois)
    return rois


def convert_boxes_to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Joins one ``[L, 4]`` tensor per image into ``[K, 5]`` rows that begin with the index of the image.

    The result has the widest dtype of the boxes, and never a 16-bit one, which could not hold every index.
    """
    dtype = torch.float32
    for b in boxes:
        dtype = torch.promote_types(dtype, b.dtype)
    indices = [torch.full((b.size(0), 1), i, dtype=dtype, device=b.device) for i, b in enumerate(boxes)]
    return torch.cat([torch.cat(indices), torch.cat([b.to(dtype) for b in boxes])], dim=1)


def class_keys(op: str, boxes: Tensor, scores: Tensor, idxs: Tensor) -> Tensor:
    """`idxs` as int64 that are equal where the classes are, after checks of both against ``[..., N, 4]`` boxes.

    Raises ValueError or TypeError, in the name of `op`, for another shape or device than that of the boxes.
    """
    if not isinstance(idxs, Tensor):
        raise TypeError(f"{op}: expected idxs to be a tensor, got {type(idxs).__name__}")
    if idxs.dtype.is_complex:
        raise TypeError(f"{op}: expected idxs of real numbers, got {idxs.dtype}")
    for name, value in (("scores", scores), ("idxs", idxs)):
        if value.shape != boxes.shape[:-1]:
            raise ValueError(
                f"{op}: expected {name} of shape {list(boxes.shape[:-1])} for boxes of shape {list(boxes.shape)}, got "
                f"{list(value.shape)}"
            )
    _checks.same_device(op, boxes=boxes, scores=scores, idxs=idxs)
    if idxs.dtype.is_floating_point:
        # Their bits; adding 0 makes one class of both zeros.
        return (idxs.double() + 0.0).view(torch.int64)
    return idxs.to(torch.int64)
