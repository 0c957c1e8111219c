"""An index of inverted lists whose lists stay in storage: what a single search needs is read.

Reads the centroids whole, some 25 MB of 16,384 lists in 384 dimensions, and of the
lists those that a query looks into, a 32nd. Finds what the whole index does, to
the last bit. Meant for a few queries: each reads its lists anew.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records.prefetched import prefetched
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.library import Head, Values


class RangedIndex:
    """An index of inverted lists, read by range.

    Attributes:
        d: components of a vector.
        ntotal: how many it has.
    """

    def __init__(self, storage: Storage, key: str, lists: str) -> None:
        """Read all but the lists.

        Args:
            storage: where both objects lie.
            key: of the index.
            lists: key of its lists.

        Raises:
            InputError: one is missing or cut short, or they do not belong together.
        """
        self._storage = storage
        self._lists = storage.stat(lists)
        self._head = Head(storage.read(key), storage.uri(key))
        self.d, self.ntotal = self._head.d, self._head.ntotal
        if self._lists.size != self._head.size:
            raise InputError(f"{storage.uri(key)} has {self._lists.size} of {self._head.size} bytes of lists")

    def search(self, values: Values, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines float32 (n, k) and ids int64 (n, k) of the k nearest; see ``library.search``.

        Raises:
            InputError: the vectors are of another dimension than the index.
            ObjectChangedError: the lists were replaced since the index was opened.
        """
        self._head.require_dimension(values)
        k = min(k, self.ntotal)
        cosines, ids = np.empty((len(values), k), np.float32), np.empty((len(values), k), np.int64)
        # Of an empty index k is 0, and nothing is read.
        for row, vector in enumerate(library.unit(values) if k else []):
            cosines[row], ids[row] = self._head.search(vector[None], k, self._read)
        return cosines, ids

    def as_stored(self, values: Values) -> NDArray[np.float32]:
        """Vectors (n, d) as the lists hold them; see ``library.as_stored``."""
        return self._head.as_stored(values)

    def _read(self, numbers: list[int]) -> Iterator[bytes]:
        width = self._head.code_size + library.ID_BYTES

        def read(number: int) -> bytes:
            start, size = int(self._head.starts[number]), int(self._head.sizes[number])
            return self._storage.read_range(self._lists, start, size * width)

        return prefetched(read, numbers, self._storage.concurrency)
