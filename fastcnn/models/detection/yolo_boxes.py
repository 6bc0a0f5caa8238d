"""Boxes of the YOLO networks: overlap, and images and targets on their way to a square batch and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.models.detection.boxes import broadcast_iou

GREY = 0.5  # What Darknet puts around a letterboxed image.


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of corners ``[..., 4]`` with corners ``[..., 4]``, broadcast; 0 where both are empty."""
    return broadcast_iou(a, b, torch.finfo(a.dtype).tiny)


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of sizes ``[N, 2]`` with sizes ``[K, 2]`` as boxes of one centre: ``[N, K]``."""
    corners = [torch.cat([-size, size], -1) for size in (a, b)]
    return box_iou(corners[0][:, None], corners[1])


def first_of_each(keys: Tensor) -> Tensor:
    """Indices, ascending, of the first of every number in ``keys`` (T,)."""
    numbers, inverse = keys.unique(return_inverse=True)
    position = torch.arange(len(keys), device=keys.device)
    first = torch.full_like(numbers, len(keys)).scatter_reduce(0, inverse, position, "amin")
    return first.sort().values


class Truth(NamedTuple):
    """The objects of a batch.

    Attributes:
        image: (T,) index of each object's image, ascending.
        boxes: (T, 4) corners in pixels of the batch.
        labels: (T,).
        tagged: (M,) images of which only a class is known, and no box.
        tags: (M,) that class.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    tagged: Tensor
    tags: Tensor

    def take(self, index: Tensor) -> Truth:
        return self._replace(image=self.image[index], boxes=self.boxes[index], labels=self.labels[index])

    def best_iou(self, boxes: Tensor) -> Tensor:
        """Each box's highest IoU with an object of its image: (N, P, 4) to (N, P); 0 where there is none."""
        if not len(self.image):
            return boxes.new_zeros(boxes.shape[:2])
        counts = self.image.bincount(minlength=len(boxes))
        rank = torch.arange(len(self.image), device=boxes.device) - (counts.cumsum(0) - counts)[self.image]
        objects = boxes.new_zeros(len(boxes), int(counts.max()), 4)
        objects[self.image, rank] = self.boxes.to(objects.dtype)
        return box_iou(boxes[:, :, None], objects[:, None]).amax(-1)


class Placement(NamedTuple):
    """Where the images lie in a batch: pixel ``p`` of one at ``p * scale + offset``; all (N, 1, 2) as (x, y).

    Attributes:
        size: width and height of the images.
    """

    scale: Tensor
    offset: Tensor
    size: Tensor

    def back(self, boxes: Tensor) -> Tensor:
        """Corners (N, D, 4) in pixels of the batch to pixels of the images, cut off at their edges."""
        corners = boxes.unflatten(-1, (2, 2))
        corners = (corners - self.offset[:, :, None]) / self.scale[:, :, None]
        return corners.clamp(min=0).minimum(self.size[:, :, None].to(corners.dtype)).flatten(-2)


def place_images(
    images: Sequence[Tensor], size: int, *, channels: int, letterbox: bool, like: Tensor
) -> tuple[Tensor, Placement]:
    """Resizes images, each (C, H, W) in [0, 1], to a batch (N, C, size, size); says where they lie.

    Bilinear and antialiased, on the device of ``like`` and in its dtype, but never resized in one of 16 bits.
    ``letterbox`` keeps the ratio of the sides and puts grey around the image, which is in the middle.

    Raises:
        TypeError: no sequence of tensors, or no floating ones.
        ValueError: no image, another shape, or an image without pixels.
    """
    if not isinstance(images, Tensor | list | tuple):
        raise TypeError(f"images must be a list of (C, H, W) tensors, got {type(images).__name__}")
    if isinstance(images, Tensor) and images.dim() != 4:
        raise ValueError(f"images must be a list of ({channels}, H, W) tensors, got {tuple(images.shape)}")
    if not len(images):
        raise ValueError("images must be one or more, got none")
    batch, rows = [], []
    for index, image in enumerate(images):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            found = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"images[{index}] must be a floating tensor with values in [0, 1], got {found}")
        if image.dim() != 3 or image.shape[0] != channels or 0 in image.shape:
            raise ValueError(f"images[{index}] must be ({channels}, H, W), got {tuple(image.shape)}")
        image = image.to(like.device, torch.promote_types(like.dtype, torch.float32))
        height, width = image.shape[1:]
        longer = max(height, width)
        new = [max(1, round(side * size / longer)) if letterbox else size for side in (height, width)]
        if new != [height, width]:
            image = F.interpolate(image[None], new, mode="bilinear", align_corners=False, antialias=True)[0]
        top, left = (size - new[0]) // 2, (size - new[1]) // 2
        if new != [size, size]:
            image = F.pad(image, (left, size - new[1] - left, top, size - new[0] - top), value=GREY)
        batch.append(image)
        rows.append(((new[1] / width, new[0] / height), (left, top), (width, height)))
    where = torch.tensor(rows, dtype=torch.float32, device=like.device)
    return torch.stack(batch).to(like.dtype), Placement(*where[:, :, None].unbind(1))


