"""The rows of a CSV or TSV stream with a header, each as a mapping of names to texts.

Read as RFC 4180 has it: a field in quotes may hold delimiters, newlines and
doubled quotes. A row that is not so costs itself. Where a quote is not closed,
nobody can say where its row ends: each line that it takes with it counts as a
row that is refused.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from aitp_tasks.inputs.rows import Refusal

#: Longest field and longest line, in characters.
LONGEST_FIELD = 2**24
_NAMES_SHOWN = 20


def rows(stream: BufferedReader, delimiter: str, start: int = 0) -> Iterator[dict[str, Any] | Refusal]:
    """The rows from row ``start`` on; blank lines are none.

    Bytes that are not UTF-8 become lone surrogates.

    Raises:
        ValueError: the header cannot be read, or names one column twice; or a line or a field is too long.
    """
    # One limit for the process, and nobody else reads CSV.
    csv.field_size_limit(LONGEST_FIELD)
    lines = _Lines(stream)
    found = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next((fields for fields in found if fields), [])
    except csv.Error as error:
        raise ValueError(f"its header cannot be read: {error}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"its header names {', '.join(twice[:_NAMES_SHOWN])} twice")
    for number, row in enumerate(_rows(found, lines, names)):
        if number >= start:
            yield row


def _rows(found: Any, lines: "_Lines", names: list[str]) -> Iterator[dict[str, Any] | Refusal]:
    while True:
        first = lines.read + 1
        try:
            fields = next(found)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith("field larger than"):
                raise ValueError(
                    f"lines {first} to {lines.read}: a field of more than {LONGEST_FIELD} characters, or a "
                    "quote that is not closed"
                ) from None
            # In a quote that was not closed, lines are lost that may have been rows.
            lost = max(lines.read - first + 1, 1)
            place = f"line {first}" if lost == 1 else f"lines {first} to {lines.read}"
            for _ in range(lost):
                yield Refusal("not_csv", f"{place}: {error}")
            continue
        if not fields:
            continue
        if len(fields) != len(names):
            message = f"line {lines.read}: {len(fields)} fields, but the header names {len(names)}"
            yield Refusal("not_csv", message)
        else:
            yield dict(zip(names, fields, strict=True))


class _Lines:
    """The lines of a stream, counted."""

    def __init__(self, stream: BufferedReader) -> None:
        if stream.peek().startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        self._text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
        self.read = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_FIELD + 1)
        if not line:
            raise StopIteration
        if len(line) > LONGEST_FIELD:
            raise ValueError(f"line {self.read + 1} has more than {LONGEST_FIELD} characters")
        self.read += 1
        return line
