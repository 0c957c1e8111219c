"""The one door to FAISS: exact and inverted-list indexes with explicit ids, on processors.

Similarity is the cosine: vectors are brought to length 1 on their way into an
index and before a search. A flat index holds float16 and compares with all of
them; an inverted-list index holds 8 bits a dimension in lists around centroids,
lies in a file beside it, and looks into the lists nearest to a query. What is
wrong with a file is said here, what to do about it by whoever has asked for it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest

#: Names of an inverted-list index's two files; the first holds the name of the second.
INDEX_FILE, LISTS_FILE = "index.faiss", "lists.ivfdata"
#: An index looks into one list of so many, and into so many at least.
_LISTS_PER_PROBE = 32
_LEAST_PROBES = 32
#: Share of a dimension's range that codes also cover at either end.
_RANGE_MARGIN = 0.1
#: Vectors that are made float32 at a time.
_ADDED = 1 << 14
_METRIC = faiss.METRIC_INNER_PRODUCT
#: Of an id in the lists.
ID_BYTES = 8

Index = Any  # FAISS's own types lack most of its attributes
Values = NDArray[np.float16] | NDArray[np.float32]


def unit(values: Values) -> NDArray[np.float32]:
    """Vectors (n, d) of length 1, float32; one of length 0 stays as it is."""
    exact = values.astype(np.float32)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = exact / np.where(lengths > 0, lengths, np.float32(1))
    return scaled


def flat(values: NDArray[np.float16], ids: NDArray[np.int64]) -> Index:
    """An exact index of float16 (n, d) under int64 (n,) ids."""
    codes = faiss.IndexScalarQuantizer(values.shape[1], faiss.ScalarQuantizer.QT_fp16, _METRIC)
    index = faiss.IndexIDMap2(codes)
    for start in range(0, len(ids), _ADDED):
        index.add_with_ids(unit(values[start : start + _ADDED]), ids[start : start + _ADDED])
    return index


def empty(dimension: int) -> Index:
    """An exact index of float32 vectors that are numbered as they are added, each of length 1."""
    return faiss.IndexFlat(dimension, _METRIC)


def to_bytes(index: Index) -> bytes:
    """In FAISS's own format."""
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def flat_from_bytes(data: bytes, where: str) -> Index:
    """A flat index back from FAISS's format, ids checked.

    Raises:
        InputError: not a flat index of ours, cut short, or with ids that repeat; names ``where``.
    """
    index = _deserialised(data, where)
    if not isinstance(index, faiss.IndexIDMap2):
        raise InputError(f"{where} is a {type(index).__name__}, not an index with explicit ids")
    ids = faiss.vector_to_array(index.id_map)
    if len(ids) != index.ntotal or len(np.unique(ids)) != len(ids):
        raise InputError(f"{where} has {index.ntotal} vectors and {len(np.unique(ids))} ids")
    return index


def read_folder(folder: Path, where: str) -> Index:
    """An inverted-list index from its two files in ``folder``; the lists stay on disk.

    Raises:
        InputError: one of the files is cut short, or it is another index; names ``where``.
    """
    flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY
    try:
        index: Index = faiss.read_index(str(folder / INDEX_FILE), flags)
    except RuntimeError as error:
        raise _broken(where, error) from None
    _require_inverted_lists(index, where)
    size = (folder / LISTS_FILE).stat().st_size
    # Beyond the end of a mapped file, a read would end the process.
    lists: Any = faiss.downcast_InvertedLists(index.invlists)
    if lists.totsize != size or lists.compute_ntotal() != index.ntotal:
        raise InputError(f"{where} has {size} of {lists.totsize} bytes of lists")
    index.nprobe = _probes(index)
    return index


