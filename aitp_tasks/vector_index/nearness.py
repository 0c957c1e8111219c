"""How near a shard's documents are to the SFT set: the mean over their nearest SFT examples.

Cosines of whole vectors, not of coordinates: what the projection takes away counts
here. Made in the density units, shard by shard, and kept under the SFT index that it
was made with, for any run with the same SFT side.
"""

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.records.vectors import Values
from aitp_tasks.vector_index.opened import OpenIndex

#: Name of the column; what is compared with tau.
COLUMN = "similarity"
#: Of a document near which the index finds nothing.
_FARTHEST = -1.0


def mean_cosines(index: OpenIndex, k: int, values: Values) -> NDArray[np.float64]:
    """Means float64 (n,) of the cosines of vectors float16 (n, d) to their k nearest in an index."""
    return means(*index.search(values, k))


def means(similarities: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means float64 (n,) over those of k (n, k) that were found."""
    found = ids >= 0
    sums = np.where(found, similarities, 0).sum(axis=1, dtype=np.float64)
    counts = found.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), _FARTHEST)
