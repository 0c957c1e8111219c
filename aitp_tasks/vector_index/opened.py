"""An index, open to search in."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records.indexed import STAGES
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.library import INDEX_FILE, LISTS_FILE, Index, Values
from aitp_tasks.vector_index.places import Places
from aitp_tasks.vector_index.ranged import RangedIndex


class OpenIndex:
    """The index of a run's corpus or SFT set, and its places; use it as a context.

    A flat index is held in memory. One of inverted lists is copied to a temporary
    folder and read from there, list by list, as it is searched; for few queries its
    lists stay in storage, and each query reads its own.
    """

    def __init__(
        self, storage: Storage, keys: Mapping[str, str], role: str, *, few_queries: bool = False
    ) -> None:
        """Open the objects that ``records.indexed.keys`` names.

        Raises:
            InputError: one is missing or cut short, or they do not belong together.
        """
        key = keys[f"{role}_places"]
        self._with_remedy = partial(with_remedy, storage, key, STAGES[role])
        with ExitStack() as stack, self._with_remedy():
            self._places = Places(storage, key)
            lists = self._lists = keys.get(f"{role}_lists")
            index = keys[f"{role}_index"]
            self._index: Index | RangedIndex
            if lists is not None and few_queries:
                self._index = RangedIndex(storage, index, lists)
            else:
                self._index = _read(storage, index, lists, stack)
            if self._index.ntotal != self._places.rows:
                raise InputError(
                    f"{storage.uri(key)} has {self._places.rows} places for {self._index.ntotal} vectors"
                )
            self._stack = stack.pop_all()

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self._index.d)

    @property
    def size(self) -> int:
        """How many vectors it has."""
        return int(self._index.ntotal)

    @property
    def exact(self) -> bool:
        """Whether a search compares with all vectors."""
        return not self._lists

    def as_stored(self, values: Values) -> NDArray[np.float32]:
        """Vectors (n, d) as the index holds them; see ``library.as_stored``."""
        if isinstance(self._index, RangedIndex):
            return self._index.as_stored(values)
        return library.as_stored(self._index, values)

    def search(self, values: Values, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines float32 (n, k) and ids int64 (n, k) of the k nearest; see ``library.search``."""
        if isinstance(self._index, RangedIndex):
            return self._index.search(values, k)
        return library.search(self._index, values, k)

    def places(self, ids: NDArray[np.int64]) -> pa.Table:
        """Where m ids lie, in their order: doc_id, source, shard, etag and row."""
        with self._with_remedy():
            return self._places.find(ids)

    def __enter__(self) -> "OpenIndex":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@contextmanager
def with_remedy(storage: Storage, places: str, stage: str) -> Iterator[None]:
    """Adds to an error how what belongs to some places is built anew."""
    try:
        yield
    except InputError as error:
        built = storage.uri(places.rpartition("/")[0])
        raise InputError(
            f"{error}; or delete {built}.json and the run's {stage} manifest, then run `aitp {stage}` again"
        )


def _read(storage: Storage, key: str, lists: str | None, stack: ExitStack) -> Index:
    if lists is None:
        return library.flat_from_bytes(storage.read(key), storage.uri(key))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aitp-index-")))
    storage.download(key, folder / INDEX_FILE)
    storage.download(lists, folder / LISTS_FILE)
    return library.read_folder(folder, storage.uri(key))


@contextmanager
def open_places(storage: Storage, keys: Mapping[str, str], role: str) -> Iterator[Places]:
    """The places alone of an index.

    Raises:
        InputError: they are missing or cut short.
    """
    key = keys[f"{role}_places"]
    with with_remedy(storage, key, STAGES[role]):
        yield Places(storage, key)
