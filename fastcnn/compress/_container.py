"""The file of compressed tensors, written and read. Nothing in it is code; everything in it is checked.

Numbers are little-endian::

    offset 0  8 bytes  magic: 93 "FCNNDC" 0a
           8  uint32   version: 1
          12  uint32   bytes of the header, at most 2^24
          16  uint32   CRC-32 of all that follows
          20           the header: JSON, a list with an object for each tensor, in their order
                       the tensors' bytes, one after another, to the end of the file

The header says of every tensor ``name``, ``shape`` and ``dtype``; of one kept as it is ``stored``, the dtype of its
bytes, which are its elements; of one of shared weights ``bits``, ``index_bits``, ``values`` (how many it shares) and
``entries`` (how many codes and gaps it has: :class:`fastcnn.compress._tensors.SharedTensor`). Its bytes are:

1. the shared values, in the tensor's dtype;
2. the length of the Huffman code of each code, from 0 to ``values``, a byte each;
3. the same of each gap, from 0 to 2^``index_bits`` - 1;
4. the codes, then 5. the gaps: for each block of 1024 symbols the number of its bytes, uint16, then the blocks, each
   Huffman codes from the highest bit on, canonical: shorter codes first, those of one length in the order of symbols.
   Where one symbol alone occurs, nothing.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcnn.compress import _huffman
from fastcnn.compress._clusters import MAX_BITS, Array
from fastcnn.compress._tensors import MAX_INDEX_BITS, RawTensor, SharedTensor

MAGIC = b"\x93FCNNDC\n"
VERSION = 1
PREAMBLE = struct.Struct("<8sIII")
MAX_HEADER = 1 << 24
MAX_DIMENSIONS = 32

FLOATING = ("float64", "float32", "float16", "bfloat16")
DTYPES = (*FLOATING, "int64", "int32", "int16", "int8", "uint8", "bool")

Stored = SharedTensor | RawTensor


def dtype_name(name: str, dtype: torch.dtype) -> str:
    """The header's name of a tensor's dtype; ValueError where there is none."""
    found = str(dtype).removeprefix("torch.")
    if found not in DTYPES:
        raise ValueError(f"{name!r} is {found}; only {', '.join(DTYPES)} can be stored")
    return found


def write(tensors: Iterable[Stored]) -> bytes:
    """A file of these tensors."""
    header, body = [], []
    for tensor in tensors:
        name, shape = tensor.name, tensor.shape
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"{name!r} has {len(shape)} dimensions, at most {MAX_DIMENSIONS} can be stored")
        known: dict[str, Any] = {"name": name, "shape": shape, "dtype": dtype_name(name, tensor.dtype)}
        if isinstance(tensor, RawTensor):
            header.append({**known, "stored": dtype_name(name, tensor.stored.dtype)})
            body.append(_bytes(tensor.stored))
        else:
            counts = {"values": len(tensor.values), "entries": len(tensor.codes)}
            header.append({**known, "bits": tensor.bits, "index_bits": tensor.index_bits, **counts})
            code_lengths, gap_lengths = huffman_lengths(tensor)
            body += [_bytes(tensor.values), code_lengths.tobytes(), gap_lengths.tobytes()]
            body += [_huffman.encode(tensor.codes, code_lengths), _huffman.encode(tensor.gaps, gap_lengths)]
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER:
        raise ValueError(f"too many tensors for one file: a header of {len(text)} bytes, at most {MAX_HEADER}")
    rest = text + b"".join(body)
    return PREAMBLE.pack(MAGIC, VERSION, len(text), zlib.crc32(rest)) + rest


def huffman_lengths(tensor: SharedTensor) -> tuple[Array, Array]:
    """Lengths of the Huffman codes of a tensor's codes and of its gaps."""
    return (
        _huffman.code_lengths(np.bincount(tensor.codes, minlength=len(tensor.values) + 1)),
        _huffman.code_lengths(np.bincount(tensor.gaps, minlength=1 << tensor.index_bits)),
    )


