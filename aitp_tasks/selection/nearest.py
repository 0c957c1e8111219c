"""The SFT examples nearest to each drawn document, from its vector in full dimension.

Reads the chunks of vectors that hold drawn rows, a few at a time, and no others.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, vectors
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.selection.tally import COSINES, Spread
from aitp_tasks.selection.texts import by_shard
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index.opened import OpenIndex

#: Examples of each document.
EXAMPLES = 5
IDS, SIMILARITIES = "sft_doc_ids", "sft_similarities"


@dataclass(frozen=True)
class _Wanted:
    """Rows that are wanted of a chunk, int64 (n,), rising, and their positions in the table."""

    key: str
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]


class Nearest:
    """The nearest SFT examples of the documents of a table, by their position in it."""

    def __init__(
        self, storage: Storage, index: OpenIndex | None, shards: Iterable[Manifest], drawn: pa.Table
    ) -> None:
        """Search for those of all documents.

        Args:
            storage: where everything lies.
            index: of the SFT set; may be missing where no document was drawn.
            shards: embed manifests of the corpus.
            drawn: a table with ``doc_id``, ``shard``, ``etag`` and ``row``.

        Raises:
            InputError: a drawn row has no vector, or the SFT set's index is damaged.
        """
        self._storage = storage
        self._documents = drawn["doc_id"]
        self._ids = np.full((len(drawn), EXAMPLES), -1, np.int64)
        self._cosines = np.full((len(drawn), EXAMPLES), -np.inf, np.float32)
        self._known, self._names = np.empty(0, np.int64), pa.array([], pa.string())
        if index is not None:
            self._search(index, list(_chunks(shards, drawn)))
            self._known = np.unique(self._ids[self._ids >= 0])
            self._names = index.places(self._known)["doc_id"].combine_chunks()

    def take(self, positions: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Columns of some rows of the table, lists that begin with the nearest example."""
        ids, cosines = self._ids[positions], self._cosines[positions]
        found = ids >= 0
        ends = pa.array(np.append(0, found.sum(axis=1).cumsum()), pa.int32())
        names = self._names.take(pa.array(np.searchsorted(self._known, ids[found])))
        return {
            IDS: pa.ListArray.from_arrays(ends, names),
            SIMILARITIES: pa.ListArray.from_arrays(ends, pa.array(cosines[found], pa.float32())),
        }

    def figures(self) -> dict[str, Any]:
        """How near the nearest example is; the document nearest to its one, and the farthest."""
        cosines = self._cosines[:, 0]
        if not len(cosines):
            return {}
        spread = Spread(COSINES)
        spread.add(cosines[self._ids[:, 0] >= 0].astype(np.float64))
        # Of equally near ones, the first: the table is in the order of ids.
        return {
            "similarity": spread.figures(),
            "nearest": self._told(int(cosines.argmax())),
            "farthest": self._told(int(cosines.argmin())),
        }

    def _told(self, position: int) -> dict[str, Any]:
        columns = self.take(np.array([position]))
        examples, cosines = (columns[name][0].as_py() for name in (IDS, SIMILARITIES))
        return {
            "doc_id": self._documents[position].as_py(),
            "sft_doc_id": examples[0] if examples else None,
            "similarity": round(cosines[0], 4) if cosines else None,
        }

    def _search(self, index: OpenIndex, chunks: Sequence[_Wanted]) -> None:
        at_once = self._storage.concurrency
        with ThreadPoolExecutor(at_once) as pool:
            for start in range(0, len(chunks), at_once):
                some = chunks[start : start + at_once]
                positions = np.concatenate([wanted.positions for wanted in some])
                values = np.concatenate(list(pool.map(self._vectors, some)))
                cosines, ids = index.search(values, EXAMPLES)
                self._ids[positions, : ids.shape[1]] = ids
                self._cosines[positions, : ids.shape[1]] = cosines

    def _vectors(self, wanted: _Wanted) -> NDArray[np.float16]:
        """The vectors of the wanted rows of a chunk."""
        found = vectors.read(self._storage, wanted.key)
        places = np.searchsorted(found.rows, wanted.rows).clip(max=len(found) - 1)
        missing = found.rows[places] != wanted.rows
        if missing.any():
            raise InputError(
                f"{self._storage.uri(wanted.key)} has no vector of row {int(wanted.rows[missing][0])}: "
                "delete it and embed anew"
            )
        values: NDArray[np.float16] = found.values[places]
        return values


def _chunks(shards: Iterable[Manifest], drawn: pa.Table) -> Iterator[_Wanted]:
    """The chunks that hold drawn rows."""
    wanted = by_shard(drawn)
    for shard in shards:
        found = wanted.get((str(shard.figures["shard"]), str(shard.figures["etag"])), {})
        rows, positions = np.array(sorted(found.items()), np.int64).reshape(-1, 2).T
        for key in embedded.chunk_keys(shard) if found else []:
            span = embedded.chunk_rows(key)
            first, last = np.searchsorted(rows, [span.start, span.stop])
            if first < last:
                yield _Wanted(key, rows[first:last], positions[first:last])
