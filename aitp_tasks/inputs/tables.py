"""Files with columns and types: Parquet page by page, Arrow IPC batch by batch, both by ranges.

Extension types (JSON, UUID …) are read as what they are stored as, so that the
schema that plan checks is the one that embed reads.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

#: Bytes of one read of a Parquet column.
_BUFFER = 4 * 2**20
#: A batch is as many rows as hold about so many bytes, and no more than so many.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 1024
#: A column of a row group that may be read as one dictionary has no more bytes.
_DICTIONARY_BYTES = 64 * 2**20
#: How an Arrow IPC file begins, and how a stream of it ends; the second as releases before 0.15 wrote it.
_ARROW_FILE = b"ARROW1"
_ENDS = (b"\xff\xff\xff\xff\x00\x00\x00\x00", b"\x00\x00\x00\x00")

Batches = Iterator[tuple[int, pa.RecordBatch]]
#: Opens a file, each time from its beginning.
Opened = Callable[[], pa.NativeFile]


class Table(ABC):
    """An opened file. What is damaged raises Arrow's errors, or a ValueError."""

    #: Without extension types.
    schema: pa.Schema

    @property
    @abstractmethod
    def rows(self) -> int | None:
        """Rows as the file says; None where only reading can tell."""

    @property
    def filled(self) -> dict[str, int]:
        """In how many rows each column is not null, as far as the file tells without reading it."""
        return {}

    def count(self) -> int:
        """How many rows there are; reads what is needed."""
        assert self.rows is not None
        return self.rows

    def estimate(self) -> tuple[int, bool]:
        """About how many rows there are, from the file's beginning; and whether that is an estimate."""
        return self.count(), False

    @abstractmethod
    def batches(self, columns: list[str], start: int = 0) -> Batches:
        """Batches of rows from ``start`` on, each with its first row's number."""

    @abstractmethod
    def picked(self, columns: list[str], wanted: Iterable[int]) -> Batches:
        """The wanted rows, one a batch; as little is read for them as the format allows."""


