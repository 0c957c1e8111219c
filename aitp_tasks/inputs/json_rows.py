"""The rows of a JSON or JSON Lines stream, with one row and one buffer of it in memory.

Why not an incremental parser: those on yajl replace lone surrogates silently and
stop at the first byte that is not UTF-8. Here either costs its own row only.
"""

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

import numpy as np

from aitp_tasks.inputs.forms import values
from aitp_tasks.inputs.rows import Refusal

#: Bytes read at a time.
BUFFER = 4 * 2**20
#: Longest row, in bytes of a line or characters of an array's item; what is longer is no example.
LONGEST_ROW = 2**26
#: Most values of a long row: an empty object takes two bytes here, and 30 times as many once it is read.
MOST_VALUES = 2**20
#: Of shorter rows nothing is counted: whatever they hold is small.
_COUNTED_FROM = 2**20
#: Bytes among which values are counted at a time.
_COUNTED_AT_A_TIME = 2**20
#: What begins, ends or divides values; in a text, what ends it, and escapes.
_MARKS = re.compile(r'\\.|["{}\[\],]', re.DOTALL)
_BLANK = re.compile(r"[ \t\n\r]*")
# As Python's integers, long ones would be refused.
_DECODER = json.JSONDecoder(parse_int=values.whole)
#: An escape or a number that the buffer's end cuts is an error this near to the end.
_CUT = 16


def is_array(stream: BufferedReader) -> bool:
    """Whether the stream holds one array; what starts with an object is JSON Lines.

    Takes a byte order mark off the stream.

    Raises:
        ValueError: it starts with neither.
    """
    head = _without_mark(stream).lstrip()
    if head[:1] not in (b"[", b"{", b""):
        raise ValueError("it starts with neither [ nor {")
    return head.startswith(b"[")


def lines(stream: BufferedReader, start: int = 0, end: int | None = None) -> Iterator[Any]:
    """The values of JSON Lines from row ``start`` on, or the ``Refusal`` of a line that is none.

    Blank lines are no rows.

    Args:
        stream: at the beginning of a line.
        start: number of the first row.
        end: only of the lines that begin within so many bytes of the stream.
    """
    position, row = 0, -1
    while (end is None or position < end) and (line := stream.readline(LONGEST_ROW + 1)):
        length = len(line)
        if length > LONGEST_ROW:
            length += skip_line(stream, line)
        position += length
        # Files that were put together have such marks in between, too.
        line = line.removeprefix(codecs.BOM_UTF8)
        if length <= LONGEST_ROW and (line.isspace() or not line):
            continue
        row += 1
        if row < start:
            continue
        if length > LONGEST_ROW:
            yield Refusal("too_long", f"a line of {length} bytes: the longest is {LONGEST_ROW}")
        else:
            yield value(line)


def skip_line(stream: BufferedReader, line: bytes = b"") -> int:
    """Read on to the end of a line whose beginning was read; the number of bytes."""
    length = 0
    while not line.endswith(b"\n") and (line := stream.readline(BUFFER)):
        length += len(line)
    return length


def array(stream: BufferedReader) -> Iterator[Any]:
    """The items of a stream that is one array.

    Bytes that are not UTF-8 become lone surrogates, as ``\\ud800`` does.

    Raises:
        ValueError: what is wrong, at which item and byte.
    """
    _without_mark(stream)
    window = _Window(stream)
    item = 0
    window.peek()
    window.position += 1
    try:
        if window.peek() != "]":
            yield window.value()
            while window.peek() == ",":
                item += 1
                window.position += 1
                window.peek()
                yield window.value()
            if window.peek() != "]":
                raise ValueError("neither a comma nor the closing bracket follows")
        window.position += 1
        if window.peek():
            raise ValueError("text follows the closing bracket")
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"item {item}, byte {window.byte()}: {reason}") from None


def _without_mark(stream: BufferedReader) -> bytes:
    """What the buffer holds, after a byte order mark has been taken off."""
    if stream.peek().startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    return stream.peek()


