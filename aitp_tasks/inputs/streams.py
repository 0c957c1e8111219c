"""A file's bytes, decompressed while they are read; an end that comes too early is an error.

Of several members or frames, one behind the other, all are read. Arrow's
decompressor of zstd notices a cut stream. So does the one here, for xz, which Arrow
does not know, for bzip2, of which Arrow fails on empty members, and for gzip, which
it does not read on where zero bytes follow, as tapes and disks leave them; what
else follows the last stream is an error too.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import cast

import pyarrow as pa

from aitp_tasks.inputs.formats import COMPRESSIONS

#: Bytes read at a time.
BUFFER = 4 * 2**20
_BY_PYTHON = (".gz", ".bz2", ".xz")
#: Of how many zero bytes a multiple may follow a stream.
_PADDING = {".gz": 1, ".xz": 4}
_BEGINNINGS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00"}
#: Of the message of zstd about a window that takes more memory than it takes unasked, 128 MiB.
LONG_WINDOW = "requires too much memory"
#: What a file says that its decompression needs may not be more.
_XZ_MEMORY = 2**30


@contextmanager
def decompressed(raw: BufferedReader, packed: str, size: int = BUFFER) -> Iterator[BufferedReader]:
    """The bytes of a stream that is compressed as the ending ``packed`` says; none for nothing.

    Args:
        raw: the stream.
        packed: the ending.
        size: bytes that are read and decompressed at a time.

    Raises:
        OSError: while it is read: it is damaged or ends too early.
    """
    if not packed:
        yield raw
        return
    if packed in _BY_PYTHON:
        source: io.RawIOBase = _Members(raw, packed)
    else:
        buffered = pa.BufferedInputStream(pa.PythonFile(raw, mode="r"), size)
        source = pa.CompressedInputStream(buffered, COMPRESSIONS[packed])
    with BufferedReader(source, size) as stream:
        yield cast(BufferedReader, stream)


class _Gzip:
    """Decompresses one member of gzip, as Python's other decompressors do it."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS + 16)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, size: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, size)


class _Members(io.RawIOBase):
    """Decompresses streams of gzip, bzip2 or xz, one behind the other."""

    def __init__(self, raw: BufferedReader, packed: str) -> None:
        self._raw = raw
        self._packed = packed
        self._name = COMPRESSIONS[packed]
        self._current: lzma.LZMADecompressor | bz2.BZ2Decompressor | _Gzip | None = None
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._read(len(buffer))
        except (lzma.LZMAError, zlib.error) as error:
            raise OSError(f"{self._name} decompress failed: {error}") from None
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        while True:
            if self._current is None and not self._next():
                return b""
            assert self._current is not None
            if not self._left and self._current.needs_input:
                self._left = self._raw.read1(BUFFER)
                if not self._left:
                    raise OSError("Truncated compressed stream")
            data = self._current.decompress(self._left, size)
            self._left = self._current.unused_data
            if self._current.eof:
                self._current = None
                self._ended = True
            if data:
                return data

    def _next(self) -> bool:
        """Begin the next stream, if there is one."""
        if self._ended and self._packed in _PADDING:
            self._skip_padding(_PADDING[self._packed])
        elif not self._left:
            self._left = self._raw.read1(BUFFER)
        if not self._left:
            return False
        beginning = _BEGINNINGS[self._packed]
        if self._ended and self._left[: len(beginning)] != beginning[: len(self._left)]:
            raise OSError(f"data follows its end, which is no {self._name}")
        match self._packed:
            case ".xz":
                self._current = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
            case ".bz2":
                self._current = bz2.BZ2Decompressor()
            case _:
                self._current = _Gzip()
        return True

    def _skip_padding(self, unit: int) -> None:
        padding = 0
        while not self._left.lstrip(b"\0"):
            padding += len(self._left)
            self._left = self._raw.read1(BUFFER)
            if not self._left:
                break
        rest = self._left.lstrip(b"\0")
        if (padding + len(self._left) - len(rest)) % unit:
            raise OSError(f"{self._name} decompress failed: what follows a stream is not its padding")
        self._left = rest
