"""Tile sizes. Fixed tables, so that no call ever waits for a search."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Elementwise:
    """Elements a program of a flat pass over memory takes, and the warps it has."""

    block: int
    num_warps: int


# By element size in bytes, for every architecture: a lane holds one 16-byte load of each operand, twice for the 4- and
# 8-byte types, whose programs would otherwise be too short to hide their start.
ELEMENTWISE = {
    2: Elementwise(block=1024, num_warps=4),
    4: Elementwise(block=1024, num_warps=4),
    8: Elementwise(block=512, num_warps=4),
}


@dataclass(frozen=True)
class DepthwiseTile:
    """Of depthwise convolutions: results of a thread one after another, rows and columns of a tile, and its warps."""

    queue: int
    down: int
    across: int
    num_warps: int


def depthwise_tile(channels_last: bool, element_size: int, taps: int, length: int, across: int) -> DepthwiseTile:
    """For kernels of so many taps on the blocked axis, of so many results, and so many channels (or columns) across.

    With channels_last a lane has 16 bytes of channels; in planes it has one column.
    """
    queue = 4 if taps <= 3 or length <= 4 else 8
    if length % queue and length % 7 == 0:  # Sides of 7 and 14, which end the networks for 224 pixels.
        queue = 7
    # As wide as a line of 128 bytes, or of 64 elements, unless more than an eighth of the lanes would have nothing.
    widest = 128 // element_size if channels_last else 64
    widths = [width for width in (widest, widest // 2, widest // 4) if -(-across // width) * width * 7 <= across * 8]
    width = widths[0] if widths else widest // 8
    return DepthwiseTile(queue, (2048 // element_size if channels_last else 256) // width, width, 4)


@dataclass(frozen=True)
class DepthwiseReduction:
    """How sums over all results are split: parts of so many tiles each, then a tile that adds the parts up."""

    parts: int
    chunks: int
    down: int = 32
    across: int = 32


def depthwise_reduction(tiles: int, blocks: int) -> DepthwiseReduction:
    """For so many tiles to be summed by each of `blocks` programs; the same on every GPU, for the same results."""
    parts = min(tiles, max(1, 1024 // blocks))
    chunks = -(-tiles // max(parts, 1))
    return DepthwiseReduction(-(-tiles // chunks) if tiles else 0, chunks)


# By element size, of losses and their gradients, which keep several numbers of each element: a lane has one 16-byte
# load.
FOCAL = {2: Elementwise(block=1024, num_warps=4), 4: Elementwise(block=512, num_warps=4)}

# At most so many programs each leave a sum of what they go through: seven or eight for each multiprocessor of the
# largest GPUs, so that none waits for the last.
PARTIAL_SUMS = 1024


@dataclass(frozen=True)
class Tile:
    channels: int
    pixels: int
    num_warps: int


# Of local_response_norm, with and without channels last. The axis that lies in memory is the longer one; in planes the
# other is long too, for every tile reads a window beyond it on either side.
LRN = {False: Tile(channels=16, pixels=64, num_warps=4), True: Tile(channels=64, pixels=16, num_warps=4)}

# Of softmax_focal_loss, classes a plane apart and side by side.
SOFTMAX_FOCAL = {False: Tile(channels=16, pixels=64, num_warps=4), True: Tile(channels=64, pixels=16, num_warps=4)}
