"""Encoded vectors in the order of their lists, and the merge of any number of them on disk.

A shard's vectors are encoded once, by the shard's own unit, into a small object
without centroids: of 16,384 lists those alone are larger than the codes of most
shards. The merge sorts runs of bounded size into temporary files and joins them list
by list, in the order of ids: whatever the shards and their order, the bytes are
the same, and neither memory nor the number of open files grows with the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aitp_tasks.errors import InputError
from aitp_tasks.records import vectors
from aitp_tasks.records.vectors import Vectors
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index.library import Quantiser

#: Bytes that are sorted in memory before they go to a temporary file, and that are joined at a time.
_RUN_BYTES = 64 * 2**20
_JOINED_BYTES = 16 * 2**20
#: Records that are gathered at a time to be written.
_WRITTEN = 1 << 13


@dataclass(frozen=True)
class Encoded:
    """Vectors of distinct ids, in the order of list and id.

    Attributes:
        lists: int32 (n,).
        ids: int64 (n,).
        codes: uint8 (n, code size).
        quantiser: digest of what has encoded them.
    """

    lists: NDArray[np.int32]
    ids: NDArray[np.int64]
    codes: NDArray[np.uint8]
    quantiser: str

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, kept: NDArray[np.bool_]) -> "Encoded":
        """Some of them."""
        return Encoded(self.lists[kept], self.ids[kept], self.codes[kept], self.quantiser)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        quantiser = np.frombuffer(bytes.fromhex(self.quantiser), np.uint8)
        data: bytes = save(
            {"lists": self.lists, "ids": self.ids, "codes": self.codes, "quantiser": quantiser}
        )
        return data

    @classmethod
    def read(cls, storage: Storage, key: str, quantiser: Quantiser) -> Self:
        """Back from safetensors, if this quantiser has made it.

        Raises:
            InputError: it was deleted, is damaged, or is another quantiser's.
        """
        try:
            return cls._checked(storage.read(key), quantiser, storage.uri(key))
        except InputError as error:
            raise InputError(
                f"{error}; or delete it and the run's density manifests, then run `aitp density` again"
            ) from None

    @classmethod
    def _checked(cls, data: bytes, quantiser: Quantiser, where: str) -> Self:
        try:
            arrays = load(data)
            found = cls(arrays["lists"], arrays["ids"], arrays["codes"], arrays["quantiser"].tobytes().hex())
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{where} does not hold encoded vectors ({error})") from None
        if found.quantiser != quantiser.digest or found.codes.shape[1:] != (quantiser.code_size,):
            raise InputError(
                f"{where} was encoded by quantiser {found.quantiser} into {found.codes.shape[-1]} bytes, "
                f"the index is of {quantiser.digest} and {quantiser.code_size}"
            )
        if not (len(found.lists) == len(found.ids) == len(found.codes) == len(np.unique(found.ids))):
            raise InputError(f"{where} holds an id twice, or lacks some")
        return found


class Encoder:
    """Encodes the vectors of one shard, chunk by chunk."""

    def __init__(self, quantiser: Quantiser) -> None:
        self._quantiser = quantiser
        self._documents = [np.empty((0, 2), np.uint64)]
        self._rows = [np.empty(0, np.int64)]
        self._ids = [np.empty(0, np.int64)]
        self._lists = [np.empty(0, np.int32)]
        self._codes = [np.empty((0, quantiser.code_size), np.uint8)]

    def add(self, found: Vectors) -> None:
        """Take in the next vectors.

        Raises:
            InputError: they are of another dimension.
        """
        if not len(found):
            return
        lists, codes = self._quantiser.encode(found.values)
        self._documents.append(vectors.halves(found.doc_ids))
        self._rows.append(found.rows)
        self._ids.append(vectors.faiss_ids(found.doc_ids))
        self._lists.append(lists)
        self._codes.append(codes)

    def finish(self) -> Encoded:
        """All of them; of equal ids, the document and row that come first."""
        ids, documents = np.concatenate(self._ids), np.concatenate(self._documents)
        order = np.lexsort((np.concatenate(self._rows), documents[:, 1], documents[:, 0], ids))
        kept = order[first_of_each(ids[order])]
        lists = np.concatenate(self._lists)
        # They are in the order of ids; a stable sort leaves them so within a list.
        kept = kept[np.argsort(lists[kept], kind="stable")]
        return Encoded(lists[kept], ids[kept], np.concatenate(self._codes)[kept], self._quantiser.digest)


class Merge:
    """Joins encoded vectors of any number of shards into one file of lists."""

    def __init__(self, quantiser: Quantiser, folder: Path) -> None:
        """``folder`` takes the temporary files; of the corpus's size in all."""
        self._record = np.dtype(
            [("list", np.int32), ("id", np.int64), ("code", np.uint8, (quantiser.code_size,))]
        )
        self._folder = folder
        self._buffer = np.empty(max(_RUN_BYTES // self._record.itemsize, 1), self._record)
        self._held = 0
        self._runs: list[_Run] = []
        self._sizes = np.zeros(quantiser.lists, np.int64)

    def add(self, found: Encoded) -> None:
        """Take in one shard's vectors; no id may come twice."""
        start = 0
        while start < len(found):
            taken = min(len(self._buffer) - self._held, len(found) - start)
            room, some = self._buffer[self._held : self._held + taken], slice(start, start + taken)
            room["list"], room["id"], room["code"] = found.lists[some], found.ids[some], found.codes[some]
            self._held += taken
            start += taken
            if self._held == len(self._buffer):
                self._spill()

    def write(self, path: Path) -> NDArray[np.int64]:
        """Write all lists, each its codes and then its ids; sizes int64 (lists,)."""
        self._spill()
        with path.open("wb") as file:
            for start, end in self._blocks():
                self._write_block(file, start, end)
        return self._sizes

    def _spill(self) -> None:
        """Write what is held, in order, as one run."""
        records = self._buffer[: self._held]
        order = np.lexsort((records["id"], records["list"]))
        run = _Run(self._folder / f"run-{len(self._runs):06d}", self._record)
        run.write(records, order, len(self._sizes))
        self._runs.append(run)
        self._sizes += np.bincount(records["list"], minlength=len(self._sizes))
        self._held = 0

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Neighbouring lists that are joined at a time: as many as fit, and one at least."""
        room = _JOINED_BYTES // self._record.itemsize
        start = held = 0
        for number, size in enumerate(self._sizes.tolist()):
            if number > start and held + size > room:
                yield start, number
                start, held = number, 0
            held += size
        yield start, len(self._sizes)

    def _write_block(self, file: BinaryIO, start: int, end: int) -> None:
        records = np.concatenate([run.read(start, end) for run in self._runs])
        records = records[np.lexsort((records["id"], records["list"]))]
        bounds = np.searchsorted(records["list"], np.arange(start, end + 1))
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            file.write(records["code"][first:last].tobytes())
            file.write(records["id"][first:last].tobytes())


class _Run:
    """Sorted records in a file, and in another one how many lie before each list."""

    def __init__(self, path: Path, record: np.dtype[np.void]) -> None:
        self._path = path
        self._bounds = path.with_suffix(".bounds")
        self._record = record

    def write(self, records: NDArray[np.void], order: NDArray[np.intp], lists: int) -> None:
        """Write records in a given order, a few at a time."""
        with self._path.open("wb") as file:
            for start in range(0, len(order), _WRITTEN):
                records[order[start : start + _WRITTEN]].tofile(file)
        np.searchsorted(records["list"][order], np.arange(lists + 1)).astype(np.int64).tofile(self._bounds)

    def read(self, start: int, end: int) -> NDArray[np.void]:
        """The records of lists ``start`` to ``end``, without ``end``."""
        bounds = np.fromfile(self._bounds, np.int64, end - start + 1, offset=start * 8)
        first, last = int(bounds[0]), int(bounds[-1])
        found: NDArray[np.void] = np.fromfile(
            self._path, self._record, last - first, offset=first * self._record.itemsize
        )
        return found


def first_of_each(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some ordered numbers differ from the one before; bool (n,)."""
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return first
