"""Rows that are written some at a time are read as one table, under a name by their content."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aitp_tasks.records import digest, tables
from aitp_tasks.storage import open_storage

SCHEMA = pa.schema([("id", pa.string()), ("texts", pa.list_(pa.string()))])


@pytest.mark.parametrize("count", [0, 1, 4096, 9000])
def test_they_are_read_as_they_were_given(tmp_path: Path, count: int) -> None:
    storage = open_storage(f"file://{tmp_path}")
    rows: list[dict[str, Any]] = [{"id": str(n), "texts": ["日", f"{n}"], "more": n} for n in range(count)]
    key = tables.write_rows(storage, "folder/rows", rows, SCHEMA)
    table = tables.read(storage, key)
    assert table.schema == SCHEMA
    assert table.to_pylist() == [{name: row[name] for name in SCHEMA.names} for row in rows]
    assert key == f"folder/rows-{digest.of_bytes(storage.read(key))}.parquet"
    before = (tmp_path / key).stat().st_mtime_ns
    assert tables.write_rows(storage, "folder/rows", rows, SCHEMA) == key
    assert (tmp_path / key).stat().st_mtime_ns == before
