"""The rows of a version, as its own files hold them: some columns of all, or a few rows whole.

Read by ranges, a row group at a time: what is held does not grow with the texts.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aitp_tasks.errors import InputError
from aitp_tasks.records import conversations, data_files, versions
from aitp_tasks.storage import Storage


def columns(storage: Storage, line: str, version: str, names: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of all rows, a row group at a time; those that a release did not write are not there.

    Raises:
        InputError: a file of the version is missing or damaged.
    """
    for key in _keys(storage, line, version):
        with _opened(storage, key) as file:
            there = [name for name in names if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, there)


def pair_ids(storage: Storage, line: str, version: str) -> Iterator[str]:
    """Ids of the version's pairs, in the order of its rows."""
    for table in columns(storage, line, version, ["pair_id"]):
        yield from table["pair_id"].drop_null().to_pylist()


def starting_with(storage: Storage, line: str, version: str, beginning: str) -> list[str]:
    """Ids of the version's pairs that begin so, in their order."""
    found = []
    for table in columns(storage, line, version, ["pair_id"]):
        ids = table["pair_id"]
        found += ids.filter(pc.fill_null(pc.starts_with(ids, beginning), False)).to_pylist()
    return sorted(found)


def rows(storage: Storage, line: str, version: str, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rows of some pairs by their ids, ``messages`` and ``tools`` as they were given.

    Raises:
        InputError: a file of the version is missing or damaged.
    """
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for key in _keys(storage, line, version) if ids else []:
        with _opened(storage, key) as file:
            for group in range(file.num_row_groups):
                chosen = pc.is_in(file.read_row_group(group, ["pair_id"])["pair_id"], wanted)
                # Texts are read of row groups alone that hold one of the pairs.
                if pc.any(chosen).as_py():
                    table = file.read_row_group(group).filter(chosen)
                    found |= {row["pair_id"]: _as_given(row) for row in table.to_pylist()}
    return found


def _as_given(row: dict[str, Any]) -> dict[str, Any]:
    messages, tools = conversations.read(row["messages"], row.get(conversations.TOOLS))
    return {**row, "messages": messages, conversations.TOOLS: tools}


def _keys(storage: Storage, line: str, version: str) -> list[str]:
    return list(data_files.standing(storage, versions.prefix(line, version)).values())


@contextmanager
def _opened(storage: Storage, key: str) -> Iterator[pq.ParquetFile]:
    try:
        source = pa.PythonFile(storage.open(storage.stat(key)), mode="r")
        with pq.ParquetFile(source, pre_buffer=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        # An error number is the machine's.
        if getattr(error, "errno", None) is not None:
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{storage.uri(key)} is damaged ({reason}): restore it, or look at another version"
        ) from None
