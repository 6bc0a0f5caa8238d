"""From images and targets of any sizes to one batch, and from its detections back: torchvision's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.models.detection.masks import paste_masks

Size = tuple[int, int]  # Height and width.
Target = dict[str, Tensor]


def resize_boxes(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Boxes (..., 4) of an image of the size ``old`` in one of the size ``new``."""
    return resize_points(boxes.unflatten(-1, (2, 2)), old, new).flatten(-2)


def resize_points(points: Tensor, old: Size, new: Size) -> Tensor:
    """The same of points (..., 2), x and y."""
    return points * points.new_tensor((new[1] / old[1], new[0] / old[0]))


@dataclass(frozen=True)
class DetectionTransform:
    """Normalises, resizes by bilinear interpolation without antialiasing, and pads with zeros at the right and below.

    The shorter side becomes ``min_size`` unless the longer one would exceed ``max_size`` (Girshick, Fast R-CNN, section
    5.2); no side becomes less than a pixel.

    Attributes:
        min_size: of the shorter side; training draws one of several for each image, inference takes the last.
        max_size: of the longer side.
        mean, std: per channel, of pixels in [0, 1].
        size_divisible: the sides of the batch are multiples of this.
        fixed_size: (height, width) of every image, whatever its own, in place of the first two.
    """

    min_size: int | Sequence[int]
    max_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size_divisible: int = 32
    fixed_size: Size | None = None

    def __call__(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        training: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, list[Size], list[Target] | None]:
        """Images (C, H, W) to a batch (N, C, H', W'), the sizes of the images in it, and targets with boxes, masks
        (G, H, W) and landmarks (G, P, 2) in its pixels."""
        sizes = [self.resized(_size(image), training, generator) for image in images]
        shapes = {image.shape for image in images}
        if len(shapes) == len(set(sizes)) == 1:
            resized = list(self._resize(torch.stack(list(images)), sizes[0]))
        else:
            resized = [self._resize(image[None], size)[0] for image, size in zip(images, sizes, strict=True)]
        batch = self.pad(resized)
        if targets is None:
            return batch, sizes, None
        olds = map(_size, images)
        return batch, sizes, [resize_target(*each) for each in zip(targets, olds, sizes, strict=True)]

    def resized(self, size: Size, training: bool = False, generator: torch.Generator | None = None) -> Size:
        """What becomes of an image of this size."""
        if self.fixed_size is not None:
            return self.fixed_size
        choices = (self.min_size,) if isinstance(self.min_size, int) else self.min_size
        shorter = choices[-1]
        if training and len(choices) > 1:
            shorter = choices[int(torch.randint(len(choices), (), generator=generator))]
        scale = min(shorter / min(size), self.max_size / max(size))
        return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))

    def restore(
        self, detections: list[dict[str, Tensor]], sizes: Sequence[Size], originals: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """Detections with boxes and landmarks (D, P, 2) in pixels of the original images, and masks (D, 1, M, M) pasted
        there."""
        for detection, size, original in zip(detections, sizes, originals, strict=True):
            detection["boxes"] = resize_boxes(detection["boxes"], size, original)
            if "landmarks" in detection:
                detection["landmarks"] = resize_points(detection["landmarks"], size, original)
            if "masks" in detection:
                detection["masks"] = paste_masks(detection["masks"], detection["boxes"], original)
        return detections

    def _resize(self, images: Tensor, size: Size) -> Tensor:
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return F.interpolate((images - mean) / std, size, mode="bilinear", align_corners=False)

    def pad(self, images: list[Tensor]) -> Tensor:
        """One batch of images (C, Hi, Wi)."""
        sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
        sides = [-(-side // self.size_divisible) * self.size_divisible for side in sides]
        batch = images[0].new_zeros((len(images), images[0].size(0), *sides))
        for place, image in zip(batch, images, strict=True):
            place[:, : image.size(1), : image.size(2)].copy_(image)
        return batch


def _size(image: Tensor) -> Size:
    return image.size(1), image.size(2)


def resize_target(target: Target, old: Size, new: Size) -> Target:
    """Boxes, masks (G, H, W) and landmarks (G, P, 2) of an image of the size ``old`` in one of the size ``new``."""
    target = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
    if "landmarks" in target:
        target["landmarks"] = resize_points(target["landmarks"], old, new)
    if "masks" in target:
        target["masks"] = F.interpolate(target["masks"][:, None].float(), new)[:, 0].byte()
    return target
