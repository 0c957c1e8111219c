"""The embedded rows of a chunk: document id, row number and vector, as Parquet.

Vectors are float16 (n, d). Ids of the FAISS index are the first 63 bits of the
document id: they say what a vector is of, not where it lies.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.records import damage, tables
from aitp_tasks.storage import Storage

Values = NDArray[np.float16]

_ID_MASK = np.uint64(2**63 - 1)


@dataclass(frozen=True)
class Vectors:
    """Embedded rows.

    Attributes:
        doc_ids: n document ids.
        rows: int64 (n,), row numbers in the shard.
        values: float16 (n, d).
    """

    doc_ids: list[str]
    rows: NDArray[np.int64]
    values: Values

    def __len__(self) -> int:
        return len(self.doc_ids)


def halves(doc_ids: Sequence[str]) -> NDArray[np.uint64]:
    """Document ids as two numbers each, uint64 (n, 2), in the order of the ids."""
    data = bytes.fromhex("".join(doc_ids))
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def faiss_ids(doc_ids: Sequence[str]) -> NDArray[np.int64]:
    """The 63-bit ids of documents, int64 (n,)."""
    return (halves(doc_ids)[:, 0] & _ID_MASK).astype(np.int64)


def to_table(vectors: Vectors) -> pa.Table:
    """As an Arrow table."""
    flat = pa.array(np.ascontiguousarray(vectors.values).reshape(-1))
    return pa.table(
        {
            "doc_id": pa.array(vectors.doc_ids, pa.string()),
            "row": pa.array(vectors.rows, pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.values.shape[1]),
        }
    )


def from_table(table: pa.Table) -> Vectors:
    """Back from an Arrow table."""
    column = table["vector"].combine_chunks()
    width = column.type.list_size
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    return Vectors(table["doc_id"].to_pylist(), table["row"].to_numpy(), values.reshape(-1, width))


def read(storage: Storage, key: str) -> Vectors:
    """Read one chunk.

    Raises:
        DamagedError: it is none.
    """
    return damage.read(storage, key, lambda data: from_table(tables.parsed(data)))


def read_all(storage: Storage, keys: Iterable[str]) -> Iterator[tuple[str, Vectors]]:
    """Key and content of the chunks that have vectors, one after the other.

    Raises:
        InputError: a chunk's vectors are of another dimension than those before.
    """
    width: int | None = None
    for key in keys:
        found = read(storage, key)
        if not len(found):
            continue
        if width not in (None, found.values.shape[1]):
            raise InputError(
                f"{storage.uri(key)} has vectors of dimension {found.values.shape[1]}, others of {width}: "
                "delete it and embed anew"
            )
        width = found.values.shape[1]
        yield key, found
