"""FAISS indexes with explicit 64-bit ids, one per source.

Inner product over float16 codes, the precision in which vectors are stored. An
index holds each document once, however often its text occurs.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from aitp_tasks.errors import InputError

Index = Any  # faiss has no types


def empty(dimension: int) -> Index:
    """An index without vectors."""
    flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap2(flat)


def ids_of(index: Index) -> NDArray[np.int64]:
    """The ids in an index, int64 (ntotal,)."""
    ids: NDArray[np.int64] = faiss.vector_to_array(index.id_map)
    return ids


def add(index: Index, values: NDArray[np.float16], ids: NDArray[np.int64], seen: set[int]) -> None:
    """Add float16 (n, d) under int64 (n,) ids; of equal ids, also those in ``seen``, the first stays.

    Raises:
        InputError: the vectors are of another dimension than the index.
    """
    if values.shape[1] != index.d:
        raise InputError(
            f"vectors of dimension {values.shape[1]} cannot go into an index of {index.d}: embed anew"
        )
    keep = []
    for place, number in enumerate(ids.tolist()):
        if number not in seen:
            seen.add(number)
            keep.append(place)
    if keep:
        index.add_with_ids(values[keep].astype(np.float32), ids[keep])


def to_bytes(index: Index) -> bytes:
    """In FAISS's own format."""
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def from_bytes(data: bytes, where: str) -> Index:
    """Back from FAISS's format, ids checked.

    Raises:
        InputError: not an index of ours, cut short, or with ids that repeat; names ``where``.
    """
    try:
        index = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    except RuntimeError as error:
        raise InputError(f"{where} is not a whole FAISS index: delete it and embed anew ({error})") from None
    if not isinstance(index, faiss.IndexIDMap2):
        raise InputError(f"{where} is a {type(index).__name__}, not an index with explicit ids: embed anew")
    ids = ids_of(index)
    if len(ids) != index.ntotal or len(np.unique(ids)) != len(ids):
        raise InputError(f"{where} has {index.ntotal} vectors and {len(np.unique(ids))} ids: embed anew")
    return index
