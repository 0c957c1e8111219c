"""The one door to input files: the rows of a shard, in order, as texts or as examples.

Corpus shards are Parquet, SFT shards Parquet, JSON (one array, or JSON Lines) or
JSON Lines, the last two also compressed by gzip or zstd. Every row gives exactly
one item, a text or the ``Refusal`` that says why it has none, so that an item's
place is its row number. Files are read by ranges as the rows are asked for:
Parquet page by page, whatever the size of its row groups.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from io import BufferedReader
from itertools import accumulate, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.config import Examples, RunConfig, SftText
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import json_rows, rows
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.forms import columns, compared
from aitp_tasks.inputs.forms.rows import Rows
from aitp_tasks.inputs.not_kept import NotKept
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.storage import ObjectInfo, Storage

_PARQUET = ".parquet"
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", "": None}
_SUFFIXES = {
    "corpus": (_PARQUET,),
    "sft": (_PARQUET, *(kind + packed for kind in (".jsonl", ".json") for packed in _COMPRESSIONS)),
}
#: Bytes of one read of a Parquet column.
_BUFFER = 4 * 2**20
#: A batch is as many rows as hold about so many bytes, and no more than so many.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 1024
#: Rows that tell the form of an SFT shard.
_HEAD = 100


class UnreadableError(InputError):
    """A file is not what its ending says, or is damaged."""


def suffixes(role: str) -> tuple[str, ...]:
    """The endings of the files that are shards of ``corpus`` or ``sft``."""
    return _SUFFIXES[role]


def reader(storage: Storage, info: ObjectInfo, role: str, config: RunConfig) -> "Corpus | Sft":
    """The reader of one input file, as a run's configuration reads its role.

    Raises:
        InputError: the key's ending is none of ``suffixes(role)``.
    """
    if role == "corpus":
        return Corpus(storage, info, config.text_columns)
    return Sft(storage, info, config.sft_text, config.examples)


def count_rows(storage: Storage, info: ObjectInfo) -> int:
    """How many rows a JSON shard of an SFT set has; all of it is read.

    Raises:
        InputError: the file is damaged, or not what its ending says.
        ObjectChangedError: it was replaced since ``info``.
    """
    return Sft(storage, info, SftText.FIRST_TURNS).count()


class Reader(ABC):
    """One version of an input file.

    All that reads raises:
        UnreadableError: the file is damaged, or not what its ending says.
        InputError: its columns are not those that the configuration asks for.
        ObjectChangedError: the file was replaced since ``info``.
    """

    role: str

    def __init__(self, storage: Storage, info: ObjectInfo) -> None:
        self.where = storage.uri(info.key)
        self.info = info
        self._storage = storage
        endings = [suffix for suffix in suffixes(self.role) if info.key.endswith(suffix)]
        if not endings:
            raise InputError(
                f"{self.where} is no {self.role} shard: it must be {', '.join(suffixes(self.role))}"
            )
        self._suffix = endings[0]

    @property
    @abstractmethod
    def form(self) -> str:
        """What the file is, for reports: ``parquet``, ``jsonl.gz messages``.

        Reads no more than is needed to check the columns, or the first example's keys.
        """

    @property
    def rows(self) -> int | None:
        """Rows by the footer; None where only reading can tell."""
        return self._parquet.rows if self._suffix == _PARQUET else None

    @abstractmethod
    def texts(self, start: int = 0) -> Iterator[str | Rejection | Refusal]:
        """One item per row from row ``start`` on, in order."""

    @cached_property
    def _parquet(self) -> "_Parquet":
        return _Parquet(self._storage, self.info)


class Corpus(Reader):
    """A corpus shard."""

    role = "corpus"

    def __init__(self, storage: Storage, info: ObjectInfo, text_columns: Sequence[str]) -> None:
        """``text_columns``: paths whose texts are joined; see ``rows.TextPath``."""
        super().__init__(storage, info)
        self._text_columns = text_columns

    @cached_property
    def form(self) -> str:
        _ = self._paths
        return "parquet"

    def texts(self, start: int = 0) -> Iterator[str | Refusal]:
        for _, batch in self._parquet.batches(self._columns, start):
            yield from self._texts_of(batch)

    def pick(self, wanted: Collection[int]) -> Iterator[tuple[int, str]]:
        """Row number and text of the wanted rows; row groups without any are not read.

        Raises:
            InputError: a wanted row has no text.
        """
        for row, batch in self._parquet.picked(self._columns, wanted):
            (text,) = self._texts_of(batch)
            if not isinstance(text, str):
                raise InputError(f"row {row} of {self.where} had a text when it was embedded: {text.message}")
            yield row, text

    def sources(self, column: str) -> list[str]:
        """The text at the path ``column`` of every row; empty where it is null or not UTF-8."""
        path = rows.TextPath(column, "difference.source_column")
        path.check(self._parquet.schema, self.where)
        return [
            (value or b"").decode("utf-8", errors="replace")
            for _, batch in self._parquet.batches([path.column])
            for value in path.extract(batch)
        ]

    @cached_property
    def _paths(self) -> list[rows.TextPath]:
        paths = [rows.TextPath(path) for path in self._text_columns]
        for path in paths:
            path.check(self._parquet.schema, self.where)
        return paths

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(path.column for path in self._paths))

    def _texts_of(self, batch: pa.RecordBatch) -> Iterator[str | Refusal]:
        values = (path.extract(batch) for path in self._paths)
        return map(rows.join, zip(*values, strict=True))


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
        kind = "parquet" if self._suffix == _PARQUET else "json" if self._is_array else "jsonl"
        found = dict.fromkeys(map(self._rows.form, islice(self._raw_rows(), _HEAD)))
        if not found and self._suffix == _PARQUET:
            found = {self._rows.form(dict.fromkeys(self._columns)): None}
        forms = "+".join(form for form in found if form)
        return f"{kind}{self._packed} {forms}" if forms else f"{kind}{self._packed}"

    def texts(self, start: int = 0) -> Iterator[str | Rejection | Refusal]:
        # From the first row on, whatever is asked for: what is not kept is counted of all.
        for row, example in enumerate(self.examples()):
            if row >= start:
                yield self.text(example) if isinstance(example, Example) else example

    def text(self, example: Example) -> str | Rejection | Refusal:
        """The text of an example."""
        return compared.text(example, self._sft_text)

    def examples(self) -> Iterator[Example | Rejection | Refusal]:
        """One item per row, in order; no example exactly where ``texts`` has no text."""
        self.not_kept = NotKept(self._unread if self._suffix == _PARQUET else {})
        for example in self._examples():
            text = self.text(example) if isinstance(example, Example) else example
            if isinstance(text, str) and isinstance(example, Example):
                self.not_kept.add(example.not_kept)
                yield example
            else:
                assert not isinstance(text, str)
                yield text

    def count(self) -> int:
        """How many rows a file of JSON has."""
        return sum(1 for _ in self._values())

    def _examples(self) -> Iterator[Example | Rejection | Refusal]:
        return map(self._rows.example, self._raw_rows())

    def _raw_rows(self) -> Iterator[Any]:
        if self._suffix != _PARQUET:
            yield from self._values()
            return
        for _, batch in self._parquet.batches(self._columns):
            yield from columns.rows(batch)

    @cached_property
    def _columns(self) -> list[str]:
        return columns.wanted(self._parquet.schema, self.where, self._settings)

    @property
    def _unread(self) -> dict[str, int]:
        """Of the columns that are not read, in how many rows each is not null."""
        return {name: rows for name, rows in self._parquet.filled.items() if name not in self._columns}

    @cached_property
    def _is_array(self) -> bool:
        if self._suffix.startswith(".jsonl"):
            return False
        with self._stream("JSON") as stream:
            return json_rows.is_array(stream)

    def _values(self, start: int = 0) -> Iterator[Any]:
        with self._stream("JSON" if self._is_array else "JSON Lines") as stream:
            if not self._is_array:
                yield from json_rows.lines(stream, start)
                return
            for row, value in enumerate(json_rows.array(stream)):
                if row >= start:
                    yield value

    @contextmanager
    def _stream(self, name: str) -> Iterator[BufferedReader]:
        """The file's bytes, decompressed; ``name`` is the format, for messages."""
        source = pa.PythonFile(self._storage.open(self.info), mode="r")
        # Arrow's decompressors notice an end that comes too early; zstandard's stream does not.
        codec = _COMPRESSIONS[self._packed]
        with _readable(self.where, name + self._packed):
            if codec:
                source = pa.CompressedInputStream(pa.BufferedInputStream(source, json_rows.BUFFER), codec)
            with BufferedReader(source, json_rows.BUFFER) as stream:
                yield stream

    @property
    def _packed(self) -> str:
        """The ending of the compression: ``.gz``, ``.zst`` or nothing."""
        return next(packed for packed in _COMPRESSIONS if self._suffix.endswith(packed))


