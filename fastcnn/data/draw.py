"""Detections, and maps of classes, drawn into their image."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcnn.data.images import LUMA, from_pillow, to_pillow
from fastcnn.models._extras import extra

OPACITY = 0.45  # Of masks.
SMALLEST_TEXT = 6  # Pixels; below, a label cannot be read and is left out.
Colour = tuple[int, int, int]


def label_name(label: int, classes: Sequence[str] = ()) -> str:
    """``classes[label]``, or the number where there is no such name."""
    return classes[label] if 0 <= label < len(classes) else str(label)


def label_colour(label: int) -> Colour:
    """RGB of a class, the same in every picture: steps of the golden ratio around the hues keep neighbours apart."""
    hue = label * 0.618034 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if label % 2 else 0.65, 0.95 if label % 3 else 0.8)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(image: Tensor, detections: Mapping[str, Tensor], classes: Sequence[str] = ()) -> Tensor:
    """A copy of an image with boxes, labels, scores and masks; the highest score is drawn last.

    Lines and text grow with the image. Labels stand above their box, or inside the image where there is no room.

    Args:
        image: RGB, uint8 (3, H, W).
        detections: ``boxes`` (D, 4), corners in pixels, ``labels`` (D), maybe ``scores`` (D), and maybe ``masks``
            (D, H, W) or (D, 1, H, W): probabilities over a half, or not 0; a target of a data set too.
        classes: a name for each label; without, numbers are drawn.

    Returns:
        uint8 (3, H, W), deterministic.

    Raises:
        ImportError: without Pillow, of the extra ``detection``.
        ValueError: an image of another dtype or shape, or other numbers of boxes, labels, scores or masks.
    """
    boxes, labels = detections["boxes"].detach().cpu(), detections["labels"].tolist()
    count = len(labels)
    scores = detections["scores"].tolist() if "scores" in detections else [None] * count
    if boxes.shape != (count, 4) or len(scores) != count:
        raise ValueError(
            f"boxes must be ({count}, 4) and scores ({count},), got {tuple(boxes.shape)}, ({len(scores)},)"
        )
    picture = to_pillow(image if "masks" not in detections else _tint(image, detections["masks"], labels))
    pen = extra("PIL.ImageDraw", "drawing", "Pillow").Draw(picture)
    thickness = max(1, round(min(picture.size) / 150))
    for index in reversed(range(count)):
        colour = label_colour(labels[index])
        x1, y1, x2, y2 = _inside(boxes[index].tolist(), picture.size)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=thickness)
        score = "" if scores[index] is None else f" {scores[index]:.2f}"
        _write(pen, label_name(labels[index], classes) + score, (x1, y1), picture.size, colour)
    return from_pillow(picture)


def draw_segmentation(image: Tensor, labels: Tensor, classes: Sequence[str] = ()) -> Tensor:
    """A copy of an image tinted by the class of each pixel, with their names in the upper left, the largest first.

    Class 0, the background, and 255, what a target ignores, stay as they are. Names that have no room are left out.

    Args:
        image: RGB, uint8 (3, H, W).
        labels: int64 (H, W).
        classes: a name for each label; without, numbers are drawn.

    Returns:
        uint8 (3, H, W), deterministic.

    Raises:
        ImportError: without Pillow, of the extra ``detection``.
        ValueError: an image of another dtype or shape, or labels of another shape.
    """
    labels = labels.detach().cpu()
    if labels.shape != image.shape[1:]:
        raise ValueError(f"labels must be {tuple(image.shape[1:])}, got {tuple(labels.shape)}")
    values, counts = labels.unique(return_counts=True)
    found = [label for label in values[counts.argsort(descending=True, stable=True)].tolist() if label not in (0, 255)]
    masks = labels == torch.tensor(found, dtype=labels.dtype).reshape(-1, 1, 1)
    picture = to_pillow(_tint(image, masks, found))
    pen = extra("PIL.ImageDraw", "drawing", "Pillow").Draw(picture)
    top = height = 0
    for label in found:
        if top + height > picture.height:
            break
        bottom = _write(pen, label_name(label, classes), (0, top), picture.size, label_colour(label), above=False)
        top, height = bottom, bottom - top
    return from_pillow(picture)


def _tint(image: Tensor, masks: Tensor, labels: Sequence[int]) -> Tensor:
    masks = (masks.squeeze(1) if masks.dim() == 4 else masks).detach().cpu()
    if masks.shape != (len(labels), *image.shape[1:]):
        raise ValueError(f"masks must be {(len(labels), *image.shape[1:])}, got {tuple(masks.shape)}")
    filled = masks > 0.5 if masks.is_floating_point() else masks != 0
    pixels = image.cpu().float()
    for index in reversed(range(len(labels))):
        colour = torch.tensor(label_colour(labels[index]), dtype=torch.float32)
        pixels[:, filled[index]] += OPACITY * (colour[:, None] - pixels[:, filled[index]])
    return pixels.round().to(torch.uint8)


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that a box's corners are in: a box ends where its last pixel does."""
    width, height = size
    x1, y1 = (min(max(int(side), 0), limit - 1) for side, limit in zip(box[:2], size, strict=True))
    return x1, y1, min(max(round(box[2]) - 1, x1), width - 1), min(max(round(box[3]) - 1, y1), height - 1)


def _write(
    pen: Any, text: str, corner: tuple[int, int], size: tuple[int, int], colour: Colour, above: bool = True
) -> int:
    """A label whose lower left is the box's upper left, moved into the image, and smaller where that is narrow.

    Or whose upper left that is, where not ``above``. Returns the row below it.
    """
    points = max(11, round(min(size) / 32))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=_font(points))
    room = min(size[0] / (right - left + 4), size[1] / (bottom - top + 4))
    if room < 1:
        points = int(points * room)
        if points < SMALLEST_TEXT:
            return corner[1]
        left, top, right, bottom = pen.textbbox((0, 0), text, font=_font(points))
    pad = max(1, points // 8)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(min(corner[0], size[0] - width), 0)
    y = corner[1] - height if above and corner[1] >= height else max(min(corner[1], size[1] - height), 0)
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    bright = sum(share * part for share, part in zip(LUMA, colour, strict=True)) > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    pen.text((x + pad - left, y + pad - top), text, fill=ink, font=_font(points))
    return y + height


@functools.lru_cache(8)
def _font(points: int) -> Any:
    return extra("PIL.ImageFont", "drawing", "Pillow").load_default(points)
