"""Deep Compression: a network's weights, pruned, shared and Huffman-coded, in one file.

Han, Mao and Dally, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman
Coding, ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from fastcnn.compress._container import dtype_name, read, write
from fastcnn.compress._paths import by_path
from fastcnn.compress._tensors import MAX_INDEX_BITS, RawTensor, SharedTensor
from fastcnn.compress.training import plain_state_dict

Source = bytes | str | PathLike[str]


def compress(
    model: nn.Module | Mapping[str, Tensor],
    bits: int | Mapping[str, int] = 8,
    *,
    index_bits: int = 5,
    half: bool = False,
) -> bytes:
    """A network's tensors as the bytes of a file, which :func:`decompress` reads.

    The nonzeros of every weight tensor (floating-point, of two or more dimensions) are replaced by at most
    2^bits - 1 shared values by k-means from evenly spread centres; one code is left for zero. Codes, and the gaps
    between nonzeros, are Huffman-coded. A tensor of no more distinct nonzeros is kept exactly, so what
    :func:`share_weights` trained is not changed. All other tensors are kept bit for bit. Deterministic. What takes
    time, and some 40 bytes of memory each, is sorting the nonzeros of the largest tensor: prune first.
    :mod:`fastcnn.compress._container` documents the file.

    Args:
        model: a module, which is not changed; what :func:`prune` and :func:`share_weights` do to it counts. Or a
            state dict.
        bits: of a code, 1 to 8; or by path, as ``{"features": 8, "classifier": 5}``, where of the paths that fit
            the longest counts and tensors that none fits are kept as they are.
        index_bits: of a gap before Huffman coding, 1 to 8; longer gaps take filler zeros.
        half: keeps all other float32 and float64 tensors as float16. They are cast back when read.

    Raises:
        TypeError: neither a module nor a mapping of names to tensors.
        ValueError: bits out of range; a path without weights; weights with NaN or infinity; a tensor on the meta
            device, sparse, or of a dtype that the file does not know; with ``half``, values beyond float16.

    Source: Han et al., 2016, sections 2 to 4, whose AlexNet has 8 bits in convolutions and 5 in linear layers.
    """
    state = _state_dict(model)
    if type(index_bits) is not int or not 1 <= index_bits <= MAX_INDEX_BITS:
        raise ValueError(f"index_bits must be a whole number from 1 to {MAX_INDEX_BITS}, got {index_bits!r}")
    weights = [name for name, tensor in state.items() if tensor.dim() > 1 and tensor.is_floating_point()]
    wanted = by_path(weights, bits)
    return write(
        SharedTensor.of(name, tensor, wanted[name], index_bits) if name in wanted else RawTensor.of(name, tensor, half)
        for name, tensor in state.items()
    )


def decompress(source: Source, *, max_bytes: int = 1 << 30) -> dict[str, Tensor]:
    """The state dict of a compressed file, on the CPU, names in their order, each tensor of its first dtype.

    No code is run, whatever the file. Deterministic.

    Args:
        source: the file's bytes, or its path.
        max_bytes: of all tensors as they come out. A short file can hold large tensors of zeros, so this is what
            bounds the memory: reading takes at most some three times it, and ten times the file's length.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a compressed file, a damaged one, or more than ``max_bytes``.
    """
    return {tensor.name: tensor.dense() for tensor, _ in read(read_source(source), max_bytes)}


def _state_dict(model: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(model, nn.Module):
        model = plain_state_dict(model)
    if not isinstance(model, Mapping):
        raise TypeError(f"a module or a state dict is needed, got {type(model).__name__}")
    for name, tensor in model.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"a state dict maps names to tensors; {name!r} is {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise ValueError(f"{name!r} is {tensor.layout}; only dense tensors can be compressed")
        dtype_name(name, tensor.dtype)
    return dict(model)


def read_source(source: Source) -> bytes:
    """A file's bytes, of its path or themselves."""
    if isinstance(source, bytes):
        return source
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no compressed file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is a directory, not a compressed file")
    return path.read_bytes()
