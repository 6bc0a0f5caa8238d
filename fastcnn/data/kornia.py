"""Kornia's augmentations for images with boxes, masks or maps of classes: rotation, shear, perspective and the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcnn.data.geometry import IGNORED, is_map
from fastcnn.data.targets import keep_objects
from fastcnn.models._extras import extra
from fastcnn.models.detection.boxes import box_area, clip_boxes, image_limits


class Kornia:
    """``Kornia(RandomRotation(15.0))`` and the like of ``kornia.augmentation``, as a transform of an image and its
    target, beside those of :mod:`fastcnn.data.transforms`.

    Kornia's boxes are of the centres of pixels, ours of their corners: half a pixel, which is added and subtracted.
    Boxes are those around the transformed corners, cut off at the border; objects without an area left, or with masks
    without a pixel, are dropped; areas change as those of the boxes. Pixels from outside are black, background of masks
    and :data:`~fastcnn.data.geometry.IGNORED` of maps. Labels stay. Random numbers are torch's.

    Args:
        augmentations: of ``kornia.augmentation``, one after another; none that mixes images.

    Raises:
        ImportError: without kornia, of the extra ``augment``.
    """

    def __init__(self, *augmentations: Any) -> None:
        kornia = extra("kornia.augmentation", "kornia's augmentation", "kornia", "augment")
        self.apply = kornia.AugmentationSequential(*augmentations, data_keys=["input"])

    def __call__(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        """An image, floating (C, H, W), and its target.

        Raises:
            ValueError: landmarks, whose order a mirror changes.
        """
        if is_map(target):
            # 0 is what kornia fills with.
            image, shifted = self._apply(image, mask=target[None].float() + 1)
            return image, torch.where(shifted[0] == 0, IGNORED, shifted[0] - 1).to(target.dtype)
        if not isinstance(target, dict):
            return self._apply(image)[0], target
        if "landmarks" in target:
            raise ValueError("kornia's augmentations do not take landmarks: use fastcnn.data.transforms")
        if not len(target["boxes"]):
            image = self._apply(image)[0]
            empty = {"masks": image.new_zeros((0, *image.shape[1:])).to(target["masks"])} if "masks" in target else {}
            return image, target | empty
        inputs = {"bbox_xyxy": target["boxes"] - 0.5}
        if "masks" in target:
            inputs["mask"] = target["masks"].to(image.dtype)
        image, boxes, *masks = self._apply(image, **inputs)
        boxes = clip_boxes(boxes + 0.5, image_limits([(image.size(1), image.size(2))], boxes))
        changed = {"boxes": boxes.to(target["boxes"])}
        kept = box_area(boxes) > 0
        if masks:
            changed["masks"] = masks[0].round().to(target["masks"])
            kept = kept & changed["masks"].flatten(1).ne(0).any(1)
        if "area" in target:
            changed["area"] = target["area"] * box_area(boxes) / box_area(target["boxes"])
        return image, keep_objects(target | changed, kept)

    def _apply(self, image: Tensor, **inputs: Tensor) -> list[Tensor]:
        """Without the batch's axis, in and out."""
        out = self.apply(image[None], *(value[None] for value in inputs.values()), data_keys=["input", *inputs])
        return [value[0] for value in (out if inputs else [out])]
