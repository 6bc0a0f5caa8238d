"""Pieces of an image for a classifier to look at: sliding windows, and the crops of R-CNN."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn import ops


def sliding_windows(size: tuple[int, int], window: tuple[int, int], stride: int | tuple[int, int]) -> Tensor:
    """Windows of one size inside an image, row by row: float32 (N, 4) corners.

    Args:
        size, window: height and width in pixels.
        stride: pixels from one to the next; down and across, if two.

    Raises:
        ValueError: a number below 1, or a window larger than the image.
    """
    strides = (stride, stride) if isinstance(stride, int) else stride
    if min(*size, *window, *strides) < 1 or window[0] > size[0] or window[1] > size[1]:
        raise ValueError(f"windows of {window} with stride {stride} do not fit into an image of {size}")
    tops, lefts = (
        torch.arange(0, side - length + 1, step) for side, length, step in zip(size, window, strides, strict=True)
    )
    top, left = (each.flatten() for each in torch.meshgrid(tops, lefts, indexing="ij"))
    return torch.stack((left, top, left + window[1], top + window[0]), 1).float()


def warp_crops(image: Tensor, boxes: Tensor, size: int = 227, context: int = 16) -> Tensor:
    """Boxes of an image, each stretched to a square: what R-CNN's network sees.

    Girshick et al., Rich feature hierarchies, CVPR 2014, section 2.1 and supplement A: the box is widened so that
    ``context`` pixels on each side of the result are its surroundings, and what lies outside the image is its mean.
    Bilinear, one sample to a pixel as in R-CNN, by :func:`fastcnn.ops.roi_align`; differentiable and deterministic.
    2,000 crops of 227 x 227 take 1.2 GB.

    Args:
        image: floating (C, H, W).
        boxes: (N, 4) corners.
        size: side of the results, in pixels.
        context: in pixels of the result.

    Returns:
        (N, C, size, size), of the dtype of ``image``.

    Raises:
        TypeError: an image that is not floating.
        ValueError: another shape, a size below 1, or a context that leaves nothing of it.
    """
    if image.dim() != 3 or 0 in image.shape or boxes.dim() != 2 or boxes.size(1) != 4:
        raise ValueError(f"warp_crops takes (C, H, W) and (N, 4), got {tuple(image.shape)} and {tuple(boxes.shape)}")
    if size < 1 or not 0 <= 2 * context < size:
        raise ValueError(f"context must be from 0 and less than half of size, got {context} of {size}")
    boxes = boxes.to(image)
    margin = (boxes[:, 2:] - boxes[:, :2]) * (context / (size - 2 * context))
    rois = torch.cat((boxes[:, :2] - margin, boxes[:, 2:] + margin), 1)
    # RoI align takes zeros from outside, so zero is made the mean.
    mean = image.mean((1, 2), keepdim=True)
    return ops.roi_align((image - mean)[None], [rois], size, 1.0, sampling_ratio=1, aligned=True) + mean
