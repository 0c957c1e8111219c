"""Where the documents of an index lie: one Parquet object, in the order of their ids.

Of a text that occurs several times, the first place stays, in the order of
sources, shards and rows; of two documents with the same 63-bit id, the one whose
whole id comes first. Built in bounded memory, by ranges of ids that are spilled to
temporary files; an id is found again by one row group.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records import vectors
from aitp_tasks.records.prefetched import prefetched
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index.lists import first_of_each

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),
        ("etag", pa.string()),
        ("row", pa.int64()),
    ]
)
#: Rows of a row group: what is read to find one id.
_GROUP_ROWS = 1 << 16
#: Row groups that are read ahead.
_READ_AHEAD = 4
#: Rows that are sorted in memory at a time, about 100 bytes each.
_SORTED_ROWS = 1 << 20
#: Temporary files that are written at the same time.
_MOST_BUCKETS = 512
_HEX = 16
_RECORD = np.dtype(
    [("id", np.int64), ("high", np.uint64), ("low", np.uint64), ("shard", np.int32), ("row", np.int64)]
)

Records = NDArray[np.void]
#: Source, shard and etag.
Facts = tuple[str, str, str]


@dataclass(frozen=True)
class Owners:
    """Which shard gives the vector of each id.

    Attributes:
        ids: int64 (n,), rising.
        shards: int32 (n,), numbers of shards.
        rows: int64 (n,), row numbers.
    """

    ids: NDArray[np.int64]
    shards: NDArray[np.int32]
    rows: NDArray[np.int64]

    def owned(
        self, shard: int, ids: NDArray[np.int64], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.bool_]:
        """Which of some ids, int64 (m,), a shard gives, and where rows are named, by that row; bool (m,).

        Raises:
            InputError: one of them has no place at all.
        """
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        missing = self.ids[places] != ids
        if missing.any():
            raise InputError(
                f"{int(missing.sum())} of {len(ids)} vectors are of documents that no place is known of, "
                f"the first of id {int(ids[missing][0])}: embed anew"
            )
        found: NDArray[np.bool_] = self.shards[places] == shard
        return found if rows is None else found & (self.rows[places] == rows)


@dataclass(frozen=True)
class Counts:
    """What the rows of a set are.

    Attributes:
        rows: all of them.
        documents: places written.
        repeated: rows whose document lies elsewhere too, and has its place there.
        collisions: documents left out because another one has their id.
        collided_rows: the rows of those.
    """

    rows: int = 0
    documents: int = 0
    repeated: int = 0
    collisions: int = 0
    collided_rows: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


class Builder:
    """Takes in the documents of all shards, then writes their places."""

    def __init__(self, folder: Path, shards: Sequence[Facts], rows: int) -> None:
        """``folder`` takes temporary files; ``rows`` are expected in all."""
        self._folder = folder
        self._shards = shards
        self._order = {facts: number for number, facts in enumerate(sorted(shards))}
        self._buckets = min(max(-(-rows // _SORTED_ROWS), 1), _MOST_BUCKETS)
        self.counts = Counts()

    def number(self, facts: Facts) -> int:
        """A shard's number: its place in the order of sources and shards."""
        return self._order[facts]

    def add(self, facts: Facts, doc_ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Take in documents of one shard and their row numbers, int64 (n,)."""
        halves = vectors.halves(doc_ids)
        records = np.empty(len(rows), _RECORD)
        records["id"] = vectors.faiss_ids(doc_ids)
        records["high"], records["low"] = halves[:, 0], halves[:, 1]
        records["shard"] = self.number(facts)
        records["row"] = rows
        buckets = (records["id"] >> 31) * self._buckets >> 32
        for bucket in np.unique(buckets).tolist():
            with self._bucket(bucket).open("ab") as file:
                records[buckets == bucket].tofile(file)

    def write(self, path: Path) -> Owners:
        """Write all places, and count them."""
        columns = ("id", "shard", "row")
        with ExitStack() as stack:
            writer = stack.enter_context(pq.ParquetWriter(path, SCHEMA, compression="zstd"))
            files = [stack.enter_context(self._owners(name).open("wb")) for name in columns]
            for bucket in range(self._buckets):
                kept = self._first_places(bucket)
                for name, file in zip(columns, files, strict=True):
                    kept[name].tofile(file)
                for start in range(0, len(kept), _GROUP_ROWS):
                    writer.write_table(self._table(kept[start : start + _GROUP_ROWS]))
        return Owners(*(np.memmap(self._owners(name), _RECORD[name], mode="r") for name in columns))

    def _owners(self, column: str) -> Path:
        return self._folder / f"owners-{column}"

    def _bucket(self, bucket: int) -> Path:
        return self._folder / f"places-{bucket:04d}"

    def _first_places(self, bucket: int) -> Records:
        """The records that stay of one range of ids, in the order of ids."""
        path = self._bucket(bucket)
        records = np.fromfile(path, _RECORD) if path.exists() else np.empty(0, _RECORD)
        records = records[np.lexsort([records[name] for name in ("row", "shard", "low", "high", "id")])]
        first = first_of_each(records["id"])
        new_document = first | first_of_each(records["high"]) | first_of_each(records["low"])
        kept: Records = records[first]
        group = np.cumsum(first) - 1
        same = (records["high"] == kept["high"][group]) & (records["low"] == kept["low"][group])
        self.counts = self.counts.plus(
            Counts(
                rows=len(records),
                documents=len(kept),
                repeated=int((same & ~first).sum()),
                collisions=int((new_document & ~first).sum()),
                collided_rows=int((~same).sum()),
            )
        )
        return kept

    def _table(self, kept: Records) -> pa.Table:
        shards = sorted(self._shards)
        numbers, inverse = np.unique(kept["shard"], return_inverse=True)
        facts = [shards[number] for number in numbers]
        columns: dict[str, Any] = {"id": kept["id"], "doc_id": _doc_ids(kept)}
        for place, name in enumerate(("source", "shard", "etag")):
            columns[name] = pa.array([fact[place] for fact in facts], pa.string()).take(pa.array(inverse))
        return pa.table({**columns, "row": kept["row"]}, SCHEMA)


def _doc_ids(kept: Records) -> pa.Array:
    """The whole ids, as written in hexadecimal."""
    data = np.stack([kept["high"], kept["low"]], axis=1).astype(">u8").tobytes().hex().encode("ascii")
    offsets = np.arange(len(kept) + 1, dtype=np.int32) * 2 * _HEX
    return pa.StringArray.from_buffers(len(kept), pa.py_buffer(offsets), pa.py_buffer(data))


class Places:
    """Finds places by id or by the beginning of a document's id; reads the row groups that hold them."""

    def __init__(self, storage: Storage, key: str) -> None:
        """Read the footer.

        Raises:
            InputError: there is no such object, or it is cut short.
        """
        self._where = storage.uri(key)
        self._storage = storage
        self._info = storage.stat(key)
        with self._readable(), self._open() as file:
            self._footer: pq.FileMetaData = file.metadata
        self.rows: int = self._footer.num_rows
        groups = [
            self._footer.row_group(group).column(0).statistics for group in range(self._footer.num_row_groups)
        ]
        self._lows = np.array([group.min for group in groups], np.int64)
        self._highs = np.array([group.max for group in groups], np.int64)

    def find(self, ids: NDArray[np.int64]) -> pa.Table:
        """The places of m ids, in their order.

        Raises:
            InputError: one of them has no place.
        """
        wanted, inverse = np.unique(ids, return_inverse=True)
        groups = np.searchsorted(self._lows, wanted, side="right").clip(min=1) - 1
        found = [SCHEMA.empty_table()]
        read = np.unique(groups).tolist()
        for group, table in zip(read, self._read_all(read), strict=True):
            here = wanted[groups == group]
            positions = np.minimum(np.searchsorted(table["id"].to_numpy(), here), len(table) - 1)
            found.append(table.take(positions))
        table = pa.concat_tables(found)
        missing = table["id"].to_numpy() != wanted
        if missing.any():
            raise InputError(
                f"{self._where} has no place for {int(missing.sum())} of {len(wanted)} ids of its index, "
                f"the first being {int(wanted[missing][0])}"
            )
        return table.take(inverse)

    def starting_with(self, prefix: str) -> pa.Table:
        """The places of documents whose id starts with ``prefix``, in hexadecimal."""
        low, high = vectors.faiss_ids([prefix[:_HEX].ljust(2 * _HEX, fill) for fill in "0f"])
        groups = np.flatnonzero((self._lows <= high) & (self._highs >= low)).tolist()
        table = pa.concat_tables([SCHEMA.empty_table(), *self._read_all(groups)])
        starts = [doc_id.startswith(prefix) for doc_id in table["doc_id"].to_pylist()]
        return table.filter(pa.array(starts, pa.bool_()))

    def _read_all(self, groups: list[int]) -> Iterator[pa.Table]:
        """Row groups, in their order, a few of them read ahead."""
        return prefetched(self._read, groups, _READ_AHEAD)

    def _read(self, group: int) -> pa.Table:
        # A file of its own: whoever reads one moves its position.
        with self._readable(), self._open(self._footer) as file:
            return file.read_row_group(group, use_threads=False)

    def _open(self, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """With ``pre_buffer`` the columns of a row group are one request, as they lie side by side."""
        source = pa.PythonFile(self._storage.open(self._info), mode="r")
        return pq.ParquetFile(source, metadata=footer, pre_buffer=True)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            # An error number is the machine's.
            if getattr(error, "errno", None) is not None:
                raise
            reason = " ".join(str(error).split())
            raise InputError(f"{self._where} is no whole table of places ({reason})")
