"""Boxes in the forms detectors pass them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks

MAX_GRID = 1 << 20  # As kMaxRoiGrid of the kernels; a box with more samples than this to an axis of a bin gives zeros.


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


def bins_of(op: str, size: int | Sequence[int]) -> tuple[int, int]:
    """`size`, one number or two, as height and width in bins; ValueError or TypeError in the name of `op`."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"{op}: expected output_size of one or two numbers, got {size!r}")
    if type(pair[0]) is not int or type(pair[1]) is not int:
        _checks.integer(op, output_height=pair[0], output_width=pair[1])
        pair = tuple(n if isinstance(n, torch.SymInt) else int(n) for n in pair)
    if pair[0] < 1 or pair[1] < 1:
        raise ValueError(f"{op}: expected a positive output_size, got {size!r}")
    if pair[0] * pair[1] > MAX_GRID:
        raise ValueError(f"{op}: expected at most 2**20 bins, got output_size {size!r}")
    return pair  # type: ignore[return-value]


def check_images(op: str, rois: Tensor, images: int) -> None:
    """Raises ValueError for a batch index that is NaN or none of the images."""
    outside = ~((rois[:, 0] > -1) & (rois[:, 0] < images))
    if bool(outside.any()):
        k = int(outside.nonzero()[0])
        raise ValueError(f"{op}: box {k} has batch index {float(rois[k, 0]):g}, but the input holds {images} image(s)")


@contextlib.contextmanager
def index_errors(op: str) -> Iterator[None]:
    """Turns what the kernels say of a batch index into the ValueError of :func:`check_images`."""
    try:
        yield
    except RuntimeError as error:
        if str(error).startswith(f"{op}: box"):
            raise ValueError(str(error).splitlines()[0]) from None
        raise


def is_channels_last(x: Tensor) -> bool:
    return suggest_memory_format(x) == torch.channels_last


def empty_maps(size: Sequence[int], like: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)