class Parquet(Table):
    """A Parquet file, read by column and page; its footer is read once.

    Args:
        open_: opens the file from its beginning.
        shared: whether rows with the same text may share it in memory (dictionaries).
    """

    def __init__(self, open_: Opened, shared: bool = False) -> None:
        self._open_file = open_
        self._shared = shared
        with self._open() as file:
            self._footer: pq.FileMetaData = file.metadata
            self.schema = stored(file.schema_arrow)

    @property
    def rows(self) -> int:
        return self._ends[-1] if self._ends else 0

    def batches(self, columns: list[str], start: int = 0) -> Batches:
        with self._open(columns) as file:
            for group in range(bisect_left(self._ends, start + 1), len(self._ends)):
                yield from _behind(self._batches_of(file, group, columns), start)

    def picked(self, columns: list[str], wanted: Iterable[int]) -> Batches:
        left = sorted(wanted)
        with self._open(columns) as file:
            for group, end in enumerate(self._ends):
                if not left or left[0] >= end:
                    continue
                # What follows the last wanted row of a group is not read.
                here = bisect_left(left, end)
                yield from _rows_of(self._batches_of(file, group, columns), left[:here])
                left = left[here:]

    @property
    def filled(self) -> dict[str, int]:
        found = dict.fromkeys(self.schema.names, 0)
        for group in map(self._footer.row_group, range(self._footer.num_row_groups)):
            held: dict[str, int] = {}
            for leaf in map(group.column, range(group.num_columns)):
                path = leaf.path_in_schema
                name = next(name for name in found if path == name or path.startswith(f"{name}."))
                if pa.types.is_null(self.schema.field(name).type):
                    continue
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

    def _batches_of(self, file: pq.ParquetFile, group: int, columns: list[str]) -> Batches:
        footer = self._footer.row_group(group)
        leaves = [footer.column(number) for number in range(footer.num_columns)]
        size = sum(
            leaf.total_uncompressed_size
            for leaf in leaves
            if any(
                leaf.path_in_schema == name or leaf.path_in_schema.startswith(f"{name}.") for name in columns
            )
        )
        batch_rows = min(max(_BATCH_BYTES * footer.num_rows // max(size, 1), 1), _BATCH_ROWS)
        end = self._ends[group]
        row = end - footer.num_rows
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns):
            yield row, _as_stored(batch)
            row += len(batch)
        if row != end:
            raise ValueError(f"row group {group} lacks {end - row} of its {footer.num_rows} rows")

    def _dictionaries(self, columns: list[str]) -> list[str]:
        """Text columns whose rows may repeat one another: a page of 1 MB can stand for 1 GB of rows.

        Read as dictionaries, such rows share their text. But a dictionary grows over a row group, so that
        of a large one no column is read so.
        """
        if not self._shared:
            return []
        groups = [self._footer.row_group(number) for number in range(self._footer.num_row_groups)]
        found = []
        for number in range(len(self._footer.schema) if groups else 0):
            leaves = [group.column(number) for group in groups]
            small = all(leaf.total_uncompressed_size <= _DICTIONARY_BYTES for leaf in leaves)
            path = leaves[0].path_in_schema
            if path in columns and small and any(leaf.has_dictionary_page for leaf in leaves):
                found.append(path)
        return found

    @contextmanager
    def _open(self, columns: list[str] | None = None) -> Iterator[pq.ParquetFile]:
        # Without a buffer, or with pre_buffer, a column of a whole row group is read at once.
        with pq.ParquetFile(
            self._open_file(),
            metadata=None if columns is None else self._footer,
            read_dictionary=None if columns is None else self._dictionaries(columns),
            buffer_size=_BUFFER,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            yield file


class Arrow(Table):
    """An Arrow IPC file or stream, read batch by batch."""

    def __init__(self, open_: Opened, size: int) -> None:
        self._open_file = open_
        self._size = size
        with open_() as file:
            self._indexed = file.read(len(_ARROW_FILE)) == _ARROW_FILE
            if not self._indexed:
                self._require_end(file)
        with self._open(None) as (_, reader):
            self.schema = stored(reader.schema)

    @property
    def rows(self) -> None:
        return None

    def count(self) -> int:
        return sum(rows for rows, _ in self.sized())

    def estimate(self) -> tuple[int, bool]:
        with self._open_file() as file, self._opened(file, []) as reader:
            first = next(self._read(file, reader), None)
            if first is None:
                return 0, False
            if self._indexed:
                return len(first) * reader.num_record_batches, reader.num_record_batches > 1
            return max(round(len(first) * self._size / file.tell()), 1), True

    def batches(self, columns: list[str], start: int = 0) -> Batches:
        with self._open(columns) as (file, reader):
            yield from _behind(self._batches_of(file, reader), start)

    def picked(self, columns: list[str], wanted: Iterable[int]) -> Batches:
        with self._open(columns) as (file, reader):
            yield from _rows_of(self._batches_of(file, reader), sorted(wanted))

    def sized(self) -> Iterator[tuple[int, int]]:
        """How many rows each batch has, and how many of the file's bytes were read by then."""
        with self._open_file() as file, self._opened(file, []) as reader:
            for batch in self._read(file, reader):
                yield len(batch), file.tell()

    def _batches_of(self, file: pa.NativeFile, reader: pa.RecordBatchReader) -> Batches:
        row = 0
        for batch in self._read(file, reader):
            for first in range(0, len(batch), _BATCH_ROWS):
                part = batch.slice(first, _BATCH_ROWS)
                yield row, _as_stored(part)
                row += len(part)

    def _read(self, file: pa.NativeFile, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        if self._indexed:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
            return
        position = file.tell()
        for batch in reader:
            position = file.tell()
            yield batch
        # The reader takes an end that comes too early for the end, and stops at the first mark.
        file.seek(position)
        rest = file.read(len(_ENDS[0]) + 1)
        if not rest:
            raise ValueError("it ends too early: the mark of the end is missing")
        if rest not in _ENDS:
            raise ValueError(
                "data follows its end: what else was put behind it, such as another stream, would not be read"
            )

    def _require_end(self, file: pa.NativeFile) -> None:
        """A stream that does not end with its mark may have lost batches; most that were cut do not."""
        file.seek(max(self._size - len(_ENDS[0]), 0))
        if not file.read().endswith(_ENDS):
            raise ValueError(
                "it ends too early, or data follows its end: the last bytes are not the mark of the end"
            )

    @contextmanager
    def _open(self, columns: list[str] | None) -> Iterator[tuple[pa.NativeFile, pa.RecordBatchReader]]:
        with self._open_file() as file, self._opened(file, columns) as reader:
            yield file, reader

    def _opened(self, file: pa.NativeFile, columns: list[str] | None) -> pa.RecordBatchReader:
        numbers = None
        if columns is not None:
            numbers = [number for number, name in enumerate(self.schema.names) if name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=numbers or None)
        if self._indexed:
            return pa.ipc.open_file(file, options=options)
        return pa.ipc.open_stream(file, options=options)


def stored(schema: pa.Schema) -> pa.Schema:
    """A schema with the types that extension types are stored as, and without metadata."""
    return pa.schema([field.with_type(_stored(field.type)).remove_metadata() for field in schema])


def _stored(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _stored(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_stored(field.type)) for field in kind])
    for test, made in (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_view),
        (types.is_large_list_view, pa.large_list_view),
    ):
        if test(kind):
            return made(kind.value_field.with_type(_stored(kind.value_type)))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_stored(kind.value_type)), kind.list_size)
    return kind


def _as_stored(batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = stored(batch.schema)
    if schema.equals(batch.schema):
        return batch
    columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _behind(batches: Batches, start: int) -> Batches:
    """Of batches what begins at row ``start``."""
    for first, batch in batches:
        skipped = max(start - first, 0)
        if skipped < len(batch):
            yield first + skipped, batch.slice(skipped)


def _rows_of(batches: Batches, wanted: list[int]) -> Batches:
    """The wanted rows, in their order; reads no batch behind the last of them."""
    left = wanted
    if not left:
        return
    for first, batch in batches:
        here = bisect_left(left, first + len(batch))
        for row in left[:here]:
            yield row, batch.slice(row - first, 1)
        left = left[here:]
        if not left:
            return
