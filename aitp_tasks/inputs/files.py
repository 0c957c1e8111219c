"""One version of an input file, from bytes to rows: a table of columns, or rows as JSON would have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BufferedReader
from typing import Any

import pyarrow as pa

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import csv_rows, formats, json_rows, mistakes, parts, streams, tables, tar_rows
from aitp_tasks.inputs.formats import Format
from aitp_tasks.inputs.tables import Batches
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage

_DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}


class UnreadableError(InputError):
    """A file is not what its ending says, or is damaged."""


class MistakenError(UnreadableError):
    """A file is something else than its ending says: no upload of the same file helps."""


class File:
    """One version of an input file, or of a part of it.

    All that reads raises:
        UnreadableError: the file is damaged, or not what its ending says.
        ObjectChangedError: the file was replaced since ``info``.
    """

    def __init__(self, storage: Storage, info: ObjectInfo, shared: bool = False) -> None:
        """Nothing is read yet.

        Args:
            storage: where it lies.
            info: the version.
            shared: whether equal texts of a table may share memory, as dictionaries.

        Raises:
            InputError: files with this ending are not read.
        """
        self.info = info
        key, self._part = parts.split(info.key)
        self.where = storage.uri(key)
        self._key = key
        self._storage = storage
        self._shared = shared
        kind = formats.of(key)
        if kind is None:
            raise InputError(f"{self.where} is not read: its name must end in {formats.READ}")
        self.kind = kind

    @property
    def form(self) -> str:
        """What the file is, for reports: ``parquet``, ``jsonl.gz``."""
        lines = self.kind.format is Format.JSON and not self._is_array
        return f"{Format.JSON_LINES if lines else self.kind.format}{self.kind.packed}"

    @property
    def rows(self) -> int | None:
        """Rows as the file says; None where only reading can tell."""
        return self.table.rows if self.kind.is_table else None

    @property
    def schema(self) -> pa.Schema:
        """Of a table: its columns, without extension types."""
        return self.table.schema

    @cached_property
    def table(self) -> tables.Table:
        """Of a table: the opened file."""
        with self.readable():
            if self.kind.format is Format.PARQUET:
                return tables.Parquet(self._open, self._shared)
            return tables.Arrow(self._open, self._whole.size)

    def batches(self, columns: list[str], start: int = 0) -> Batches:
        """Of a table: batches of rows from ``start`` on, each with its first row's number."""
        with self.readable():
            yield from self.table.batches(columns, start)

    def picked(self, columns: list[str], wanted: list[int]) -> Batches:
        """Of a table: the wanted rows, one a batch."""
        with self.readable():
            yield from self.table.picked(columns, wanted)

    def values(self, start: int = 0) -> Iterator[Any]:
        """Of any other file: the rows from ``start`` on as JSON has them, or a ``Refusal``."""
        with self.stream() as stream:
            yield from self.values_of(stream, start)

    def values_of(self, stream: BufferedReader, start: int = 0) -> Iterator[Any]:
        """The same, of the file's decompressed bytes."""
        match self.kind.format:
            case Format.CSV | Format.TSV:
                yield from csv_rows.rows(stream, _DELIMITERS[self.kind.format], start)
            case Format.TAR:
                yield from tar_rows.rows(stream, start)
            case Format.JSON if json_rows.is_array(stream):
                yield from (value for row, value in enumerate(json_rows.array(stream)) if row >= start)
            case _ if self._part is None:
                yield from json_rows.lines(stream, start)
            case _:
                yield from self._lines_of_part(stream, self._part, start)

    def count(self) -> int:
        """How many rows the file has, damaged ones too; all of it is read where it does not say."""
        if not self.kind.is_table:
            return sum(1 for _ in self.values())
        with self.readable():
            return self.table.count()

    @contextmanager
    def stream(self) -> Iterator[BufferedReader]:
        """The file's bytes, decompressed; of a part, from the byte before it on."""
        with (
            self.readable(),
            BufferedReader(self._open(), streams.BUFFER) as raw,
            self.opened(raw, streams.BUFFER) as stream,
        ):
            if self._part is not None and self._part.start:
                stream.seek(self._part.start - 1)
            yield stream

    @contextmanager
    def opened(self, raw: BufferedReader, size: int) -> Iterator[BufferedReader]:
        """A stream of the file's bytes, decompressed by ``size`` bytes, once its beginning is right."""
        if (self.kind.packed or self.kind.format is Format.TAR) and not raw.peek():
            raise ValueError("it is empty, without even the beginning of the format")
        self._require(mistakes.of_bytes(raw.peek()[: mistakes.LOOKED_AT], self.kind))
        with streams.decompressed(raw, self.kind.packed, size) as stream:
            try:
                head = stream.peek()
            except OSError as error:
                self._require_window(error)
                raise
            self._require(mistakes.of_text(head[: mistakes.LOOKED_AT], self.kind))
            yield stream

    def beginning(self, size: int) -> bytes:
        """The file's first bytes, as they lie in storage."""
        size = min(size, self._whole.size)
        return self._storage.read_range(self._whole, 0, size) if size else b""

    def mistaken(self, mistake: mistakes.Mistake) -> MistakenError:
        """The error for a file that is something else."""
        return MistakenError(
            f"{self.where} is not readable as {self.kind.label} ({mistake.reason}): {mistake.remedy}"
        )

    @staticmethod
    def _lines_of_part(stream: BufferedReader, part: range, start: int) -> Iterator[Any]:
        skipped = 0
        if part.start:
            # The line that begins before the part is not of it, unless it ends just there.
            skipped = json_rows.skip_line(stream) - 1
        if skipped < len(part):
            yield from json_rows.lines(stream, start, len(part) - skipped)

    @cached_property
    def _is_array(self) -> bool:
        with self.stream() as stream:
            return json_rows.is_array(stream)

    @cached_property
    def _whole(self) -> ObjectInfo:
        """The file that this is a part of."""
        if self._part is None:
            return self.info
        info = self._storage.stat(self._key)
        if info.etag != self.info.etag:
            raise ObjectChangedError(f"{self.where} changed while it was read")
        return info

    def _open(self) -> pa.NativeFile:
        return pa.PythonFile(self._storage.open(self._whole), mode="r")

    def _require_window(self, error: Exception) -> None:
        if streams.LONG_WINDOW in str(error):
            raise self.mistaken(mistakes.LONG_WINDOW)

    def _require(self, mistake: mistakes.Mistake | None) -> None:
        if mistake is not None:
            raise self.mistaken(mistake)

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turns the errors of damaged files into ``UnreadableError``."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, EOFError) as error:
            # An error number is the machine's: a disk that fails, a file that may not be read.
            if getattr(error, "errno", None) is not None:
                raise
            self._require_window(error)
            if self.kind.is_table:
                self._require(mistakes.of_bytes(self.beginning(mistakes.LOOKED_AT), self.kind))
            reason = " ".join(str(error).split())
            raise UnreadableError(
                f"{self.where} is not readable as {self.kind.label} ({reason}): "
                "replace it, then clear its task"
            ) from error
