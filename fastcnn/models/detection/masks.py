"""Masks of instances: drawn into images, and cut out of them."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn import ops


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Draws masks into an image: He et al., Mask R-CNN, ICCV 2017, section 3.1, "Inference".

    A mask, with a pixel of zeros around it, is resized to its box, rounded as torchvision does. All masks are drawn at
    once: the weights of rows and of columns are two matrices to multiply a mask with, zero outside its box.

    Args:
        masks: (D, 1, M, M) probabilities.
        boxes: (D, 4) corners in the image.
        size: height and width of the image.

    Returns:
        (D, 1, height, width), of the dtype of ``masks``. Deterministic.
    """
    side = masks.size(-1) + 2
    centre, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * (0.5 * side / (side - 2))
    first, last = (centre - half).long(), (centre + half).long()
    columns, rows = (_weights(first[:, axis], last[:, axis], size[1 - axis], side, masks) for axis in (0, 1))
    return (rows @ masks[:, 0] @ columns.transpose(1, 2))[:, None]


def _weights(first: Tensor, last: Tensor, pixels: int, side: int, like: Tensor) -> Tensor:
    """(D, pixels, side - 2): bilinear weights of a padded mask's inner rows, stretched from the first to the last
    pixel."""
    pixel = torch.arange(pixels, device=like.device)
    length = (last - first + 1).clamp(min=1)[:, None]
    place = ((pixel - first[:, None] + 0.5) * (side / length.double()) - 0.5).clamp(0, side - 1)
    inner = torch.arange(1, side - 1, device=like.device)
    weights = (1 - (place[..., None] - inner).abs()).clamp(min=0)
    outside = (pixel < first[:, None]) | (pixel >= first[:, None] + length)
    return weights.masked_fill(outside[..., None], 0).to(like.dtype)


def crop_masks(masks: Tensor, boxes: Tensor, matches: Tensor, side: int) -> Tensor:
    """Targets (R, side, side) of a mask head: the matched masks within boxes, by RoI align.

    Args:
        masks: (G, height, width) of the ground truth, 0 or 1.
        boxes: (R, 4) corners in the image.
        matches: (R), the mask of each box.
    """
    rois = torch.cat((matches[:, None].to(boxes), boxes), 1)
    return ops.roi_align(masks[:, None].to(boxes), rois, side, 1.0)[:, 0]
