"""The texts of sampled documents, many shards at a time, on local disk."""

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import parts, shards
from aitp_tasks.records import digest, kept
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.storage import Storage

#: Each holds a batch of rows.
_SHARDS_AT_A_TIME = 8


def by_shard(table: pa.Table) -> dict[tuple[str, str], dict[int, int]]:
    """Position in a table of each of its rows: by shard and etag, then by the row's number."""
    found: dict[tuple[str, str], dict[int, int]] = {}
    places = zip(*(table[name].to_pylist() for name in ("shard", "etag", "row")), strict=True)
    for position, (shard, etag, row) in enumerate(places):
        found.setdefault((shard, etag), {})[row] = position
    return found


class Texts:
    """Texts of the rows of a table with ``shard``, ``etag`` and ``row``; a temporary file holds them.

    What embed has kept is read first; of the rest, the text columns of the row groups that hold it.
    """

    def __init__(
        self,
        storage: Storage,
        text_columns: Sequence[str],
        table: pa.Table,
        embeddings: Iterable[Manifest] = (),
    ) -> None:
        """Read them all.

        Args:
            storage: where everything lies.
            text_columns: paths whose texts are joined.
            table: with ``shard``, ``etag`` and ``row``; where it has ``doc_id``, texts are compared with it.
            embeddings: embed manifests of the corpus, for the texts that were kept.

        Raises:
            InputError: a shard is missing, damaged or replaced since it was embedded, or a row has no text.
        """
        self._storage = storage
        self._text_columns = text_columns
        self._stack = ExitStack()
        file = tempfile.TemporaryFile(prefix="aitp-texts-")  # noqa: SIM115 (closed by the stack)
        self._file = self._stack.enter_context(file)
        self._lock = Lock()
        self._doc_ids = table["doc_id"] if "doc_id" in table.column_names else None
        self._starts = np.zeros(len(table), np.int64)
        self._sizes = np.zeros(len(table), np.int64)
        with ExitStack() as stack:
            stack.enter_context(self._stack)
            self._read(by_shard(table), embeddings)
            stack.pop_all()

    def take(self, positions: NDArray[np.int64]) -> pa.Array:
        """Texts of some rows of the table."""
        return pa.array([self._get(int(position)) for position in positions], pa.large_string())

    def __enter__(self) -> "Texts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _read(self, wanted: dict[tuple[str, str], dict[int, int]], embeddings: Iterable[Manifest]) -> None:
        """Read the texts of all shards; of several errors, that of the first shard is raised."""
        made = {(str(made.figures["shard"]), str(made.figures["etag"])): made for made in embeddings}
        with ThreadPoolExecutor(min(self._storage.concurrency, _SHARDS_AT_A_TIME)) as readers:
            try:
                order = sorted(wanted)
                for _ in readers.map(self._read_shard, order, map(wanted.get, order), map(made.get, order)):
                    pass
            except BaseException:
                readers.shutdown(wait=False, cancel_futures=True)
                raise

    def _read_shard(
        self, version: tuple[str, str], positions: dict[int, int], embedding: Manifest | None
    ) -> None:
        shard, etag = version
        info = parts.find(self._storage, shard)
        if info is None:
            raise InputError(
                f"{self._storage.uri(shard)} is not there any more, though it was embedded: upload it again, "
                "then clear this task; or start a new run, which does without it"
            )
        if info.etag != etag:
            raise InputError(
                f"{self._storage.uri(shard)} changed after it was embedded: start a new run, which reuses "
                "all that is unchanged"
            )
        known = kept.read(self._storage, embedding) if embedding is not None else {}
        missing = []
        for row, position in positions.items():
            if row in known and self._is_of(position, known[row]):
                self._put(position, known[row].encode())
            else:
                missing.append(row)
        if not missing:
            return
        for row, text in shards.Corpus(self._storage, info, self._text_columns).pick(missing):
            if not self._is_of(positions[row], text):
                raise InputError(
                    f"row {row} of {self._storage.uri(shard)} is damaged: it has another text than when it "
                    "was embedded: replace the shard, then start a new run"
                )
            self._put(positions[row], text.encode())

    def _is_of(self, position: int, text: str) -> bool:
        """Whether a text is the one whose digest is the document's id, where the table has ids."""
        return self._doc_ids is None or self._doc_ids[position].as_py() == digest.of_text(text)

    def _put(self, position: int, text: bytes) -> None:
        with self._lock:
            self._starts[position], self._sizes[position] = self._file.tell(), len(text)
            self._file.write(text)

    def _get(self, position: int) -> str:
        self._file.seek(int(self._starts[position]))
        return self._file.read(int(self._sizes[position])).decode()
