"""The one door to input files: the rows of a shard, in order, as texts or as examples.

What is read is in ``formats``, and how bytes become rows in ``files``. Every row
gives exactly one item, a text or the ``Refusal`` that says why it has none, so
that an item's place is its row number. Files are read by ranges as the rows are
asked for.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from aitp_tasks.config import Examples, RunConfig, SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import paths
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.files import File
from aitp_tasks.inputs.forms import columns, compared
from aitp_tasks.inputs.forms.rows import Rows
from aitp_tasks.inputs.not_kept import NotKept
from aitp_tasks.inputs.paths import TextPath
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.storage import ObjectInfo, Storage

log = logging.getLogger(__name__)

#: A folder of Hive's partitions, and its name for null.
_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
#: Rows that tell the form of an SFT shard.
_HEAD = 100


def reader(storage: Storage, info: ObjectInfo, role: str, config: RunConfig) -> "Corpus | Sft":
    """The reader of one input file, as a run's configuration reads its role.

    Raises:
        InputError: files with the key's ending are not read.
    """
    if role == "corpus":
        return Corpus(storage, info, config.text_columns)
    # Pairs of earlier versions are read as they were written, whatever is set for the SFT set.
    settings = config.examples if info.key.startswith("sft/") else Examples()
    return Sft(storage, info, config.sft_text, settings)


def count_rows(storage: Storage, info: ObjectInfo) -> int:
    """How many rows a file has; all of it is read where it does not say.

    Raises:
        InputError: the file is damaged, or not what its ending says.
        ObjectChangedError: it was replaced since ``info``.
    """
    return File(storage, info).count()


def partitions(key: str) -> dict[str, str]:
    """What Hive's folders in a shard's key say: ``lang=de/`` gives ``{"lang": "de"}``."""
    folders = key.split("/")[2:-1]
    found = (match.groups() for match in map(_PARTITION.fullmatch, folders) if match)
    return {unquote(name): "" if value == _NO_VALUE else unquote(value) for name, value in found}


class Reader(ABC):
    """One version of an input file.

    All that reads raises:
        UnreadableError: the file is damaged, or not what its ending says.
        InputError: its columns are not those that the configuration asks for.
        ObjectChangedError: the file was replaced since ``info``.
    """

    role: str

    def __init__(self, storage: Storage, info: ObjectInfo) -> None:
        self.info = info
        # Texts are made one by one; examples are cast by the batch, in which equal ones share nothing.
        self._file = File(storage, info, shared=self.role == "corpus")
        self.where = self._file.where

    @property
    @abstractmethod
    def form(self) -> str:
        """What the file is, for reports: ``parquet``, ``jsonl.gz messages``.

        Reads no more than is needed to check the columns, or the first example's keys.
        """

    @property
    def rows(self) -> int | None:
        """Rows by the footer; None where only reading can tell."""
        return self._file.rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns, or the keys of the first rows."""
        if self._file.kind.is_table:
            return list(self._file.schema.names)
        rows = (row for row in islice(self._file.values(), _HEAD) if isinstance(row, dict))
        return list(dict.fromkeys(key for row in rows for key in row))

    @abstractmethod
    def texts(self, start: int = 0) -> Iterator[str | Rejection | Refusal]:
        """One item per row from row ``start`` on, in order."""