class _Parquet:
    """A Parquet file, read by column and page; its footer is read once."""

    def __init__(self, storage: Storage, info: ObjectInfo) -> None:
        self._storage = storage
        self._info = info
        self._where = storage.uri(info.key)
        with self._open() as file:
            self._footer: pq.FileMetaData = file.metadata
            self.schema: pa.Schema = file.schema_arrow
        self.rows: int = self._ends[-1] if self._ends else 0

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of rows from ``start`` on, each with its first row's number."""
        with self._open(self._footer) as file:
            for group in range(bisect_left(self._ends, start + 1), len(self._ends)):
                for first, batch in self._batches_of(file, group, columns):
                    skipped = max(start - first, 0)
                    if skipped < len(batch):
                        yield first + skipped, batch.slice(skipped)

    def picked(self, columns: list[str], wanted: Iterable[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The wanted rows, one a batch, from the row groups that hold any."""
        left = sorted(wanted)
        with self._open(self._footer) as file:
            for group, end in enumerate(self._ends):
                if not left or left[0] >= end:
                    continue
                for first, batch in self._batches_of(file, group, columns):
                    here = bisect_left(left, first + len(batch))
                    for row in left[:here]:
                        yield row, batch.slice(row - first, 1)
                    left = left[here:]
                    # What follows the last wanted row of a group is not read.
                    if not left or left[0] >= end:
                        break

    @property
    def filled(self) -> dict[str, int]:
        """In how many rows each column is not null, as far as the footer can tell."""
        found = dict.fromkeys(self.schema.names, 0)
        for group in map(self._footer.row_group, range(self._footer.num_row_groups)):
            held: dict[str, int] = {}
            for leaf in map(group.column, range(group.num_columns)):
                path = leaf.path_in_schema
                name = next(name for name in found if path == name or path.startswith(f"{name}."))
                told = leaf.statistics is not None and leaf.statistics.has_null_count
                values = leaf.num_values - (leaf.statistics.null_count if told else 0)
                held[name] = max(held.get(name, 0), min(values, group.num_rows))
            for name, rows_held in held.items():
                found[name] += rows_held
        return found

    @cached_property
    def _ends(self) -> list[int]:
        """The number of the row that follows each row group."""
        groups = range(self._footer.num_row_groups)
        return list(accumulate(self._footer.row_group(group).num_rows for group in groups))

    def _batches_of(
        self, file: pq.ParquetFile, group: int, columns: list[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        footer = self._footer.row_group(group)
        leaves = [footer.column(number) for number in range(footer.num_columns)]
        size = sum(
            leaf.total_uncompressed_size
            for leaf in leaves
            if leaf.path_in_schema.partition(".")[0] in columns
        )
        batch_rows = min(max(_BATCH_BYTES * footer.num_rows // max(size, 1), 1), _BATCH_ROWS)
        end = self._ends[group]
        row = end - footer.num_rows
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns):
            yield row, batch
            row += len(batch)
        if row != end:
            raise UnreadableError(
                f"{self._where} is not readable as Parquet (row group {group} lacks {end - row} of its "
                f"{footer.num_rows} rows): replace it, then clear its task"
            )

    @contextmanager
    def _open(self, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        source = pa.PythonFile(self._storage.open(self._info), mode="r")
        # Without a buffer, or with pre_buffer, a column of a whole row group is read at once.
        with (
            _readable(self._where, "Parquet"),
            pq.ParquetFile(source, metadata=footer, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            yield file


@contextmanager
def _readable(where: str, name: str) -> Iterator[None]:
    """Turns the errors of damaged files into ``UnreadableError``."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        # An error number is the machine's: a disk that fails, a file that may not be read.
        if getattr(error, "errno", None) is not None:
            raise
        reason = " ".join(str(error).split())
        raise UnreadableError(
            f"{where} is not readable as {name} ({reason}): replace it, then clear its task"
        ) from error
