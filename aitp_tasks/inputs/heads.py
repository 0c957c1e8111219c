"""The head of a corpus file without a footer: about how many rows it has, and their shape.

A dump can be terabytes, so plan reads no more of such a file than its beginning.
"""

import io
from dataclasses import dataclass
from io import BufferedReader
from typing import cast

from aitp_tasks.inputs import shapes
from aitp_tasks.inputs.files import File
from aitp_tasks.inputs.rows import Refusal

#: Bytes of a file that are read, and how many of them decompressed.
_READ = 512 * 1024
_LOOKED_AT = 2**20
#: Small, so that what was decompressed tells what was read for it.
_STEP = 16 * 1024


@dataclass(frozen=True)
class Head:
    """What the beginning of a file says.

    Attributes:
        rows: how many the file has, by the bytes of the first ones; at least one where one began.
        estimated: whether there is more than was read.
        shape: of the rows that were read; see ``shapes``.
    """

    rows: int
    estimated: bool
    shape: bytes


def read(file: File) -> Head:
    """The head of a file that is no table.

    Raises:
        UnreadableError: it is not what its ending says, or a small one is damaged.
        ObjectChangedError: it was replaced meanwhile.
    """
    data = file.beginning(_READ)
    complete = len(data) == file.info.size
    with file.readable():
        text, used, ended = _decompressed(file, data, complete)
        if complete and ended:
            rows = list(file.values_of(_reader(text)))
            return Head(len(rows), False, shapes.of(_sound(rows)))
    rows = _rows(file, text)
    if not rows:
        # The first row is longer than all that was read.
        return Head(1, True, shapes.of([]))
    # The row that was cut is half there, on average.
    count = round((len(rows) + 0.5) * file.info.size / used)
    return Head(count, True, shapes.of(_sound(rows)))


def _sound(rows: list[object]) -> list[object]:
    return [row for row in rows if not isinstance(row, Refusal)]


def _decompressed(file: File, data: bytes, complete: bool) -> tuple[bytes, int, bool]:
    """The first bytes once they are decompressed, for how many of ``data``, and whether for all."""
    raw = _reader(data, _STEP)
    text = bytearray()
    try:
        with file.opened(raw, _STEP) as stream:
            while len(text) < _LOOKED_AT:
                some = stream.read1(_STEP)
                if not some:
                    return bytes(text), len(data), True
                text += some
            return bytes(text), min(raw.tell(), len(data)), False
    except OSError:
        if complete:
            raise
        # The data ends within the stream, of which it is a part.
        return bytes(text), len(data), False


def _rows(file: File, text: bytes) -> list[object]:
    """The whole rows at the beginning of a text that was cut off."""
    rows: list[object] = []
    try:
        rows.extend(file.values_of(_reader(text)))
    except ValueError:
        # An array or an archive that is cut off; the rows before are whole.
        return rows
    # The last row was cut, and in a quote that is not closed all that are taken with it.
    last = rows.pop() if rows else None
    while isinstance(last, Refusal) and rows and isinstance(rows[-1], Refusal):
        rows.pop()
    return rows


def _reader(data: bytes, size: int | None = None) -> BufferedReader:
    return cast(BufferedReader, BufferedReader(io.BytesIO(data), size or len(data) or 1))
