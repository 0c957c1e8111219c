"""Compressed streams against Python's own libraries: whole, in many members, and cut anywhere."""

import gzip
import io
import lzma
from io import BufferedReader

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.inputs import streams
from tests.aitp_tasks.inputs.packed import PACKED

PACK = {packed: pack for packed, pack in PACKED.items() if packed}


def unpacked(data: bytes, packed: str, size: int = 64) -> bytes:
    with streams.decompressed(BufferedReader(io.BytesIO(data), size), packed, size) as stream:
        return stream.read()


@settings(max_examples=50)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.sampled_from(list(PACK)), st.integers(1, 99)
)
def test_all_members_are_read(parts: list[bytes], packed: str, size: int) -> None:
    assert unpacked(b"".join(map(PACK[packed], parts)), packed, size) == b"".join(parts)


@pytest.mark.parametrize("packed", PACK)
def test_wherever_a_stream_is_cut_it_is_noticed(packed: str) -> None:
    first, second = PACK[packed](b"one" * 50), PACK[packed](b"two" * 50)
    for length in range(1, len(first + second)):
        data = (first + second)[:length]
        if length == len(first):
            assert unpacked(data, packed) == b"one" * 50
            continue
        with pytest.raises(OSError, match=r".") as caught:
            unpacked(data, packed)
        assert caught.value.errno is None


@pytest.mark.parametrize("packed", PACK)
def test_what_follows_a_stream_is_not_dropped_in_silence(packed: str) -> None:
    # Arrow's words are for zstd.
    told = "Unknown frame descriptor" if packed == ".zst" else "data follows its end"
    for empty in (b"", PACK[packed](b"")):
        for more in (b"something else, and more than all that a header takes", b"junk"):
            with pytest.raises(OSError, match=told if len(more) > 4 else "Truncated|follows|Unknown"):
                unpacked(PACK[packed](b"one") + empty + more, packed)


@pytest.mark.parametrize("size", [1, 64, 4096])
def test_zero_bytes_behind_gzip_are_no_damage(size: int) -> None:
    one, two = gzip.compress(b"one"), gzip.compress(b"two")
    data = one + bytes(7) + two + bytes(10_000)
    assert gzip.decompress(data) == b"onetwo"
    assert unpacked(data, ".gz", size) == b"onetwo"
    with pytest.raises(OSError, match="data follows its end"):
        unpacked(data + b"!!", ".gz", size)
    with pytest.raises(OSError, match=r"Truncated|incorrect"):
        unpacked(one[:-4] + bytes(3), ".gz", size)


def test_a_window_that_is_too_long_is_told() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(b"one") + packer.flush()
    with pytest.raises(OSError, match=streams.LONG_WINDOW):
        unpacked(data, ".zst")


def test_padding_of_xz_is_skipped_where_it_is_whole() -> None:
    one, two = lzma.compress(b"one"), lzma.compress(b"two")
    assert unpacked(one + bytes(8) + two + bytes(4), ".xz") == b"onetwo"
    for padding in (1, 3, 6):
        with pytest.raises(OSError, match="padding"):
            unpacked(one + bytes(padding) + two, ".xz")
        with pytest.raises(OSError, match="padding"):
            unpacked(one + bytes(padding), ".xz")
