"""SSD's augmentation of an image and its target: Liu et al., SSD, ECCV 2016, sections 2.2 and 3.6; extended version.

Names and arguments are those of torchvision.transforms.v2, where it has them. Images are floating (3, H, W) in [0, 1],
targets those of :func:`~fastcnn.data.targets.make_target`. Random numbers are torch's, of the default generator, so
that ``torch.manual_seed`` repeats them and a DataLoader's workers differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastcnn.data._random import below, happens, probability, uniform
from fastcnn.data.geometry import crop_objects, flip, pad, turn
from fastcnn.data.images import LUMA
from fastcnn.data.targets import Target
from fastcnn.models.detection.boxes import box_iou

Pair = tuple[Tensor, Target]


class Compose:
    """Transforms one after another."""

    def __init__(self, transforms: Sequence[Callable[[Tensor, Target], Pair]]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, image: Tensor, target: Target) -> Pair:
        for transform in self.transforms:
            image, target = transform(image, target)
        return image, target


class RandomHorizontalFlip:
    """Mirrors image, boxes, masks and landmarks (L, 5, 2) of faces with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = probability(p)

    def __call__(self, image: Tensor, target: Target) -> Pair:
        return flip(image, target) if happens(self.p) else (image, target)


class RandomQuarterTurn:
    """Turns image, boxes, masks and landmarks by 0, 1, 2 or 3 quarters, each as likely; sides change places."""

    def __call__(self, image: Tensor, target: Target) -> Pair:
        return turn(image, target, int(torch.randint(4, ())))


class RandomZoomOut:
    """Puts the image, with probability ``p``, somewhere on a canvas of ``fill`` whose sides are longer by a random
    factor: "zoom out", section 3.6 of the extended version (arXiv:1512.02325v5), up to 16 times the area.

    Args:
        fill: value of the canvas, one or a channel's each; ImageNet's mean is the paper's.
        side_range: the least and the largest factor, from 1.
    """

    def __init__(
        self,
        fill: float | Sequence[float] = (0.485, 0.456, 0.406),
        side_range: tuple[float, float] = (1.0, 4.0),
        p: float = 0.5,
    ) -> None:
        if not 1 <= side_range[0] <= side_range[1]:
            raise ValueError(f"side_range must be 1 <= least <= largest, got {side_range}")
        self.fill, self.side_range, self.p = fill, side_range, probability(p)

    def __call__(self, image: Tensor, target: Target) -> Pair:
        if not happens(self.p):
            return image, target
        height, width = image.shape[1:]
        factor = uniform(*self.side_range)
        canvas_height, canvas_width = int(height * factor), int(width * factor)
        top, left = below(canvas_height - height + 1), below(canvas_width - width + 1)
        sides = (left, canvas_width - width - left, top, canvas_height - height - top)
        return pad(image, target, sides, self.fill)


