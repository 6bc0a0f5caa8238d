"""Plane shapes as signed distances, of which antialiased pixels are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Distance = Callable[[Plane, Plane], Plane]


def _regular(corners: int) -> Plane:
    """(V, 2) corners of a regular polygon in the unit circle, the first at the top."""
    turn = np.arange(corners) * (2 * np.pi / corners)
    return np.stack((np.sin(turn), -np.cos(turn)), 1)


def _star(points: int, inner: float) -> Plane:
    return _regular(2 * points) * np.tile((1.0, inner), points)[:, None]


def _cross(arm: float) -> Plane:
    """A plus whose arms are ``arm`` wide on either side of their axis, with its corners on the unit circle."""
    reach = (1 - arm * arm) ** 0.5
    quarter = np.array([(arm, -reach), (arm, -arm), (reach, -arm)])
    turns = [np.array([(1, 0), (0, 1)]), np.array([(0, -1), (1, 0)]), -np.eye(2), np.array([(0, 1), (-1, 0)])]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _polygon(corners: Plane) -> Distance:
    """Distance to the edges, negative inside by the even-odd rule."""
    first, edge = corners, np.roll(corners, -1, 0) - corners
    squared = (edge * edge).sum(1)

    def distance(x: Plane, y: Plane) -> Plane:
        px, py = x[..., None] - first[:, 0], y[..., None] - first[:, 1]
        along = np.clip((px * edge[:, 0] + py * edge[:, 1]) / squared, 0, 1)
        nearest = np.hypot(px - along * edge[:, 0], py - along * edge[:, 1]).min(-1)
        crosses = (py < 0) != (py < edge[:, 1])
        # An edge that a horizontal ray meets is not horizontal, so it is not divided by zero where it counts.
        slope = edge[:, 0] / np.where(edge[:, 1] == 0, 1, edge[:, 1])
        inside = (crosses & (px < py * slope)).sum(-1) % 2 == 1
        return np.where(inside, -nearest, nearest)

    return distance


# Distances of points (x right, y down) in the unit circle, which each shape touches and none leaves.
SHAPES: dict[str, Distance] = {
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": _polygon(_regular(4)),
    "triangle": _polygon(_regular(3)),
    "star": _polygon(_star(5, 0.45)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.78) - 0.22,
    "cross": _polygon(_cross(0.28)),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 1, 0.75 - np.hypot(x - 0.5, y)),
    "arrow": _polygon(
        np.array([(0, -1), (0.72, -0.1), (0.28, -0.1), (0.28, 0.96), (-0.28, 0.96), (-0.28, -0.1), (-0.72, -0.1)])
    ),
}


def cover(
    shape: str, centre: Sequence[float], radius: float, angle: float, size: tuple[int, int]
) -> tuple[tuple[slice, slice], Plane]:
    """How much of each pixel a shape covers, from 0 to 1, near its edge by the distance of the pixel's centre.

    Args:
        centre: x and y in pixels, where pixel k reaches from k to k + 1.
        radius: of the circle around the shape, in pixels.
        angle: by which it is turned clockwise, in radians.
        size: height and width of the image.

    Returns:
        The rows and columns of the image that the shape may touch, and these pixels.
    """
    window = tuple(
        slice(max(int(middle - radius - 1), 0), min(int(middle + radius + 2), side))
        for middle, side in ((centre[1], size[0]), (centre[0], size[1]))
    )
    y, x = (np.arange(part.start, part.stop) + 0.5 for part in window)
    x, y = np.meshgrid((x - centre[0]) / radius, (y - centre[1]) / radius)
    cos, sin = np.cos(angle), np.sin(angle)
    distance = SHAPES[shape](cos * x + sin * y, cos * y - sin * x)
    return window, np.clip(0.5 - distance * radius, 0, 1)  # type: ignore[return-value]
