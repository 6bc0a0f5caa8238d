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
