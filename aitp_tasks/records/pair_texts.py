"""Pairs in memory, their texts in a file of this machine: a pair takes a kilobyte, however long it is."""

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

#: The column with the texts.
MESSAGES = "messages"
#: A row of the pairs of a line, its texts wherever they are.
Pair = Mapping[str, Any]


class PairTexts:
    """The texts of any number of pairs, in a temporary file that goes with the last of them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="aitp-pairs-")  # noqa: SIM115 - the last pair closes it
        weakref.finalize(self, self._file.close)
        self._size = 0

    def held(self, pair: Pair) -> Pair:
        """The same pair, its messages in the file."""
        data = json.dumps(pair[MESSAGES]).encode("ascii")
        place, self._size = self._size, self._size + len(data)
        self._file.write(data)
        return _Held(
            {name: value for name, value in pair.items() if name != MESSAGES}, self, place, len(data)
        )

    def read(self, place: int, size: int) -> list[dict[str, Any]]:
        """The messages that lie at a place of the file."""
        self._file.flush()
        messages: list[dict[str, Any]] = json.loads(os.pread(self._file.fileno(), size, place))
        return messages


class _Held(Pair):
    """A pair whose messages are read each time that they are asked for."""

    __slots__ = ("_columns", "_place", "_size", "_texts")

    def __init__(self, columns: dict[str, Any], texts: PairTexts, place: int, size: int) -> None:
        self._columns, self._texts, self._place, self._size = columns, texts, place, size

    def __getitem__(self, name: str) -> Any:
        return self._texts.read(self._place, self._size) if name == MESSAGES else self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name == MESSAGES or name in self._columns

    def __iter__(self) -> Iterator[str]:
        yield MESSAGES
        yield from self._columns

    def __len__(self) -> int:
        return 1 + len(self._columns)
