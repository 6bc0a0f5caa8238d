"""What each step of Deep Compression saves, tensor by tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastcnn.compress._clusters import Array
from fastcnn.compress._container import Stored, huffman_lengths, read
from fastcnn.compress._tensors import RawTensor
from fastcnn.compress.deep_compression import Source, read_source

# What Iandola et al., SqueezeNet, 2016, table 2, compares with: AlexNet in float32, 240 MB of 10^6 bytes.
ALEXNET_BYTES = 240_000_000


@dataclass(frozen=True)
class TensorSize:
    """Bytes of one tensor after each step, and bits of its codes; those of a tensor kept as it is are 0.

    Attributes:
        numel, nonzeros: numbers, and those of them that are not zero.
        dense: bytes uncompressed.
        pruned: of the nonzeros in the tensor's dtype, with gaps of fixed width.
        quantised: of codes and gaps of fixed width, and the shared values.
        coded: in the file.
        bits: of a code; of a Huffman-coded one, the mean (``weight_bits``); the least possible (``weight_entropy``).
        index_bits: mean bits of a Huffman-coded gap; ``index_entropy`` is the least possible.
    """

    name: str
    numel: int
    nonzeros: int
    dense: int
    pruned: int
    quantised: int
    coded: int
    bits: int = 0
    weight_bits: float = 0.0
    weight_entropy: float = 0.0
    index_bits: float = 0.0
    index_entropy: float = 0.0

    @property
    def density(self) -> float:
        """Share of numbers that are not zero; its complement is the sparsity."""
        return self.nonzeros / max(self.numel, 1)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file to a number, pruned ones included."""
        return 8 * self.coded / max(self.numel, 1)


@dataclass(frozen=True)
class Sizes:
    """What :func:`sizes` found; ``print`` it for a table.

    Attributes:
        tensors: in the order of the file.
        coded: bytes of the whole file.
    """

    tensors: tuple[TensorSize, ...]
    coded: int

    @property
    def dense(self) -> int:
        """Bytes uncompressed."""
        return sum(tensor.dense for tensor in self.tensors)

    @property
    def density(self) -> float:
        """Share of weights of the compressed tensors that are not zero."""
        weights = [tensor for tensor in self.tensors if tensor.bits]
        return sum(tensor.nonzeros for tensor in weights) / max(sum(tensor.numel for tensor in weights), 1)

    def __str__(self) -> str:
        head: tuple[str, ...] = ("tensor", "numbers", "density", "dense", "pruned", "quantised", "coded")
        head += ("bits", "Huffman", "entropy", "index", "entropy")
        rows = [head]
        for x in self.tensors:
            sized = (x.dense, x.pruned, x.quantised, x.coded)
            coding = (x.weight_bits, x.weight_entropy, x.index_bits, x.index_entropy)
            shown = (str(x.bits), *(f"{bits:.2f}" for bits in coding)) if x.bits else ("",) * 5
            rows.append((x.name, f"{x.numel:,}", f"{x.density:.1%}", *(f"{size:,}" for size in sized), *shown))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(row)).rstrip()
            for row in rows
        ]
        total = (
            f"{self.coded:,} bytes of {self.dense:,}: {self.dense / self.coded:.1f} times less, "
            f"{ALEXNET_BYTES / self.coded:.0f} times less than AlexNet's 240 MB"
        )
        return "\n".join([*lines, "", total])


def sizes(source: Source, *, max_bytes: int = 1 << 30) -> Sizes:
    """Bytes of a compressed file's tensors: uncompressed, after pruning, after sharing, after Huffman coding.

    Arguments and errors are those of :func:`decompress`. Source: Han et al., 2016, tables 1 and 4.
    """
    data = read_source(source)
    rows = [_tensor_size(tensor, coded) for tensor, coded in read(data, max_bytes)]
    return Sizes(tuple(rows), len(data))


def _tensor_size(tensor: Stored, coded: int) -> TensorSize:
    numel = math.prod(tensor.shape)
    dense = numel * tensor.dtype.itemsize
    if isinstance(tensor, RawTensor):
        return TensorSize(tensor.name, numel, int(tensor.stored.count_nonzero()), dense, dense, dense, coded)
    entries, width = len(tensor.codes), 8 * tensor.dtype.itemsize
    table = len(tensor.values) * tensor.dtype.itemsize
    code_lengths, gap_lengths = huffman_lengths(tensor)
    return TensorSize(
        name=tensor.name,
        numel=numel,
        nonzeros=int(np.count_nonzero(tensor.codes)),
        dense=dense,
        pruned=-(-entries * (width + tensor.index_bits) // 8),
        quantised=-(-entries * (tensor.bits + tensor.index_bits) // 8) + table,
        coded=coded,
        bits=tensor.bits,
        weight_bits=_mean_length(tensor.codes, code_lengths),
        weight_entropy=_entropy(tensor.codes),
        index_bits=_mean_length(tensor.gaps, gap_lengths),
        index_entropy=_entropy(tensor.gaps),
    )


def _mean_length(symbols: Array, lengths: Array) -> float:
    """Bits to a symbol; a symbol that occurs alone takes none."""
    return float(lengths[symbols].mean()) if np.count_nonzero(lengths) > 1 else 0.0


def _entropy(symbols: Array) -> float:
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / max(len(symbols), 1)
    return max(0.0, float(-(shares * np.log2(shares)).sum()))