def place_targets(targets: Sequence[Mapping[str, Any]], placement: Placement, num_classes: int, *, tags: bool) -> Truth:
    """Checks targets and moves their boxes, cut off at the images' edges, to where the images lie in the batch.

    A target has ``boxes`` (L, 4), corners in pixels of its image, and ``labels`` (L), classes from 0. Where ``tags``,
    one without ``boxes`` and with one label says what an image shows, but not where.

    Raises:
        TypeError: no sequence of mappings, boxes that are not floating, or labels that are no integers.
        ValueError: another number of targets, another shape, an unknown class, or a box that is not finite, has
            xmax <= xmin or ymax <= ymin, or lies outside its image.
    """
    images = len(placement.size)
    if not isinstance(targets, list | tuple) or not all(isinstance(target, Mapping) for target in targets):
        raise TypeError(f"targets must be a list of dicts, got {type(targets).__name__}")
    if len(targets) != images:
        raise ValueError(f"targets must be one for each image, got {len(targets)} for {images}")
    device = placement.size.device
    boxes, labels, image, tagged, tag = [], [], [], [], []
    for index, target in enumerate(targets):
        found = _labels(target, num_classes, f"targets[{index}]").to(device)
        if tags and "boxes" not in target:
            if len(found) != 1:
                raise ValueError(f"targets[{index}] without boxes must have one label, got {len(found)}")
            tagged.append(index)
            tag.append(found)
            continue
        corners = _boxes(target, len(found), f"targets[{index}]").to(device, torch.float32)
        image.append(torch.full_like(found, index))
        boxes.append(_cut(corners, placement.size[index], f"targets[{index}]"))
        labels.append(found)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    where = torch.cat([none, *image])
    corners = torch.cat([placement.size.new_zeros(0, 4), *boxes]).unflatten(-1, (2, 2))
    corners = corners * placement.scale[where] + placement.offset[where]
    images_tagged = torch.tensor(tagged, dtype=torch.int64, device=device)
    return Truth(where, corners.flatten(1), torch.cat([none, *labels]), images_tagged, torch.cat([none, *tag]))


def _labels(target: Mapping[str, Any], num_classes: int, name: str) -> Tensor:
    labels = target.get("labels")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name} must have integer labels, got {found}")
    if labels.dim() != 1:
        raise ValueError(f"{name} must have labels (L), got {tuple(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise ValueError(f"{name} has label {int(wrong)}; classes are 0 to {num_classes - 1}")
    return labels.long()


def _boxes(target: Mapping[str, Any], count: int, name: str) -> Tensor:
    boxes = target.get("boxes")
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
        found = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
        raise TypeError(f"{name} must have floating boxes, got {found}")
    if boxes.shape != (count, 4) and not count == boxes.numel() == 0:
        raise ValueError(f"{name} must have boxes (L, 4) for its {count} labels, got {tuple(boxes.shape)}")
    boxes = boxes.reshape(-1, 4)
    good = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not bool(good.all()):
        wrong = int((~good).nonzero()[0])
        raise ValueError(f"{name}: box {wrong} must have finite x1 < x2 and y1 < y2, got {boxes[wrong].tolist()}")
    return boxes


def _cut(boxes: Tensor, size: Tensor, name: str) -> Tensor:
    cut = boxes.clamp(min=0).minimum(size.repeat(1, 2))
    inside = (cut[:, 2:] > cut[:, :2]).all(1)
    if not bool(inside.all()):
        wrong = int((~inside).nonzero()[0])
        width, height = size[0].tolist()
        raise ValueError(
            f"{name}: box {wrong} lies outside its image of {width:.0f}x{height:.0f}, got {boxes[wrong].tolist()}"
        )
    return cut
