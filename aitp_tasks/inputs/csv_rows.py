"""The rows of a CSV or TSV stream with a header, each as a mapping of names to texts.

Read as RFC 4180 has it: a field in quotes may hold delimiters, newlines and
doubled quotes. A row that is not so, or is too long, costs itself. Where a quote is not closed,
nobody can say where its row ends: each line that it takes with it counts as a
row that is refused.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from aitp_tasks.inputs import json_rows
from aitp_tasks.inputs.rows import Refusal

#: Longest row, in characters.
LONGEST_ROW = json_rows.LONGEST_ROW
_NAMES_SHOWN = 20


def rows(stream: BufferedReader, delimiter: str, start: int = 0) -> Iterator[dict[str, Any] | Refusal]:
    """The rows from row ``start`` on; blank lines are none.

    Bytes that are not UTF-8 become lone surrogates.

    Raises:
        ValueError: the header cannot be read, or names one column twice; or a row over several lines is too
            long.
    """
    # One limit for the process, and nobody else reads CSV; rows are no longer.
    csv.field_size_limit(LONGEST_ROW)
    lines = _Lines(stream)
    found = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next((fields for fields in found if fields), [])
    except csv.Error as error:
        raise ValueError(f"its header cannot be read: {error}") from None
    # Spreadsheets leave columns without a name, of what was beside the table.
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"its header names {', '.join(twice[:_NAMES_SHOWN])} twice")
    for number, row in enumerate(_rows(found, lines, names)):
        if number >= start:
            yield row


def _rows(found: Any, lines: "_Lines", names: list[str]) -> Iterator[dict[str, Any] | Refusal]:
    nameless = [number for number, name in enumerate(names) if not name]
    while True:
        first = lines.begin()
        try:
            fields = next(found)
        except StopIteration:
            return
        except csv.Error as error:
            # In a quote that was not closed, lines are lost that may have been rows.
            lost = max(lines.read - first + 1, 1)
            place = f"line {first}" if lost == 1 else f"lines {first} to {lines.read}"
            for _ in range(lost):
                yield Refusal("not_csv", f"{place}: {error}")
            continue
        if lines.too_long:
            message = f"line {lines.read} has {lines.too_long} characters: the most are {LONGEST_ROW}"
            yield Refusal("too_long", message)
            continue
        if not fields:
            continue
        if len(fields) != len(names):
            message = f"line {lines.read}: {len(fields)} fields, but the header names {len(names)}"
            yield Refusal("not_csv", message)
        else:
            row = dict(zip(names, fields, strict=True))
            if len(nameless) > 1:
                row[""] = next((fields[number] for number in nameless if fields[number]), "")
            yield row


class _Lines:
    """The lines of a stream, counted; one that is too long is none, if it is a row of its own."""

    def __init__(self, stream: BufferedReader) -> None:
        if stream.peek().startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        self._text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
        self.read = 0
        self.begin()

    def begin(self) -> int:
        """Begin a row; the number of its first line."""
        self._first = self.read + 1
        self._characters = 0
        #: Of the row that was left out, as many as it had.
        self.too_long = 0
        return self._first

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.read += 1
        self._characters += len(line)
        if self._characters <= LONGEST_ROW:
            return line
        if self.read > self._first:
            raise ValueError(
                f"lines {self._first} to {self.read}: a row of more than {LONGEST_ROW} characters, or a "
                "quote that is not closed"
            )
        quotes = line.count('"')
        while not line.endswith(("\n", "\r")) and (line := self._text.readline(LONGEST_ROW + 1)):
            self._characters += len(line)
            quotes += line.count('"')
        if quotes % 2:
            raise ValueError(
                f"line {self.read} has more than {LONGEST_ROW} characters, and a quote in it is not closed"
            )
        self.too_long = self._characters
        return "\n"