def search(index: Index, values: Values, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k nearest of each of n vectors (n, d).

    Returns:
        Cosines float32 (n, k), falling, and ids int64 (n, k). An index of fewer than
        k vectors gives fewer columns; where fewer are found, ids are -1 and cosines -inf.

    Raises:
        InputError: the vectors are of another dimension than the index.
    """
    _require_dimension(values, index.d)
    if not index.ntotal:
        return np.empty((len(values), 0), np.float32), np.empty((len(values), 0), np.int64)
    similarities, ids = index.search(unit(values), min(k, index.ntotal))
    return _cosines(similarities, ids), ids


def as_stored(index: Index, values: Values) -> NDArray[np.float32]:
    """Vectors (n, d) as an index holds them: of length 1, and rounded as its kind rounds."""
    exact = unit(values)
    if not isinstance(index, faiss.IndexIVFScalarQuantizer):
        return exact.astype(np.float16).astype(np.float32)
    rounded: NDArray[np.float32] = index.sq.decode(index.sq.compute_codes(exact))
    return rounded


class Head:
    """An inverted-list index without its lists: where each lies, and how one is searched.

    Attributes:
        d: components of a vector.
        ntotal: how many vectors the lists hold.
        size: bytes of all lists.
        sizes: int64 (lists,), how many vectors each list has.
        starts: int64 (lists,), where in the file each begins.
        code_size: bytes of a code.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Read what ``Quantiser.write_index`` has written into ``INDEX_FILE``.

        Raises:
            InputError: cut short, or another index; names ``where``.
        """
        index = _deserialised(data, where, faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
        _require_inverted_lists(index, where)
        lists: Any = faiss.downcast_InvertedLists(index.invlists)
        self._index = index
        self.d, self.ntotal, self.code_size = int(index.d), int(index.ntotal), int(index.code_size)
        self.size = int(lists.totsize)
        described: Any = lists.lists
        entries = [described.at(number) for number in range(index.nlist)]
        self.sizes = np.array([entry.size for entry in entries], np.int64)
        self.starts = np.array([entry.offset for entry in entries], np.int64)
        if self.sizes.sum() != self.ntotal or self.size != self.ntotal * (self.code_size + ID_BYTES):
            raise InputError(f"{where} has {self.size} bytes of lists for {self.ntotal} vectors")

    def search(
        self, vector: NDArray[np.float32], k: int, read: Callable[[list[int]], Iterator[bytes]]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest of one vector of length 1, float32 (1, d), as ``search`` finds them to the last bit.

        ``read`` gives the bytes of some lists, in their order; each is looked at and let go.

        Returns:
            Cosines float32 (1, k) and ids int64 (1, k).
        """
        nearness, probed = self._index.quantizer.search(vector, min(_probes(self._index), len(self.sizes)))
        wanted = [
            (number, float(near))
            for number, near in zip(probed[0].tolist(), nearness[0].tolist(), strict=True)
            if number >= 0 and self.sizes[number]
        ]
        similarities, ids = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
        best = faiss.float_minheap_array_t()
        best.nh, best.k, best.val, best.ids = 1, k, faiss.swig_ptr(similarities), faiss.swig_ptr(ids)
        best.heapify()
        # What an IndexIVF does with a query. FAISS gets bare pointers, so the arrays must have names.
        scanner = self._index.get_InvertedListScanner(False, None, None)
        scanner.set_query(faiss.swig_ptr(vector))
        for (number, near), data in zip(wanted, read([number for number, _ in wanted]), strict=True):
            count = int(self.sizes[number])
            codes = np.frombuffer(data, np.uint8, count * self.code_size)
            named = np.frombuffer(data, np.int64, count, codes.nbytes)
            scanner.set_list(number, near)
            pointers = [faiss.swig_ptr(array) for array in (codes, named, similarities, ids)]
            scanner.scan_codes(count, *pointers, k)
        best.reorder()
        return _cosines(similarities, ids), ids

    def as_stored(self, values: Values) -> NDArray[np.float32]:
        """Vectors (n, d) as the lists hold them; see ``as_stored``."""
        return as_stored(self._index, values)

    def require_dimension(self, values: Values) -> None:
        """Make sure that vectors (n, d) are of the index's dimension.

        Raises:
            InputError: they are not.
        """
        _require_dimension(values, self.d)


class Quantiser:
    """Which list a vector belongs to, and its code of 8 bits a dimension.

    Attributes:
        digest: identity.
        lists: how many there are.
        code_size: bytes of a code.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Read one that ``trained`` has made.

        Raises:
            InputError: cut short, another index, or one that is not empty; names ``where``.
        """
        self._index = _deserialised(data, where)
        _require_inverted_lists(self._index, where)
        if self._index.ntotal or not self._index.is_trained:
            raise InputError(f"{where} is no trained, empty index")
        self.digest = digest.of_bytes(data)
        self.dimension = int(self._index.d)
        self.lists = int(self._index.nlist)
        self.code_size = int(self._index.code_size)

    @classmethod
    def trained(cls, sample: NDArray[np.float16], lists: int) -> bytes:
        """A quantiser of so many lists in FAISS's format, from a sample float16 (n, d)."""
        dimension = sample.shape[1]
        centroids = faiss.IndexFlat(dimension, _METRIC)
        index: Index = faiss.IndexIVFScalarQuantizer(
            centroids, dimension, lists, faiss.ScalarQuantizer.QT_8bit, _METRIC
        )
        index.by_residual = False
        # Later vectors may lie a little beyond the sample's range in a dimension.
        index.sq.rangestat_arg = _RANGE_MARGIN
        index.train(unit(sample))
        return to_bytes(index)

    def encode(self, values: NDArray[np.float16]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Lists int32 (n,) and codes uint8 (n, code_size) of vectors float16 (n, d).

        Raises:
            InputError: the vectors are of another dimension.
        """
        if values.shape[1] != self.dimension:
            raise InputError(
                f"vectors of dimension {values.shape[1]} do not fit a quantiser of {self.dimension}: "
                "it belongs to another encoder"
            )
        exact = unit(values)
        _, lists = self._index.quantizer.search(exact, 1)
        return lists[:, 0].astype(np.int32), self._index.sq.compute_codes(exact)

    def write_index(self, folder: Path, sizes: NDArray[np.int64]) -> None:
        """Write the index over the lists that lie in ``folder``, one after the other.

        Of each list, ``LISTS_FILE`` holds first the codes and then the ids, int64.

        Args:
            folder: where both files lie.
            sizes: int64 (lists,), how many vectors each list has.
        """
        # A bare name: whoever reads the index has both files in one folder.
        lists: Any = faiss.OnDiskInvertedLists(self.lists, self.code_size, LISTS_FILE)
        # FAISS gets a bare pointer, so the array must have a name.
        counts = sizes.astype(np.uint64)
        lists.set_all_lists_sizes(faiss.swig_ptr(counts))
        lists.totsize = int(sizes.sum()) * (self.code_size + ID_BYTES)
        index: Index = faiss.clone_index(self._index)
        index.replace_invlists(lists, True)
        lists.this.disown()
        index.ntotal = int(sizes.sum())
        faiss.write_index(index, str(folder / INDEX_FILE))


def _probes(index: Index) -> int:
    """How many lists a search looks into."""
    return max(int(index.nlist) // _LISTS_PER_PROBE, _LEAST_PROBES)


def _cosines(similarities: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Products as cosines; -inf where nothing was found."""
    found: NDArray[np.float32] = np.where(ids < 0, -np.inf, similarities.clip(-1, 1)).astype(np.float32)
    return found


def _require_dimension(values: Values, dimension: int) -> None:
    if values.shape[1] != dimension:
        raise InputError(
            f"vectors of dimension {values.shape[1]} do not fit an index of {dimension}: "
            "it belongs to another encoder"
        )


def _deserialised(data: bytes, where: str, flags: int = 0) -> Index:
    try:
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8), flags)
    except RuntimeError as error:
        raise _broken(where, error) from None


def _broken(where: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{where} is not a whole FAISS index ({reason})")


def _require_inverted_lists(index: Index, where: str) -> None:
    if not isinstance(index, faiss.IndexIVFScalarQuantizer):
        raise InputError(f"{where} is a {type(index).__name__}, not one of inverted lists")