class RandomIoUCrop:
    """Takes a random patch that overlaps an object enough: section 2.2.

    One of the options is chosen: a least IoU of the patch with some box, or 1 and more for the whole image. Patches
    are tried until one has it and the centre of an object inside; after ``trials`` of them another option is chosen.
    Objects with their centre in the patch are kept, boxes cut off at its border, areas by as much; of objects with
    masks, those without a pixel inside are dropped too. An image without objects stays whole.

    Args:
        min_scale, max_scale: of the patch's sides to the image's; the paper's [0.1, 1] is of the area.
        min_aspect_ratio, max_aspect_ratio: of the patch's shares of width and height.
        sampler_options: least IoUs, as likely each.
    """

    def __init__(
        self,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        sampler_options: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
    ) -> None:
        if not 0 < min_scale <= max_scale <= 1 or not 0 < min_aspect_ratio <= max_aspect_ratio:
            raise ValueError(
                f"scales and aspect ratios must be 0 < least <= largest, scales at most 1, got {min_scale} to "
                f"{max_scale} and {min_aspect_ratio} to {max_aspect_ratio}"
            )
        # Otherwise no patch might ever do.
        if not any(option >= 1 for option in sampler_options):
            raise ValueError(f"sampler_options must have 1.0, the whole image, got {list(sampler_options)}")
        self.scale, self.ratio = (min_scale, max_scale), (min_aspect_ratio, max_aspect_ratio)
        self.options, self.trials = tuple(sampler_options), trials

    def __call__(self, image: Tensor, target: Target) -> Pair:
        while len(target["boxes"]):
            least = self.options[below(len(self.options))]
            if least >= 1:
                break
            for _ in range(self.trials):
                patch = self._patch(image)
                kept = None if patch is None else self._kept(patch, target["boxes"], least)
                if patch is not None and kept is not None:
                    return _crop(image, target, patch, kept)
        return image, target

    def _patch(self, image: Tensor) -> Tensor | None:
        """(1, 4) corners, or none if the sides drawn are of another ratio than allowed."""
        height, width = image.shape[1:]
        rows, columns = int(height * uniform(*self.scale)), int(width * uniform(*self.scale))
        if not rows or not columns or not self.ratio[0] <= columns * height / (rows * width) <= self.ratio[1]:
            return None
        top, left = below(height - rows + 1), below(width - columns + 1)
        return image.new_tensor([(left, top, left + columns, top + rows)], dtype=torch.float32)

    @staticmethod
    def _kept(patch: Tensor, boxes: Tensor, least: float) -> Tensor | None:
        """(L) whether the centre is in the patch, or none if it does not do."""
        if bool(box_iou(patch, boxes).amax() < least):
            return None
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        kept = ((centre > patch[:, :2]) & (centre < patch[:, 2:])).all(1)
        return kept if bool(kept.any()) else None


class RandomPhotometricDistort:
    """Random brightness, contrast, saturation and hue, and channels in another order, each with probability ``p``.

    The distortions of section 2.2, after Howard, Some Improvements on Deep Convolutional Neural Network Based Image
    Classification, 2013. Brightness is a product, as in torchvision; saturation is one of the colours' distance from
    grey; hue is a turn of the colours around grey in the YIQ space, which unlike HSV's keeps luma. Together they are
    one affine map of each pixel, whose results are clipped to [0, 1] once. Boxes and masks stay.

    Args:
        brightness, contrast, saturation: the least and the largest factor.
        hue: the least and the largest turn, in turns.
    """

    def __init__(
        self,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.p = probability(p)

    def __call__(self, image: Tensor, target: Target) -> Pair:
        matrix = torch.eye(3, dtype=torch.float64)
        if happens(self.p):
            saturation = uniform(*self.saturation)
            matrix = saturation * matrix + (1 - saturation) * GREY
        if happens(self.p):
            matrix = turn_hue(uniform(*self.hue)) @ matrix
        contrast = uniform(*self.contrast) if happens(self.p) else 1.0
        brightness = uniform(*self.brightness) if happens(self.p) else 1.0
        if happens(self.p):
            matrix = matrix[torch.randperm(3)]
        # Neither of the maps above changes what contrast is measured from, the mean luma of the image.
        middle = (1 - contrast) * (GREY[0].to(image) @ image.flatten(1).mean(1))
        matrix = (brightness * contrast * matrix).to(image)
        changed = torch.einsum("dc,chw->dhw", matrix, image) + brightness * middle
        return changed.clamp(0, 1), target


# Luma in each row; and the two colour differences of YIQ (FCC, 1953).
GREY = torch.tensor([LUMA], dtype=torch.float64).expand(3, 3)
CHROMA = torch.tensor([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64)


def turn_hue(turns: float) -> Tensor:
    """(3, 3) float64: the map of RGB that turns the I-Q plane, in full turns; grey and luma stay."""
    to_yiq = torch.cat((GREY[:1], CHROMA))
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turned = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)
    return torch.linalg.solve(to_yiq, turned @ to_yiq)


def _crop(image: Tensor, target: Target, patch: Tensor, kept: Tensor) -> Pair:
    left, top, right, bottom = (int(side) for side in patch[0].tolist())
    target = crop_objects(target, (top, left, bottom - top, right - left), kept)
    return image[:, top:bottom, left:right], target
