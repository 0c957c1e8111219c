"""The texts of sampled documents, from one pass over each of their shards, on local disk."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.inputs import shards
from aitp_tasks.storage import ObjectInfo, Storage


def by_shard(table: pa.Table) -> dict[tuple[str, str], dict[int, int]]:
    """Position in a table of each of its rows: by shard and etag, then by the row's number."""
    found: dict[tuple[str, str], dict[int, int]] = {}
    places = zip(*(table[name].to_pylist() for name in ("shard", "etag", "row")), strict=True)
    for position, (shard, etag, row) in enumerate(places):
        found.setdefault((shard, etag), {})[row] = position
    return found


class Texts:
    """Texts of the rows of a table with ``shard``, ``etag`` and ``row``; a temporary file holds them."""

    def __init__(self, storage: Storage, text_columns: Sequence[str], table: pa.Table) -> None:
        self._stack = ExitStack()
        file = tempfile.TemporaryFile(prefix="aitp-texts-")  # noqa: SIM115 (closed by the stack)
        self._file = self._stack.enter_context(file)
        self._starts = np.zeros(len(table), np.int64)
        self._sizes = np.zeros(len(table), np.int64)
        for (shard, etag), positions in sorted(by_shard(table).items()):
            info = ObjectInfo(shard, storage.stat(shard).size, etag)
            for row, text in shards.Corpus(storage, info, text_columns).pick(positions):
                self._put(positions[row], text.encode())

    def take(self, positions: NDArray[np.int64]) -> pa.Array:
        """Texts of some rows of the table."""
        return pa.array([self._get(int(position)) for position in positions], pa.large_string())

    def __enter__(self) -> "Texts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _put(self, position: int, text: bytes) -> None:
        self._starts[position], self._sizes[position] = self._file.tell(), len(text)
        self._file.write(text)

    def _get(self, position: int) -> str:
        self._file.seek(int(self._starts[position]))
        return self._file.read(int(self._sizes[position])).decode()
