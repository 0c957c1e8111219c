"""How near a shard's documents are to the SFT set: the mean over their nearest SFT examples.

Cosines of whole vectors, not of coordinates: what the projection takes away counts
here. Made in the density units, shard by shard, and kept under the SFT index that it
was made with, for any run with the same SFT side.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.records.vectors import Vectors
from aitp_tasks.vector_index.opened import OpenIndex

#: Name of the column; what is compared with tau.
COLUMN = "similarity"
#: Of a document near which the index finds nothing.
_FARTHEST = -1.0


class Nearness:
    """Collects the mean cosine of a shard's documents to their k nearest in an index."""

    def __init__(self, index: OpenIndex, k: int) -> None:
        self._index = index
        self._k = k
        self._ids: list[str] = []
        self._rows = [np.empty(0, np.int64)]
        self._means = [np.empty(0, np.float64)]

    def add(self, found: Vectors) -> None:
        """Take in the next vectors."""
        if not len(found):
            return
        self._ids += found.doc_ids
        self._rows.append(found.rows)
        self._means.append(means(*self._index.search(found.values, self._k)))

    def finish(self) -> pa.Table:
        """doc_id, row and similarity, in the order of ids and rows."""
        table = pa.table(
            {
                "doc_id": pa.array(self._ids, pa.string()),
                "row": pa.array(np.concatenate(self._rows), pa.int64()),
                COLUMN: pa.array(np.concatenate(self._means), pa.float64()),
            }
        )
        return table.sort_by([("doc_id", "ascending"), ("row", "ascending")])


def means(similarities: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means float64 (n,) over those of k (n, k) that were found."""
    found = ids >= 0
    sums = np.where(found, similarities, 0).sum(axis=1, dtype=np.float64)
    counts = found.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), _FARTHEST)
