"""Canonical Huffman codes of at most 16 bits, read by table, in blocks that numpy decodes side by side.

Van Leeuwen, On the construction of Huffman trees, 1976; lengths limited as Larmore and Hirschberg, A fast algorithm for
optimal length-limited Huffman codes, 1990 (package-merge). A length of 0 is a symbol that does not occur. Where one
symbol alone occurs its length is 1 and nothing is written for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_LENGTH = 16
# Symbols to a block. Each begins at a byte, so that decoding takes as many steps as the longest block has symbols.
BLOCK = 1024


def code_lengths(counts: Array) -> Array:
    """The length of each symbol's code, uint8, which makes the whole shortest for ``counts`` of symbols."""
    lengths = np.zeros(len(counts), np.uint8)
    symbols = np.flatnonzero(counts).tolist()
    if len(symbols) < 2:
        lengths[symbols] = 1
        return lengths
    leaves = [(int(counts[symbol]), [symbol]) for symbol in symbols]
    packages: list[tuple[int, list[int]]] = []
    for _ in range(MAX_LENGTH):
        merged = sorted(leaves + packages, key=lambda item: item[0])
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2], strict=False)]
    chosen = [symbol for _, members in packages[: len(symbols) - 1] for symbol in members]
    return np.bincount(chosen, minlength=len(counts)).astype(np.uint8)


def _canonical(lengths: Array) -> tuple[Array, Array, int]:
    """Symbols in the order of their codes, how many words of the longest code's length begin with each, that length."""
    symbols = np.flatnonzero(lengths)
    symbols = symbols[np.argsort(lengths[symbols], kind="stable")]
    longest = int(lengths.max(initial=0))
    if longest > MAX_LENGTH:
        raise ValueError(f"a Huffman code of {longest} bits; at most {MAX_LENGTH} are allowed")
    spans = np.left_shift(1, longest - lengths[symbols].astype(np.int64))
    # Kraft's equality: less leaves words that are no code, more leaves words that are two.
    if (len(symbols) > 1 and spans.sum() != 1 << longest) or (len(symbols) == 1 and longest != 1):
        raise ValueError("Huffman code lengths that make no complete prefix code")
    return symbols, spans, longest


def encode(symbols: Array, lengths: Array) -> bytes:
    """The number of bytes of each block, uint16, little-endian; then the blocks, first bits highest."""
    used, spans, longest = _canonical(lengths)
    if len(used) < 2:
        return b""
    codes = np.zeros(len(lengths), np.int64)
    codes[used] = (np.cumsum(spans) - spans) >> (longest - lengths[used].astype(np.int64))
    # Row by row, a code's bits and whether each is one of its own.
    places = np.arange(longest)
    own = places < lengths[:, None]
    bits = ((codes[:, None] >> np.maximum(lengths[:, None].astype(np.int64) - 1 - places, 0)) & 1).astype(np.uint8)
    blocks = [
        np.packbits(bits[block][own[block]]).tobytes()
        for block in (symbols[at : at + BLOCK] for at in range(0, len(symbols), BLOCK))
    ]
    return np.array([len(block) for block in blocks], "<u2").tobytes() + b"".join(blocks)


def decode(data: memoryview, lengths: Array, count: int) -> tuple[Array, int]:
    """``count`` symbols, uint8, from the beginning of ``data``, and how many bytes they took there.

    Raises:
        ValueError: lengths that make no complete prefix code of at most 16 bits; data cut short or damaged.
    """
    used, spans, longest = _canonical(lengths)
    if count == 0:
        return np.zeros(0, np.uint8), 0
    if len(used) == 0:
        raise ValueError(f"{count} symbols, but no Huffman code for any")
    if len(used) == 1:
        return np.full(count, used[0], np.uint8), 0
    lanes = -(-count // BLOCK)
    if len(data) < 2 * lanes:
        raise ValueError(f"Huffman-coded data cut short: {len(data)} bytes hold no table of {lanes} blocks")
    sizes = np.frombuffer(data[: 2 * lanes], "<u2").astype(np.int64)
    begins = np.cumsum(sizes) - sizes
    taken = int(sizes.sum())
    if len(data) - 2 * lanes < taken:
        raise ValueError(f"Huffman-coded data cut short: {len(data) - 2 * lanes} bytes of {taken}")
    padded = np.zeros(taken + 3, np.uint32)
    padded[:taken] = np.frombuffer(data[2 * lanes : 2 * lanes + taken], np.uint8)
    words = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]  # The 24 bits from each byte on.

    symbol_of = np.repeat(used, spans).astype(np.uint8)
    length_of = np.repeat(lengths[used], spans).astype(np.int64)
    at = 8 * begins
    last = count - (lanes - 1) * BLOCK
    out = np.zeros((min(count, BLOCK), lanes), np.uint8)
    for step in range(len(out)):
        lane = at if step < last else at[:-1]
        # A damaged block may run past the end, where it reads on from the last word; its size gives it away.
        word = words.take(lane >> 3, mode="clip")
        found = (word >> (24 - longest - (lane & 7))) & ((1 << longest) - 1)
        out[step, : len(lane)] = symbol_of[found]
        lane += length_of[found]
    if not np.array_equal((at + 7) >> 3, begins + sizes):
        raise ValueError("damaged Huffman-coded data: a block does not end where its size says")
    return out.T.reshape(-1)[:count], 2 * lanes + taken
