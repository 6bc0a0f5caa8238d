"""Huffman codes, and what damaged and hostile files do: a ValueError of one line, or shapes as said."""

import json
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.compress import compress, decompress
from fastcnn.compress._huffman import MAX_LENGTH, code_lengths, decode, encode

WEIGHT = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
STATE = {
    "w": WEIGHT * (WEIGHT.abs() > 1),
    "ones": torch.ones(5, 5),
    "b": torch.arange(4.0),
    "flags": torch.tensor([True]),
}


# Huffman codes.


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=256))
def test_huffman_codes(counts):
    lengths = code_lengths(np.array(counts)).astype(int)
    used = [count for count in counts if count]
    assert [length > 0 for length in lengths] == [count > 0 for count in counts]
    if len(used) > 1:
        assert sum(2.0**-length for length in lengths if length) == 1
        bits = sum(count * length for count, length in zip(counts, lengths, strict=True))
        entropy = -sum(count * math.log2(count / sum(used)) for count in used)
        assert entropy - 1e-6 <= bits < entropy + sum(used) + (lengths.max() == MAX_LENGTH) * sum(used)
    symbols = np.repeat(np.arange(len(counts)), np.array(counts) % 40).astype(np.uint8)
    np.random.default_rng(0).shuffle(symbols)
    lengths = code_lengths(np.bincount(symbols, minlength=len(counts)))
    coded = encode(symbols, lengths)
    found, taken = decode(memoryview(coded + b"rest"), lengths, len(symbols))
    assert taken == len(coded) and np.array_equal(found, symbols)


def test_huffman_lengths_by_hand():
    assert code_lengths(np.array([45, 13, 12, 16, 9, 5, 0])).tolist() == [1, 3, 3, 3, 4, 4, 0]


def test_huffman_codes_of_more_than_16_bits_are_cut():
    fibonacci = [1, 1]
    while len(fibonacci) < 25:
        fibonacci.append(sum(fibonacci[-2:]))
    lengths = code_lengths(np.array(fibonacci)).astype(int)
    assert lengths.max() == MAX_LENGTH and sum(2.0**-lengths) == 1
    assert code_lengths(np.array(fibonacci[:17])).max() == 16


# Files.


def packed(header, body, **preamble):
    rest = (header if isinstance(header, bytes) else json.dumps(header).encode()) + body
    size = len(rest) - len(body)
    fields = {"magic": b"\x93FCNNDC\n", "version": 1, "size": size, "crc": zlib.crc32(rest), **preamble}
    return struct.pack("<8sIII", *fields.values()) + rest


def unpacked(data):
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[20 + size :]