def value(line: bytes) -> Any:
    """The value that some bytes are, or the ``Refusal`` of what is none."""
    if len(line) > _COUNTED_FROM and (count := _values_in(line)) > MOST_VALUES:
        return Refusal("too_many_values", f"about {count} values: the most are {MOST_VALUES}")
    try:
        return _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        return Refusal("not_utf8", f"{error.reason} at byte {error.start} of {len(line)}")
    except json.JSONDecodeError as error:
        return Refusal("not_json", f"{error.msg} at character {error.pos}")
    except RecursionError:
        return Refusal("not_json", "nested too deeply")


def _values_in(data: bytes) -> int:
    """About how many values JSON holds, without reading it: what is in its texts does not count."""
    # From left to right, so that a quote that is left behind these is none that is escaped.
    plain = np.frombuffer(data.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    count, quotes = 0, 0
    for start in range(0, len(plain), _COUNTED_AT_A_TIME):
        some = plain[start : start + _COUNTED_AT_A_TIME]
        before = np.cumsum(some == ord('"'), dtype=np.uint32) + np.uint32(quotes % 2)
        marks = (some == ord(",")) | (some == ord("{")) | (some == ord("["))
        count += int(np.count_nonzero(marks & (before % 2 == 0)))
        quotes = int(before[-1])
    return count


def _too_long() -> Refusal:
    return Refusal("too_long", f"more than {LONGEST_ROW} characters")


class _Window:
    """The part of a stream's text that is being parsed."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._read = 0
        self.position = 0

    def peek(self) -> str:
        """The next character that is not blank, without taking it; empty at the end."""
        while True:
            match = _BLANK.match(self._text, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The value that starts here, or the ``Refusal`` of one that is too large."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self.position)
            except RecursionError:
                return self._skip(Refusal("not_json", "nested too deeply"))
            except json.JSONDecodeError as error:
                if not self._is_cut(error):
                    raise
                if refused := self._too_large():
                    return self._skip(refused)
                if not self._more():
                    raise
            else:
                # A number near the window's end may go on behind it.
                if end - self.position > LONGEST_ROW:
                    return self._skip(_too_long())
                if end < len(self._text) - _CUT or not self._more():
                    self.position = end
                    return value

    def byte(self) -> int:
        """How many bytes of the stream lie before the position."""
        rest = self._text[self.position :].encode(errors="surrogateescape")
        return self._read - len(rest) - len(self._decoder.getstate()[0])

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _CUT

    def _too_large(self) -> Refusal | None:
        """Whether more is needed of a value than may be read."""
        left = len(self._text) - self.position
        if left > LONGEST_ROW:
            return _too_long()
        if left > _COUNTED_FROM:
            count = _values_in(self._text[self.position :].encode(errors="surrogateescape"))
            if count > MOST_VALUES:
                return Refusal("too_many_values", f"more than {MOST_VALUES} values")
        return None

    def _skip(self, refused: Refusal) -> Refusal:
        """Read on to the end of the value that starts here, without keeping it."""
        depth, in_text = 0, False
        while True:
            for match in _MARKS.finditer(self._text, self.position):
                mark = match[0]
                self.position = match.end()
                if in_text or mark == '"':
                    in_text = in_text != (mark == '"')
                elif mark in "{[":
                    depth += 1
                elif depth == 0:
                    # What follows the value is not of it.
                    self.position = match.start()
                    return refused
                elif mark in "}]":
                    depth -= 1
            # An escape may be cut here.
            self.position = len(self._text) - (self._text.endswith("\\") and self.position < len(self._text))
            if not self._more():
                raise ValueError("it does not end")

    def _more(self) -> bool:
        """Drop what has been parsed and read on."""
        data = self._stream.read(BUFFER)
        self._read += len(data)
        text = self._decoder.decode(data, final=not data)
        if not (data or text):
            return False
        self._text, self.position = self._text[self.position :] + text, 0
        return True
