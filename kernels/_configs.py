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
