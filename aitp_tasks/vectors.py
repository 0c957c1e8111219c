"""The embedded rows of a chunk: document id, row number and vector, as Parquet.

Vectors are float16 (n, d). Ids of the FAISS index are the first 63 bits of the
document id: they say what a vector is of, not where it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks import tables
from aitp_tasks.storage import Storage

_ID_MASK = 2**63 - 1


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
    values: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.doc_ids)


def faiss_ids(doc_ids: Sequence[str]) -> NDArray[np.int64]:
    """The 63-bit ids of documents, int64 (n,)."""
    return np.array([int(doc_id[:16], 16) & _ID_MASK for doc_id in doc_ids], dtype=np.int64)


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
    """Read one chunk."""
    return from_table(tables.read(storage, key))
