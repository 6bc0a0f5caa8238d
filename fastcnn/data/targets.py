"""What is known of an image: the target dicts that data sets give, transforms change and metrics read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcnn.models.detection.boxes import box_area, clip_boxes, image_limits

Target = dict[str, Tensor]

# Of these an object has a row each.
PER_OBJECT = ("boxes", "labels", "masks", "landmarks", "area", "iscrowd", "difficult")

# What a mirrored face's landmarks are, of left eye, right eye, nose, left and right corner of the mouth.
MIRRORED = (1, 0, 2, 4, 3)


def make_target(
    boxes: Tensor,
    labels: Tensor,
    image_id: int,
    *,
    masks: Tensor | None = None,
    area: Tensor | None = None,
    iscrowd: Tensor | None = None,
) -> Target:
    """A target of L objects, with torchvision's keys.

    Returns:
        ``boxes`` float32 (L, 4), corners x1, y1, x2, y2 in pixels, where pixel k reaches from k to k + 1; ``labels``
        int64 (L), from 1; ``area`` float32 (L), that of the boxes if none is given; ``iscrowd`` int64 (L);
        ``image_id`` int64 (); and ``masks`` uint8 (L, H, W), where there are any.
    """
    boxes, labels = boxes.float().reshape(-1, 4), labels.long()
    target = {
        "boxes": boxes,
        "labels": labels,
        "area": box_area(boxes) if area is None else area.float(),
        "iscrowd": torch.zeros_like(labels) if iscrowd is None else iscrowd.long(),
        "image_id": torch.tensor(image_id),
    }
    return target if masks is None else target | {"masks": masks.to(torch.uint8)}


def keep_objects(target: Target, kept: Tensor) -> Target:
    """The target of these objects alone, by a mask (L) or their indices."""
    return {key: value[kept] if key in PER_OBJECT else value for key, value in target.items()}


def mask_extents(masks: Tensor) -> Tensor:
    """The smallest boxes around masks (L, H, W): float32 (L, 4), which end where the last pixel does.

    Raises:
        ValueError: a mask without a pixel.
    """
    sides = []
    for axis in (1, 2):  # Columns, then rows.
        filled = masks.ne(0).any(axis)
        if not bool(filled.any(1).all()):
            raise ValueError(f"mask {int((~filled.any(1)).nonzero()[0])} of {len(masks)} has no pixel")
        pixel = torch.arange(filled.size(1))
        first = torch.where(filled, pixel, filled.size(1)).amin(1)
        sides.append((first, torch.where(filled, pixel, -1).amax(1) + 1))
    (left, right), (top, bottom) = sides
    return torch.stack((left, top, right, bottom), 1).float()


def clip_to_image(where: str, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (L, 4) of a file, cut off at the border of an image (height, width).

    Raises:
        ValueError: in the name of ``where``, for a box with NaN or infinity, without area or outside the image.
    """
    clipped = clip_boxes(boxes, image_limits([size], boxes))
    # Written so that NaN is wrong too.
    wrong = ~(torch.isfinite(boxes).all(1) & (clipped[:, 2:] > clipped[:, :2]).all(1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{where}: box {row} is x1, y1, x2, y2 = {[round(v, 2) for v in boxes[row].tolist()]}, which has no area "
            f"in an image {size[1]} wide and {size[0]} high"
        )
    return clipped


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """A DataLoader's ``collate_fn``: images and targets as lists, for neither are of one size."""
    return [image for image, _ in batch], [target for _, target in batch]
