"""A file's bytes, decompressed while they are read; an end that comes too early is an error.

Of several members or frames, one behind the other, all are read. Arrow's
decompressors notice a cut stream. So does the one here, for xz, which Arrow does not
know, and for bzip2, of which Arrow fails on empty members; what follows the last
stream, which Python's own file objects pass over, is an error too.
"""

import bz2
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import cast

import pyarrow as pa

from aitp_tasks.inputs.formats import COMPRESSIONS

#: Bytes read at a time.
BUFFER = 4 * 2**20
_BY_PYTHON = (".bz2", ".xz")
#: A stream of xz may be followed by a multiple of so many zero bytes.
_XZ_PADDING = 4
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


class _Members(io.RawIOBase):
    """Decompresses streams of bzip2 or xz, one behind the other."""

    def __init__(self, raw: BufferedReader, packed: str) -> None:
        self._raw = raw
        self._packed = packed
        self._current: lzma.LZMADecompressor | bz2.BZ2Decompressor | None = None
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._read(len(buffer))
        except lzma.LZMAError as error:
            raise OSError(f"xz decompress failed: {error}") from None
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
            if data:
                return data

    def _next(self) -> bool:
        """Begin the next stream, if there is one."""
        if self._packed == ".xz":
            self._skip_padding()
        elif not self._left:
            self._left = self._raw.read1(BUFFER)
        if not self._left:
            return False
        is_xz = self._packed == ".xz"
        self._current = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY) if is_xz else bz2.BZ2Decompressor()
        return True

    def _skip_padding(self) -> None:
        padding = 0
        while not self._left.lstrip(b"\0"):
            padding += len(self._left)
            self._left = self._raw.read1(BUFFER)
            if not self._left:
                break
        rest = self._left.lstrip(b"\0")
        if (padding + len(self._left) - len(rest)) % _XZ_PADDING:
            raise OSError("xz decompress failed: what follows a stream is not its padding")
        self._left = rest
