"""The Parquet shards of a version's splits, in the hub's layout: ``data/train-00000-of-0000N.parquet``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.records import conversations, data_files

#: Bytes of a shard at most, unless a single row group has more.
MOST_BYTES = 500_000_000
#: A row group is so many rows, or fewer that have about so many characters.
_GROUP_ROWS, _GROUP_CHARACTERS = 1024, 64 * 2**20


def with_whole_numbers(schema: pa.Schema) -> pa.Schema:
    """The schema with a note for pandas: columns of whole numbers stay that where some are null.

    Without it, pandas makes floats of them, which do not hold every row's number.
    """
    columns = [
        {"name": field.name, "field_name": field.name, "pandas_type": "int64", "numpy_type": "Int64",
         "metadata": None}
        for field in schema
        if pa.types.is_int64(field.type)
    ]  # fmt: skip
    told = {"index_columns": [], "column_indexes": [], "columns": columns}
    return schema.with_metadata({"pandas": json.dumps(told)})


class Shards:
    """Writes rows into as many shards as they need."""

    def __init__(self, folder: Path, schema: pa.Schema, split: str = data_files.SPLIT) -> None:
        """
        Args:
            folder: of the version; an existing one.
            schema: of the rows, with the columns of ``conversations``.
            split: that all of the rows are in.
        """
        self._folder, self._schema, self._split = folder, with_whole_numbers(schema), split
        self._made: list[Path] = []
        self._rows: list[int] = []
        self._writer: pq.ParquetWriter | None = None
        self._sink: Any = None
        self._group: list[Mapping[str, Any]] = []
        self._characters = 0
        (folder / data_files.FOLDER).mkdir(exist_ok=True)

    def write(self, row: Mapping[str, Any], characters: int) -> None:
        """Add a row that has about so many characters."""
        self._group.append(row)
        self._characters += characters
        if len(self._group) == _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._flush()

    def close(self) -> dict[str, int]:
        """Finish the shards; how many rows each has, by its path. Without a row there is one, with none."""
        if self._group or not self._made:
            self._flush()
        self._end()
        names = [data_files.shard(number, len(self._made), self._split) for number in range(len(self._made))]
        for path, name in zip(self._made, names, strict=True):
            path.rename(self._folder / name)
        return dict(zip(names, self._rows, strict=True))

    def _flush(self) -> None:
        table = conversations.table(self._group, self._schema)
        # Compressed, a group is smaller than in memory.
        if self._writer is not None and self._sink.tell() + table.nbytes > MOST_BYTES:
            self._end()
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        self._writer.write_table(table)
        self._rows[-1] += len(table)
        self._group, self._characters = [], 0

    def _begin(self) -> None:
        # How many there will be is part of a shard's name, and known at the end.
        self._made.append(self._folder / data_files.FOLDER / f"unnamed-{len(self._made):05}")
        self._rows.append(0)
        self._sink = pa.OSFile(str(self._made[-1]), "wb")
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        self._writer = None