class Corpus(Reader):
    """A corpus shard."""

    role = "corpus"

    def __init__(self, storage: Storage, info: ObjectInfo, text_columns: Sequence[str]) -> None:
        """``text_columns``: paths whose texts are joined; see ``paths.TextPath``."""
        super().__init__(storage, info)
        self._text_columns = text_columns

    @cached_property
    def form(self) -> str:
        _ = self._paths
        return self._file.form

    def texts(self, start: int = 0) -> Iterator[str | Refusal]:
        if not self._file.kind.is_table:
            for row in self._file.values(start):
                yield row if isinstance(row, Refusal) else paths.text_of(row, self._paths)
            return
        for _, batch in self._file.batches(self._columns, start):
            yield from self._texts_of(batch)

    def pick(self, wanted: Collection[int]) -> Iterator[tuple[int, str]]:
        """Row number and text of the wanted rows, in the order of the rows.

        Of Parquet, row groups without any are not read; of all else, nothing behind the last one.

        Raises:
            InputError: a wanted row has no text.
        """
        for row, text in self._picked(sorted(wanted)):
            if not isinstance(text, str):
                raise InputError(f"row {row} of {self.where} had a text when it was embedded: {text.message}")
            yield row, text

    def sources(self, column: str) -> list[str]:
        """The text at the path ``column`` of every row; empty where it is null, no text or not UTF-8.

        A file that has no such column has the value of the folder ``column=…`` in its path. How many rows
        have no source is logged.
        """
        found = self._sources(column)
        if without := found.count(""):
            log.warning(
                "shard=%s difference.source_column=%s: %d of %d rows have no text there, and the source ''",
                *(self.info.key, column, without, len(found)),
            )
        return found

    def _sources(self, column: str) -> list[str]:
        path = TextPath(column, "difference.source_column")
        folders = partitions(self.info.key)
        if not self._file.kind.is_table:
            return [_source(row, path, folders) for row in self._file.values()]
        if path.column not in self._file.schema.names and column in folders:
            return [folders[column]] * self._file.count()
        path.check(self._file.schema, self.where)
        return [
            (value or b"").decode("utf-8", errors="replace")
            for _, batch in self._file.batches([path.column])
            for value in path.extract(batch)
        ]

    def _picked(self, wanted: list[int]) -> Iterator[tuple[int, str | Refusal]]:
        if self._file.kind.is_table:
            for row, batch in self._file.picked(self._columns, wanted):
                (text,) = self._texts_of(batch)
                yield row, text
            return
        left = set(wanted)
        for row, text in enumerate(self.texts() if left else ()):
            if row in left:
                left.remove(row)
                yield row, text
            if not left:
                return

    @cached_property
    def _paths(self) -> list[TextPath]:
        found = [TextPath(path) for path in self._text_columns]
        if self._file.kind.is_table:
            for path in found:
                path.check(self._file.schema, self.where)
        return found

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(path.column for path in self._paths))

    def _texts_of(self, batch: pa.RecordBatch) -> Iterator[str | Refusal]:
        values = (path.extract(batch) for path in self._paths)
        return map(paths.join, zip(*values, strict=True))


class Sft(Reader):
    """A shard of an SFT set."""

    role = "sft"

    def __init__(
        self, storage: Storage, info: ObjectInfo, sft_text: SftText, settings: Examples | None = None
    ) -> None:
        """Read a shard as ``settings`` say; by default, as it is detected.

        ``sft_text``: which turns of an example are its text.
        """
        super().__init__(storage, info)
        self._sft_text = sft_text
        self._settings = settings or Examples()
        self._rows = Rows(self._settings)
        #: What the rows that have been read hold beside their examples.
        self.not_kept = NotKept()

    @cached_property
    def form(self) -> str:
        found = dict.fromkeys(map(self._rows.form, islice(self._raw_rows(), _HEAD)))
        if not found and self._file.kind.is_table:
            found = {self._rows.form(dict.fromkeys(self._columns)): None}
        forms = "+".join(form for form in found if form)
        return f"{self._file.form} {forms}" if forms else self._file.form

    def texts(self, start: int = 0) -> Iterator[str | Rejection | Refusal]:
        # From the first row on, whatever is asked for: what is not kept is counted of all.
        for row, (_, text) in enumerate(self._read()):
            if row >= start:
                yield text

    def text_at(self, row: int) -> str | Rejection | Refusal | None:
        """The text of one row, without those before it where the file allows; None behind the last."""
        item = next(map(self._rows.example, self._raw_rows(row)), None)
        return self.text(item) if isinstance(item, Example) else item

    def text(self, example: Example) -> str | Rejection | Refusal:
        """The text of an example."""
        return compared.text(example, self._sft_text)

    def examples(self) -> Iterator[Example | Rejection | Refusal]:
        """One item per row, in order; no example exactly where ``texts`` has no text."""
        for item, text in self._read():
            yield item if isinstance(text, str) else text

    def _read(self) -> Iterator[tuple[Example | Rejection | Refusal, str | Rejection | Refusal]]:
        """What each row is, and its text; counts what is not kept of the examples."""
        self.not_kept = NotKept(self._unread if self._file.kind.is_table else {})
        for item in map(self._rows.example, self._raw_rows()):
            if not isinstance(item, Example):
                yield item, item
                continue
            text = self.text(item)
            if isinstance(text, str):
                self.not_kept.add(item.not_kept)
            yield item, text

    def _raw_rows(self, start: int = 0) -> Iterator[Any]:
        if not self._file.kind.is_table:
            yield from self._file.values(start)
            return
        for _, batch in self._file.batches(self._columns, start):
            yield from columns.rows(batch)

    @cached_property
    def _columns(self) -> list[str]:
        return columns.wanted(self._file.schema, self.where, self._settings)

    @property
    def _unread(self) -> dict[str, int]:
        """Of the columns that are not read, in how many rows each is not null."""
        return {name: rows for name, rows in self._file.table.filled.items() if name not in self._columns}


def _source(row: Any, path: TextPath, folders: Mapping[str, str]) -> str:
    """A row's text at a path, or the value of the folder of that name where the row has no such key."""
    if not isinstance(row, dict):
        return ""
    if path.column not in row and path.spec in folders:
        return folders[path.spec]
    value = path.find(row)
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
