"""Sides that fit a U-Net without padding, and the overlap-tile strategy for all others.

Ronneberger et al., MICCAI 2015, section 2 and figure 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastcnn.models.segmentation.unet import UNet

# Each level has two 3x3 convolutions without padding on its way down, and two on its way up: a side s of the lowest
# level's input belongs to 2^depth * (s + 4) - 4 pixels of the image and 2^depth * (s - 8) + 4 of the result.


def margin(depth: int) -> int:
    """Pixels that the result has fewer on each side of the image."""
    return 6 * 2**depth - 4


def input_side(output: int, depth: int = 4) -> int:
    """The shortest side of an image for which a U-Net without padding gives ``output`` pixels or more.

    E.g. 572 for 388 at a depth of 4. The sides that fit are those that make every pooled map even: 2^depth apart.

    Raises:
        ValueError: an ``output`` or a ``depth`` below 1.
    """
    if output < 1 or depth < 1:
        raise ValueError(f"input_side takes an output and a depth of at least 1, got {output} and {depth}")
    steps = -(-(output - 4) // 2**depth)
    return 2**depth * steps + 4 + 2 * margin(depth)


def check_sides(net: UNet, sides: Sequence[int]) -> None:
    """ValueError where a network without padding does not take them."""
    if net.row.padding:
        if 0 in sides:
            raise ValueError(f"{type(net).__name__} takes images of one pixel and more, got {tuple(sides)}")
        return
    step, least = 2**net.row.depth, input_side(1, net.row.depth)
    for side in sides:
        if side < least or (side - least) % step:
            below = max(side - (side - least) % step, least)
            near = f"{below}" if side < least else f"{below} or {below + step}"
            raise ValueError(
                f"{type(net).__name__} without padding takes sides of {least} and multiples of {step} more, "
                f"got {tuple(sides)}: make {side} {near}, or call predict()"
            )


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Where each pixel comes from: beyond a border the image is mirrored, as often as that takes."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-before, size + after, device=device).remainder(period)
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)


def mirror(input: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """(N, C, ...) with so many pixels more along each axis behind the channels, mirrored at the borders' pixels.

    What ``F.pad(mode="reflect")`` does, and beyond the length of the image. Deterministic.
    """
    for axis, (first, last) in enumerate(zip(before, after, strict=True), 2):
        input = input.index_select(axis, _mirrored(input.shape[axis], first, last, input.device))
    return input


def _part(input: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """A view of so much of each axis behind the channels."""
    for axis, (start, length) in enumerate(zip(starts, lengths, strict=True), 2):
        input = input.narrow(axis, start, length)
    return input


def predict_tiled(net: UNet, input: Tensor, tile: int | Sequence[int] | None = None) -> Tensor:
    """The overlap-tile strategy: logits (N, num_classes, ...) for every pixel of images of any size.

    The image is mirrored at its borders; tiles are as far apart as results are long, in multiples of the deepest
    level's pixels, so that seams are none: each pixel gets what it gets from the network on the whole mirrored image,
    up to rounding. One tile after the other, so memory is that of one. Deterministic in eval mode.

    Args:
        net: without padding.
        input: (N, C, H, W), or (N, C, D, H, W) for a network of volumes.
        tile: sides of the pieces that the network is given, one or one for each axis; default: those of its row, or the
            shortest that cover the image.

    Raises:
        ValueError: a network with padding, which takes any size as it is; an input that the network does not take; a
            tile of another size than fits.
    """
    depth, dims = net.row.depth, net.dims
    if net.row.padding:
        raise ValueError(f"predict_tiled takes a network without padding, got padding {net.row.padding}")
    if input.dim() != 2 + dims or 0 in input.shape[2:]:
        raise ValueError(f"{type(net).__name__} takes {net.input_layout}, got {tuple(input.shape)}")
    sides = tuple(input.shape[2:])
    if tile is None:
        tiles = tuple(min(own, input_side(side, depth)) for own, side in zip(net.input_sides, sides, strict=True))
    else:
        tiles = (tile,) * dims if isinstance(tile, int) else tuple(tile)
    if len(tiles) != dims:
        raise ValueError(f"tile must be a side or {dims} of them, got {tile!r}")
    check_sides(net, tiles)
    around, unit = margin(depth), 2**depth
    results = [side - 2 * around for side in tiles]
    # A result has 4 pixels more than a multiple of the unit; pooling in another phase would give other values.
    steps = [max(result // unit * unit, unit) for result in results]
    counts = [1 + max(-(-(side - result) // step), 0) for side, result, step in zip(sides, results, steps, strict=True)]
    after = [
        (count - 1) * step + result - side + around
        for count, step, result, side in zip(counts, steps, results, sides, strict=True)
    ]
    mirrored = mirror(input, [around] * dims, after)
    found: Tensor | None = None
    for place in itertools.product(*map(range, counts)):
        starts = [index * step for index, step in zip(place, steps, strict=True)]
        logits = net(_part(mirrored, starts, tiles))
        assert isinstance(logits, Tensor)
        if found is None:
            found = logits.new_empty((*logits.shape[:2], *sides))
        kept = [min(result, side - start) for result, side, start in zip(results, sides, starts, strict=True)]
        _part(found, starts, kept).copy_(_part(logits, [0] * dims, kept))
    assert found is not None
    return found
