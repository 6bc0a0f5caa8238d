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


def _width(widest: int, across: int) -> int:
    """Of tiles side by side: the widest that leaves at most an eighth of its lanes with nothing, down to an eighth."""
    widths = [width for width in (widest, widest // 2, widest // 4) if -(-across // width) * width * 7 <= across * 8]
    return widths[0] if widths else widest // 8


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
    # As wide as a line of 128 bytes, or of 64 elements.
    width = _width(128 // element_size if channels_last else 64, across)
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

# Of squeeze_excite. Images of one program, so that weights are loaded once for all of them: a number that never
# changes, for which an image's result is the same in any batch.
SQUEEZE_IMAGES = 4


def squeeze_map_tile(channels_last: bool, element_size: int, channels: int, pixels: int) -> Tile:
    """Of the passes over maps: 8 KB, or less for small maps, of which a lane has 32 bytes."""
    elements = 8192 // element_size
    if channels_last:
        across = _width(128 // element_size, channels)
        down = min(elements // across, _power_of_two(pixels))
    else:
        down = min(64, _power_of_two(pixels))
        across = min(elements // down, _power_of_two(channels))
    return Tile(across, down, min(8, max(1, across * down * element_size // 1024)))


def squeeze_parts(tiles: int) -> int:
    """Sums that the pixels of a channel are split into, by the tiles they take, whatever the number of images."""
    return 1 if tiles <= 8 else 4 if tiles <= 32 else 16


@dataclass(frozen=True)
class Layer:
    """Results and terms of one step of a sum, and the warps."""

    rows: int
    width: int
    num_warps: int


def squeeze_layer(terms: int) -> Layer:
    """Of the layer that begins with the means of so many channels: half a warp, or a warp, for each row."""
    return Layer(16, 128, 4) if terms <= 128 else Layer(16, 256, 8)


def squeeze_width(hidden: int) -> int:
    """Hidden numbers taken at a time by a pass over maps that begins with the other layer."""
    return min(32, max(8, _power_of_two(hidden)))


# Of the gradients of both weights, which programs have a tile each of, and sum over all images.
SQUEEZE_WEIGHTS = Layer(16, 64, 4)
SQUEEZE_TERMS = 32  # Images added up at a time.

# The last pass over maps is split into so many programs if it can be: seven or eight for each multiprocessor.
SQUEEZE_PROGRAMS = 1024


def _power_of_two(n: int) -> int:
    """The smallest one that is not smaller."""
    return 1 << (n - 1).bit_length()
