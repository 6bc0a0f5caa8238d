"""Generated scenes: shapes of several classes that hide one another, with their boxes, masks and class maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from fastcnn.data.shapes import SHAPES, cover
from fastcnn.data.targets import Target, make_target, mask_extents

Pixels = NDArray[np.float64]

MIN_VISIBLE = 0.25  # Of the pixels a shape was drawn with; of less, the class can hardly be told.
MIN_PIXELS = 12
COLOURS = 4  # Drawn for each shape, which takes the one that stands out most.


class Scenes(Dataset[tuple[Tensor, Any]]):
    """A seeded data set of pictures with shapes, drawn when they are asked for.

    Each shape has a random class, place, radius, angle and shaded colour, and hides what was drawn before it. Behind
    them is a gradient, noise of several scales, or a piece of one of the photographs given; a little noise lies over
    all. Masks are of visible pixels, boxes the smallest around them; a shape of which less than a quarter, or fewer
    than 12 pixels, are visible is no object, but stays in the picture and in the class map.

    Item ``i`` is an image, float32 (3, H, W) in [0, 1], multiples of 1/255, and its target (see
    :func:`~fastcnn.data.targets.make_target`; ``image_id`` is ``i``). It depends on the arguments and ``i`` alone, not
    on workers, threads or the order of calls.

    Args:
        count: of pictures.
        size: side, or height and width, in pixels; 16 or more.
        seed: of all pictures; another gives others, as for held-out ones.
        classes: names of shapes, :data:`~fastcnn.data.shapes.SHAPES`; the first has label 1.
        objects: the least and the largest number of shapes drawn.
        radius: the least and the largest, of the image's shorter side; between them, logarithms are uniform.
        photographs: uint8 (3, h, w), for pieces of them as backgrounds.
        semantic: items are an image and its class map instead, int64 (H, W), with 0 for the background.
        transforms: applied to image and target, as of :mod:`fastcnn.data.transforms`.

    Raises:
        TypeError: photographs that are not uint8.
        ValueError: any other argument out of range.
    """

    def __init__(
        self,
        count: int,
        size: int | tuple[int, int] = 128,
        seed: int = 0,
        classes: Sequence[str] = tuple(SHAPES),
        *,
        objects: tuple[int, int] = (1, 6),
        radius: tuple[float, float] = (0.08, 0.25),
        photographs: Sequence[Tensor] = (),
        semantic: bool = False,
        transforms: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None,
    ) -> None:
        self.count, self.seed, self.classes = count, seed, tuple(classes)
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.objects, self.radius = objects, radius
        self.photographs, self.semantic, self.transforms = tuple(photographs), semantic, transforms
        if count < 0 or seed < 0:
            raise ValueError(f"count and seed must not be negative, got {count} and {seed}")
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 pixels, got {size}")
        unknown = [name for name in self.classes if name not in SHAPES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different ones of {', '.join(SHAPES)}, got {list(classes)}")
        if not 0 <= objects[0] <= objects[1]:
            raise ValueError(f"objects must be two numbers, 0 <= least <= most, got {objects}")
        if not 0 < radius[0] <= radius[1] <= 0.5:
            raise ValueError(f"radius must be two shares, 0 < least <= largest <= 0.5, got {radius}")
        for photograph in self.photographs:
            if photograph.dtype != torch.uint8:
                raise TypeError(f"photographs must be uint8, got {photograph.dtype}")
            if photograph.dim() != 3 or photograph.size(0) != 3 or 0 in photograph.shape:
                raise ValueError(f"photographs must be (3, h, w), got {tuple(photograph.shape)}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        index %= self.count
        # numpy promises that the numbers of a RandomState never change; those of a Generator may with its version.
        random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, index))))
        image, owner, drawn, labels = self._draw(random)
        # Rounded as a file would be, so that the last bits of a machine's sines do not matter.
        pixels = torch.from_numpy(np.rint(image.clip(0, 1) * 255).astype(np.float32)) / 255
        target: Any = torch.from_numpy(np.concatenate(([0], labels))[owner])
        if not self.semantic:
            target = self._target(index, owner, drawn, labels)
        return (pixels, target) if self.transforms is None else self.transforms(pixels, target)

    def _draw(self, random: np.random.RandomState) -> tuple[Pixels, NDArray[np.int64], Pixels, NDArray[np.int64]]:
        """The picture, the shape (from 1, or 0) that each pixel shows, the pixels each was drawn with, the labels."""
        image = _background(random, self.size, self.photographs)
        owner = np.zeros(self.size, np.int64)
        shapes = random.randint(self.objects[0], self.objects[1] + 1)
        labels = random.randint(1, len(self.classes) + 1, shapes)
        drawn = np.zeros(shapes)
        least, largest = (np.log(share * min(self.size)) for share in self.radius)
        for shape in range(shapes):
            radius = float(np.exp(random.uniform(least, largest)))
            # At most a quarter of the diameter is outside.
            centre = [radius / 2 + random.uniform() * (side - radius) for side in reversed(self.size)]
            angle = random.uniform(0, 2 * np.pi)
            (rows, columns), covered = cover(self.classes[labels[shape] - 1], centre, radius, angle, self.size)
            part = image[:, rows, columns]
            part += covered * (_colour(random, part) - part)
            owner[rows, columns][covered >= 0.5] = shape + 1
            drawn[shape] = (covered >= 0.5).sum()
        image += random.uniform(0, 0.06) * (random.uniform(size=image.shape) - 0.5)
        return image, owner, drawn, labels

    def _target(self, index: int, owner: NDArray[np.int64], drawn: Pixels, labels: NDArray[np.int64]) -> Target:
        visible = np.bincount(owner.ravel(), minlength=len(labels) + 1)[1:]
        kept = np.flatnonzero((visible >= MIN_VISIBLE * drawn) & (visible >= MIN_PIXELS))
        masks = torch.from_numpy(owner == kept[:, None, None] + 1)
        area = torch.from_numpy(visible[kept])
        return make_target(mask_extents(masks), torch.from_numpy(labels[kept]), index, masks=masks, area=area)


def _ramp(random: np.random.RandomState, height: int, width: int) -> Pixels:
    """(height, width) from 0 to 1 in a random direction."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)
    return np.asarray(0.5 + (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2))