def read(data: bytes, max_bytes: int) -> Iterator[tuple[Stored, int]]:
    """One by one the tensors of a file, and how many bytes each takes in it, the header apart.

    Raises:
        ValueError: not such a file, a damaged one, or one of more than ``max_bytes`` of tensors.
    """
    if len(data) < PREAMBLE.size or not data.startswith(MAGIC):
        raise ValueError(f"no fastcnn.compress file: it begins with {data[:8]!r}")
    _, version, header_bytes, checksum = PREAMBLE.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"a file of version {version}; this fastcnn reads version {VERSION}")
    view = memoryview(data)[PREAMBLE.size :]
    if header_bytes > min(MAX_HEADER, len(view)):
        raise ValueError(f"a header of {header_bytes} bytes in a file of {len(data)}, at most {MAX_HEADER}")
    if zlib.crc32(view) != checksum:
        raise ValueError(f"damaged file: CRC-32 {zlib.crc32(view):08x}, not {checksum:08x}")
    try:
        header = json.loads(bytes(view[:header_bytes]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged header: {error}") from None
    _check_header(header, max_bytes)

    body = _Body(view[header_bytes:])
    for known in header:
        before = len(body.rest)
        tensor = _read_raw(known, body) if "stored" in known else _read_shared(known, body)
        yield tensor, before - len(body.rest)
    if len(body.rest):
        raise ValueError(f"{len(body.rest)} bytes more than the tensors need")


class _Body:
    """Takes bytes from the beginning of what is left."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def take(self, count: int, name: str) -> memoryview:
        if count > len(self.rest):
            raise ValueError(f"file cut short: {name!r} needs {count} bytes, {len(self.rest)} are left")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def symbols(self, lengths: Array, count: int, name: str) -> Array:
        try:
            found, taken = _huffman.decode(self.rest, lengths, count)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        self.rest = self.rest[taken:]
        return found


def _read_raw(known: dict[str, Any], body: _Body) -> RawTensor:
    name, shape, stored = known["name"], known["shape"], getattr(torch, known["stored"])
    tensor = _tensor(body.take(math.prod(shape) * stored.itemsize, name), stored)
    return RawTensor(name, tensor.reshape(shape), getattr(torch, known["dtype"]))


def _read_shared(known: dict[str, Any], body: _Body) -> SharedTensor:
    name, dtype = known["name"], getattr(torch, known["dtype"])
    values = _tensor(body.take(known["values"] * dtype.itemsize, name), dtype)
    if not torch.isfinite(values).all():
        raise ValueError(f"{name!r} has shared values that are not finite")
    code_lengths = np.frombuffer(body.take(len(values) + 1, name), np.uint8)
    gap_lengths = np.frombuffer(body.take(1 << known["index_bits"], name), np.uint8)
    codes = body.symbols(code_lengths, known["entries"], name)
    gaps = body.symbols(gap_lengths, known["entries"], name)
    return SharedTensor(name, tuple(known["shape"]), known["bits"], known["index_bits"], values, codes, gaps)


def _check_header(header: object, max_bytes: int) -> None:
    """That it is as :func:`write` makes it, and that its tensors fit in ``max_bytes``."""
    if not isinstance(header, list) or not all(isinstance(known, dict) for known in header):
        raise ValueError("damaged header: no list of tensors")
    names = set()
    total = 0
    for known in header:
        name, shape, dtype = known.get("name"), known.get("shape"), known.get("dtype")
        if not isinstance(name, str) or name in names:
            raise ValueError(f"damaged header: a tensor's name is missing or comes twice: {_short(name)}")
        names.add(name)
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_whole(side) for side in shape):
            raise ValueError(f"damaged header: {name!r} has the shape {_short(shape)}")
        raw = "stored" in known
        for key in ("dtype", "stored") if raw else ("dtype",):
            if known.get(key) not in (DTYPES if raw else FLOATING):
                raise ValueError(f"damaged header: {name!r} has the {key} {_short(known.get(key))}")
        # Sides of 0 count as 1: a tensor of none would hide sides too large for PyTorch.
        widest = max(getattr(torch, dtype).itemsize, getattr(torch, known.get("stored", dtype)).itemsize)
        total += math.prod(max(side, 1) for side in shape) * widest
        if total > max_bytes:
            raise ValueError(f"tensors up to {name!r} take more than max_bytes={max_bytes}")
        if not raw:
            _check_counts(known, name, math.prod(shape))


def _check_counts(known: dict[str, Any], name: str, size: int) -> None:
    limits = {"bits": (1, MAX_BITS), "index_bits": (1, MAX_INDEX_BITS), "values": (0, 0), "entries": (0, size)}
    for key, (least, most) in limits.items():
        if key == "values":
            most = 2 ** known["bits"] - 1
        if not _whole(known.get(key)) or not least <= known[key] <= most:
            raise ValueError(f"damaged header: {name!r} has {key} {_short(known.get(key))}, not {least} to {most}")


def _whole(number: object) -> bool:
    return type(number) is int and number >= 0


def _short(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bytes(tensor: Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _tensor(data: memoryview, dtype: torch.dtype) -> Tensor:
    if not len(data):
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:  # A byte of neither 0 nor 1 would be no bool.
        return _tensor(data, torch.uint8) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype)