def refused(data, message=None, **options):
    with pytest.raises(ValueError, match=message) as error:
        decompress(data, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_format_is_what_the_tests_take_it_for():
    data = compress(STATE, 4)
    header, body = unpacked(data)
    assert [known["name"] for known in header] == list(STATE)
    found = decompress(packed(header, body))
    assert all(torch.equal(found[name], tensor) for name, tensor in decompress(data).items())


def test_any_file_cut_short_is_refused():
    data = compress(STATE, 4)
    for size in range(0, len(data), 3):
        refused(data[:size])
    header, body = unpacked(data)
    for size in range(0, len(body), 3):
        refused(packed(header, body[:size]))
    refused(data + b"more", "CRC")
    refused(packed(header, body + b"more"), "4 bytes more than the tensors need")


def test_any_byte_changed_is_noticed():
    data = compress(STATE, 4)
    for at in range(len(data)):
        refused(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damage_under_a_good_checksum_is_refused_or_read(data):
    """Whatever comes out has the header's shapes; nothing but ValueError is raised."""
    header, body = unpacked(compress(STATE, 4))
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        known = data.draw(st.sampled_from(header))
        values = [
            None,
            -1,
            0,
            1,
            5,
            2**70,
            1e400,
            True,
            "x",
            [],
            {},
            [3, -1],
            [2**40, 2**40],
            ["2"],
            "float16",
            "object",
        ]
        known[data.draw(st.sampled_from(sorted(known)))] = data.draw(st.sampled_from(values))
    try:
        found = decompress(packed(header, bytes(body)), max_bytes=1 << 20)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 250
    else:
        assert [list(tensor.shape) for tensor in found.values()] == [known["shape"] for known in header]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2**40, 2**40]}, "'w' take more than max_bytes=1073741824"),
        ({"shape": [2**31, 1]}, "more than max_bytes"),
        ({"shape": [0, 2**70]}, "more than max_bytes"),
        ({"shape": [-40, -60]}, r"'w' has the shape \[-40, -60\]"),
        ({"shape": [40.0, 60]}, "has the shape"),
        ({"shape": [1] * 33}, "has the shape"),
        ({"shape": [2, 2]}, "'w' has entries 7.., not 0 to 4"),
        ({"shape": [1, 900]}, "gaps of 'w' run past the end of its 900 weights"),
        ({"entries": 2401}, "'w' has entries 2401, not 0 to 2400"),
        ({"bits": 9}, "'w' has bits 9, not 1 to 8"),
        ({"index_bits": 40}, "'w' has index_bits 40, not 1 to 8"),
        ({"values": 16}, "'w' has values 16, not 0 to 15"),
        ({"values": 2**50}, "not 0 to 15"),
        ({"dtype": "int64"}, "'w' has the dtype 'int64'"),
        ({"dtype": "load"}, "'w' has the dtype 'load'"),
        ({"dtype": ["float32"]}, "has the dtype"),
        ({"stored": "float32"}, "file cut short: 'w' needs 9600 bytes"),
        ({"stored": None}, "has the stored None"),
        ({"name": "b"}, "name is missing or comes twice: 'b'"),
        ({"name": None}, "name is missing or comes twice: None"),
    ],
)
def test_hostile_headers(change, message):
    header, body = unpacked(compress(STATE, 4))
    header[0] |= change
    refused(packed(header, body), message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no fastcnn.compress file: it begins with b''"),
        (b"\x80\x04K\x01." * 9, "no fastcnn.compress file"),
        (packed([], b"", version=2), "version 2; this fastcnn reads version 1"),
        (packed([], b"", size=2**32 - 1), "a header of 4294967295 bytes in a file of 22"),
        (packed([], b"", size=3), "a header of 3 bytes in a file of 22"),
        (packed([], b"", crc=1), "damaged file: CRC-32 [0-9a-f]{8}, not 00000001"),
        (packed(b"{", b""), "damaged header"),
        (packed(b"\xff\xfe", b""), "damaged header"),
        (packed(b"[" * 100000, b""), "damaged header"),
        (packed({"name": "w"}, b""), "damaged header: no list of tensors"),
        (packed([3], b""), "damaged header: no list of tensors"),
        (packed([{}], b""), "name is missing"),
    ],
)
def test_hostile_files(data, message):
    refused(data, message)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 1, 1], "no complete prefix code"),
        ([2, 2, 2], "no complete prefix code"),
        ([1, 2, 0], "no complete prefix code"),
        ([2, 0, 0], "no complete prefix code"),
        ([17, 1, 2], "a Huffman code of 17 bits; at most 16"),
        ([255, 255, 255], "a Huffman code of 255 bits"),
        ([0, 0, 0], "12 symbols, but no Huffman code for any"),
    ],
)
def test_hostile_code_tables(lengths, message):
    header, body = unpacked(compress({"w": torch.tensor([[1.0, 2.0, 2.0] * 4])}, 2))
    assert body[8:11] == bytes([0, 1, 1])
    refused(packed(header, body[:8] + bytes(lengths) + body[11:]), f"'w': .*{message}")


def test_hostile_blocks_and_values():
    header, body = unpacked(compress({"w": torch.tensor([[1.0, 2.0, 2.0] * 4])}, 2))
    # Behind two values, three and thirty-two lengths: the one block's size, 12 bits.
    assert body[43:45] == bytes([2, 0]) and len(body) == 47
    refused(packed(header, body[:43] + bytes([1, 0]) + body[45:46]), "a block does not end where its size says")
    refused(packed(header, body[:43] + bytes([3, 0]) + body[45:] + b"\0"), "a block does not end")
    refused(packed(header, body[:43] + bytes([255, 255]) + body[45:]), "cut short: 2 bytes of 65535")
    nan = struct.pack("<f", math.nan)
    refused(packed(header, nan + body[4:]), "'w' has shared values that are not finite")


def test_large_tensors_of_few_bytes_need_leave():
    data = compress({"w": torch.zeros(1000, 1000)})
    assert len(data) < 200
    refused(data, "tensors up to 'w' take more than max_bytes=3999999", max_bytes=3_999_999)
    assert decompress(data, max_bytes=4_000_000)["w"].shape == (1000, 1000)
    refused(compress({"v": torch.zeros(9), "w": torch.zeros(9)}), "up to 'w' take more", max_bytes=71)


def test_bytes_of_no_bool_are_made_one():
    header, _ = unpacked(compress({"flags": torch.tensor([False, True, True])}))
    flags = decompress(packed(header, bytes([0, 1, 200])))["flags"]
    assert flags.view(torch.uint8).tolist() == [0, 1, 1]
