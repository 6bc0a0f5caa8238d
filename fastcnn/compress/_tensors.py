"""What a compressed file holds of a tensor: shared values and sparse indices, or the tensor itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastcnn.compress._clusters import CHUNK, Array, share

MAX_INDEX_BITS = 8


@dataclass(frozen=True)
class SharedTensor:
    """A weight tensor as a list of entries: a gap, that many zeros, then the value that a code stands for.

    A gap has ``index_bits`` bits; where more zeros follow one another, an entry of the longest gap and of code 0 stands
    for that many zeros and one more: the filler zero of Han et al., 2016, figure 2. Zeros after the last entry are not
    listed.

    Attributes:
        values: 1-D, of the tensor's dtype; code c is ``values[c - 1]``, code 0 is zero.
        codes, gaps: uint8, one an entry.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    index_bits: int
    values: Tensor
    codes: Array
    gaps: Array

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @classmethod
    def of(cls, name: str, weight: Tensor, bits: int, index_bits: int) -> SharedTensor:
        """Quantises; errors are those of :func:`share`."""
        values, positions, found = share(name, weight, bits)
        span = 1 << index_bits
        fillers, rest = np.divmod(np.diff(positions, prepend=-1) - 1, span)
        ends = np.cumsum(fillers + 1) - 1
        entries = int(ends[-1]) + 1 if len(ends) else 0
        gaps = np.full(entries, span - 1, np.uint8)
        codes = np.zeros(entries, np.uint8)
        gaps[ends] = rest
        codes[ends] = found
        return cls(name, tuple(weight.shape), bits, index_bits, values, codes, gaps)

    def dense(self) -> Tensor:
        """The quantised weights.

        Raises:
            ValueError: entries beyond the tensor's end, of a damaged file.
        """
        size = math.prod(self.shape)
        out = torch.zeros(size, dtype=self.dtype)
        table = torch.cat([torch.zeros(1, dtype=self.dtype), self.values])
        before = -1
        for at in range(0, len(self.gaps), CHUNK):
            positions = before + np.cumsum(self.gaps[at : at + CHUNK].astype(np.int64) + 1)
            before = int(positions[-1])
            if before >= size:
                raise ValueError(f"gaps of {self.name!r} run past the end of its {size} weights")
            codes = torch.from_numpy(self.codes[at : at + CHUNK].astype(np.int64))
            out[torch.from_numpy(positions)] = table[codes]
        return out.reshape(self.shape)


@dataclass(frozen=True)
class RawTensor:
    """A tensor kept as it is, or as float16 in place of a wider dtype.

    Attributes:
        stored: the tensor as stored, contiguous.
        dtype: it is cast back to.
    """

    name: str
    stored: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored.shape)

    @classmethod
    def of(cls, name: str, tensor: Tensor, half: bool) -> RawTensor:
        """
        Raises:
            ValueError: the meta device; numbers too large for float16.
        """
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the meta device and has no values")
        stored = tensor.detach().cpu().contiguous()
        if half and stored.is_floating_point() and stored.itemsize > 2:
            small = stored.half()
            if not torch.equal(small.isfinite(), stored.isfinite()):
                raise ValueError(f"{name!r} has values beyond float16: up to {stored.abs().max().item():g}")
            stored = small
        return cls(name, stored, tensor.dtype)

    def dense(self) -> Tensor:
        return self.stored.to(self.dtype)