def _colour(random: np.random.RandomState, behind: Pixels) -> Pixels:
    """A shaded colour for the window ``behind``, (3, h, w) pixels that it should stand out from."""
    colours = random.uniform(size=(COLOURS, 3))
    colour = colours[np.abs(colours - behind.mean((1, 2))).sum(1).argmax()]
    shade = random.uniform(0, 0.3) * (_ramp(random, *behind.shape[1:]) - 0.5)
    return np.asarray(colour[:, None, None] + shade)


def _background(random: np.random.RandomState, size: tuple[int, int], photographs: Sequence[Tensor]) -> Pixels:
    kind = random.randint(3 if photographs else 2)
    if kind == 2:
        return _piece(random, size, photographs[random.randint(len(photographs))])
    first, last = random.uniform(0.1, 0.9, (2, 3, 1, 1))
    if kind == 0:
        return np.asarray(first + (last - first) * _ramp(random, *size))
    image = np.broadcast_to(first, (3, *size)).copy()
    cells, strength = random.choice((2, 4, 8)), 0.5
    while cells <= max(size) // 2:
        image += strength * _resize(random.uniform(-0.5, 0.5, (3, cells, cells)), size)
        cells, strength = 2 * cells, strength * random.uniform(0.4, 0.8)
    return image


def _piece(random: np.random.RandomState, size: tuple[int, int], photograph: Tensor) -> Pixels:
    """A random part of a photograph, a third of its side to all, mirrored or not."""
    height, width = photograph.shape[1:]
    scale = random.uniform(1 / 3, 1) * min(height / size[0], width / size[1])
    sides = [max(round(scale * side), 1) for side in size]
    top, left = random.randint(height - sides[0] + 1), random.randint(width - sides[1] + 1)
    piece = photograph[:, top : top + sides[0], left : left + sides[1]].double().numpy() / 255
    return _resize(piece[:, :, ::-1] if random.randint(2) else piece, size)


def _resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    grown = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(pixels))[None], size, mode="bilinear", align_corners=False, antialias=True
    )
    return np.asarray(grown[0].numpy())
