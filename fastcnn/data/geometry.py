"""Images and what is known of them, mirrored, cropped, padded and resized together.

Images are (C, H, W). What is known of one is a detector's dict, see :func:`~fastcnn.data.targets.make_target`; or a map
of classes, int64 (H, W); or a label, or anything else, which no change of the image changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.data.targets import MIRRORED, Target, keep_objects
from fastcnn.models.detection.boxes import box_area, clip_boxes, image_limits
from fastcnn.models.detection.transform import resize_target

# Of the pixels of a map that no image gave; metrics and losses leave it out.
IGNORED = 255


def is_map(target: Any) -> bool:
    """Whether it is a map of classes."""
    return isinstance(target, Tensor) and target.dim() == 2 and not target.is_floating_point()


def flip(image: Tensor, target: Any) -> tuple[Tensor, Any]:
    """Left becomes right; of faces with landmarks (L, 5, 2), the left eye the right one."""
    mirrored = image.flip(-1)
    if is_map(target):
        return mirrored, target.flip(-1)
    if not isinstance(target, dict):
        return mirrored, target
    width = image.size(-1)
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    target = target | {"boxes": torch.stack((width - x2, y1, width - x1, y2), 1)}
    if "masks" in target:
        target["masks"] = target["masks"].flip(2)
    if "landmarks" in target:
        x, y = target["landmarks"][:, MIRRORED].unbind(-1)
        target["landmarks"] = torch.stack((width - x, y), -1)
    return mirrored, target


def turn(image: Tensor, target: Any, quarters: int = 1) -> tuple[Tensor, Any]:
    """Quarters, 0 or more, to the left: by one, the right edge becomes the upper one."""
    turned = image.rot90(quarters, (-2, -1))
    if is_map(target):
        return turned, target.rot90(quarters, (-2, -1))
    if not isinstance(target, dict):
        return turned, target
    target = dict(target)
    for quarter in range(quarters):
        width = image.size(-1 - quarter % 2)
        x1, y1, x2, y2 = target["boxes"].unbind(1)
        target["boxes"] = torch.stack((y1, width - x2, y2, width - x1), 1)
        if "landmarks" in target:
            x, y = target["landmarks"].unbind(-1)
            target["landmarks"] = torch.stack((y, width - x), -1)
    if "masks" in target:
        target["masks"] = target["masks"].rot90(quarters, (-2, -1))
    return turned, target


def crop(image: Tensor, target: Any, top: int, left: int, height: int, width: int) -> tuple[Tensor, Any]:
    """A part of the image; objects of which nothing is left are dropped."""
    part = image[:, top : top + height, left : left + width]
    if is_map(target):
        return part, target[top : top + height, left : left + width]
    if not isinstance(target, dict):
        return part, target
    corners = target["boxes"].new_tensor((left, top, left + width, top + height))
    boxes = target["boxes"]
    left_over = torch.minimum(boxes[:, 2:], corners[2:]) > torch.maximum(boxes[:, :2], corners[:2])
    return part, crop_objects(target, (top, left, height, width), left_over.all(1))


def crop_objects(target: Target, part: tuple[int, int, int, int], kept: Tensor) -> Target:
    """The objects ``kept`` (L) in a part of their image, (top, left, height, width), in which each must have an area.

    Boxes are cut off at the border, areas by as much; of objects with masks, those without a pixel inside are dropped.
    """
    top, left, height, width = part
    if "masks" in target:
        masks = target["masks"][:, top : top + height, left : left + width]
        target = target | {"masks": masks}
        kept = kept & masks.flatten(1).ne(0).any(1)
    target = keep_objects(target, kept)
    old = target["boxes"]
    boxes = clip_boxes(old - old.new_tensor((left, top, left, top)), image_limits([(height, width)], old))
    if "area" in target:
        target["area"] = target["area"] * box_area(boxes) / box_area(old)
    if "landmarks" in target:
        target["landmarks"] = target["landmarks"] - target["landmarks"].new_tensor((left, top))
    target["boxes"] = boxes
    return target


def pad(
    image: Tensor, target: Any, sides: tuple[int, int, int, int], fill: float | Sequence[float] = 0.0
) -> tuple[Tensor, Any]:
    """The image on a canvas that is larger by ``sides``: left, right, top and bottom, each from 0.

    Args:
        fill: value of the canvas, one or a channel's each; maps become :data:`IGNORED` there.
    """
    left, right, top, bottom = sides
    channels, height, width = image.shape
    canvas = image.new_tensor(fill).reshape(-1, 1, 1).expand(channels, height + top + bottom, width + left + right)
    canvas = canvas.clone()
    canvas[:, top : top + height, left : left + width] = image
    if is_map(target):
        return canvas, F.pad(target, sides, value=IGNORED)
    if not isinstance(target, dict):
        return canvas, target
    target = target | {"boxes": target["boxes"] + target["boxes"].new_tensor((left, top, left, top))}
    if "masks" in target:
        target["masks"] = F.pad(target["masks"], sides)
    if "landmarks" in target:
        target["landmarks"] = target["landmarks"] + target["landmarks"].new_tensor((left, top))
    return canvas, target


def resize(image: Tensor, target: Any, size: tuple[int, int]) -> tuple[Tensor, Any]:
    """Height and width become ``size``, bilinearly with antialiasing; of maps and masks the nearest pixel stays.

    Areas grow with the image's, so that they stay those of the objects.
    """
    old = (image.size(1), image.size(2))
    if old == size:
        return image, target
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    if is_map(target):
        # In float64, which holds any label; torch has no nearest pixels of integers but uint8.
        return image, F.interpolate(target[None, None].double(), size, mode="nearest-exact")[0, 0].to(target.dtype)
    if not isinstance(target, dict):
        return image, target
    target = resize_target(target, old, size)
    if "area" in target:
        target["area"] = target["area"] * (size[0] * size[1] / (old[0] * old[1]))
    return image, target
