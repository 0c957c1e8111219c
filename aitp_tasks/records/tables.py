"""Small Parquet tables as objects: written whole under a content-addressed key, read whole."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.records import damage, digest
from aitp_tasks.storage import Storage

_ROWS_AT_A_TIME = 4096
QUARANTINE = pa.schema([("id", pa.string()), ("error_class", pa.string()), ("message", pa.string())])


def to_bytes(table: pa.Table, group_rows: int | None = None) -> bytes:
    """A table as Parquet, in row groups of so many rows; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=group_rows)
    return sink.getvalue()


def write(storage: Storage, prefix: str, table: pa.Table, group_rows: int | None = None) -> str:
    """Write a table under ``<prefix>-<digest>.parquet`` and return that key."""
    data = to_bytes(table, group_rows)
    key = f"{prefix}-{digest.of_bytes(data)}.parquet"
    storage.write_if_absent(key, data)
    return key


def write_rows(storage: Storage, prefix: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> str:
    """Write rows as ``write`` writes a table, some at a time, so that they are not in memory as one too."""
    with tempfile.TemporaryDirectory(prefix="aitp-rows-") as folder:
        path = Path(folder) / "rows.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as target:
            for start in range(0, len(rows), _ROWS_AT_A_TIME):
                some = rows[start : start + _ROWS_AT_A_TIME]
                target.write_table(pa.Table.from_pylist(some, schema))
        key = f"{prefix}-{digest.of_file(path)}.parquet"
        if storage.find(key) is None:
            storage.upload(key, path)
    return key


def read(
    storage: Storage, key: str, columns: list[str] | None = None, remedy: str = damage.AGAIN
) -> pa.Table:
    """Read a table that AITP has written.

    Raises:
        DamagedError: it cannot be read; the message ends with ``remedy``.
        InputError: there is no such object.
    """
    return damage.read(storage, key, lambda data: parsed(data, columns), remedy)


def read_unchecked(storage: Storage, key: str, columns: list[str] | None = None) -> pa.Table:
    """The same for whoever has words of its own for what pyarrow raises of a damaged one."""
    return parsed(storage.read(key), columns)


def parsed(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A table of an object's bytes."""
    return pq.read_table(pa.BufferReader(data), columns=columns)


def write_quarantine(storage: Storage, prefix: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Write quarantined rows, if any; the ``outputs`` entry of a manifest.

    Args:
        rows: ``id``, ``error_class`` and ``message`` of each row.
    """
    if not rows:
        return {}
    return {"quarantine": write(storage, prefix, pa.Table.from_pylist(rows, QUARANTINE))}
