"""Weight sharing: k-means of a tensor's nonzeros. Han et al., Deep Compression, 2016, sections 3.1 and 3.2."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

MAX_BITS = 8
# Of Lloyd's algorithm, which ends by itself where no weight changes its cluster.
ITERATIONS = 300
# Weights at a time, which bounds memory where indices of 8 bytes are needed.
CHUNK = 1 << 20


def check_bits(name: str, bits: object) -> None:
    """ValueError where bits of a code are no whole number from 1 to 8."""
    if type(bits) is not int or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits of {name!r} must be a whole number from 1 to {MAX_BITS}, got {bits!r}")


def check_weight(name: str, weight: Tensor) -> None:
    """ValueError where a tensor cannot be pruned or shared."""
    if weight.is_meta:
        raise ValueError(f"{name!r} is on the meta device and has no values")
    if not weight.is_floating_point():
        raise ValueError(f"{name!r} is {weight.dtype}; only floating-point weights can be compressed")
    if not torch.isfinite(weight).all():
        raise ValueError(f"{name!r} holds NaN or infinity")


def share(name: str, weight: Tensor, bits: int) -> tuple[Tensor, Array, Array]:
    """Shared values of a weight tensor, positions of its nonzeros, and which value each takes.

    Code 0 is zero, so there are at most 2^bits - 1 shared values. Where a tensor has no more distinct ones it
    keeps them exactly. Deterministic. Sorting the nonzeros is what takes time, and memory of some 40 bytes for each.

    Returns:
        values: 1-D, ascending, of the tensor's dtype, on the CPU; code c is ``values[c - 1]``.
        positions: int64, of the nonzeros in the flattened tensor.
        codes: uint8, of those nonzeros.

    Raises:
        ValueError: bits that are no whole number from 1 to 8, no floating dtype, NaN, infinity, the meta device.
    """
    check_bits(name, bits)
    check_weight(name, weight)
    flat = weight.detach().cpu().flatten()
    # NumPy has no bfloat16; float32 holds it and float16 exactly.
    numbers = flat.to(torch.promote_types(flat.dtype, torch.float32)).numpy()
    positions = np.flatnonzero(numbers)
    nonzeros = numbers[positions]
    values = torch.from_numpy(_centres(nonzeros, 2**bits - 1)).to(flat.dtype)
    values = values.unique(sorted=True)  # Rounding to the dtype can make two the same.
    known = values.to(torch.promote_types(flat.dtype, torch.float32)).numpy()
    codes = np.zeros(len(positions), np.uint8)
    for at in range(0, len(positions), CHUNK):
        codes[at : at + CHUNK] = _nearest(nonzeros[at : at + CHUNK], known) + 1
    return values, positions, codes


def _centres(values: Array, count: int) -> Array:
    """At most ``count`` cluster centres, ascending, of the dtype of ``values``.

    Lloyd's algorithm from centres spread evenly between the extremes ("linear" initialisation). In one dimension a
    cluster is a run of the sorted values and its mean a difference of two prefix sums, so that an iteration costs
    ``count`` binary searches, whatever the number of values.
    """
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    if np.count_nonzero(first) <= count:
        return ordered[first]
    # A power of two, which changes no digit, so that sums of the largest float64 do not overflow.
    exponent = int(np.frexp(np.abs(ordered[[0, -1]]).max())[1])
    scaled = np.ldexp(ordered.astype(np.float64), -exponent)
    sums = np.concatenate(([0.0], np.cumsum(scaled)))
    centres = np.linspace(scaled[0], scaled[-1], count)
    edges = np.zeros(0, np.int64)
    for _ in range(ITERATIONS):
        before = edges
        middles = np.searchsorted(scaled, (centres[1:] + centres[:-1]) / 2)
        edges = np.concatenate(([0], middles, [len(scaled)]))
        if np.array_equal(before, edges):
            break
        sizes = np.diff(edges)
        some = sizes > 0  # An empty cluster stays where it is.
        means = np.diff(sums[edges])[some] / sizes[some]
        # Rounding of long sums must not take a mean out of its own cluster.
        centres[some] = np.clip(means, scaled[edges[:-1][some]], scaled[edges[1:][some] - 1])
    return np.ldexp(centres[np.diff(edges) > 0], exponent).astype(values.dtype)


def _nearest(values: Array, known: Array) -> Array:
    """Index of the nearest of ``known``, ascending; of two as near, the lower."""
    above = np.searchsorted(known, values).clip(max=len(known) - 1)
    below = np.maximum(above - 1, 0)
    with np.errstate(over="ignore"):  # Of the largest float64, of opposite signs.
        return np.where(np.abs(known[above] - values) < np.abs(values - known[below]), above, below)
