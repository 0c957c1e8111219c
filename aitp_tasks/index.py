"""FAISS indexes with explicit 64-bit ids: one per shard, merged into one per source.

Inner product over float16 codes, the precision in which vectors are stored. An
index holds each document once, however often its text occurs.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from aitp_tasks.errors import InputError

Index = Any  # faiss has no types


def build(values: NDArray[np.float16], ids: NDArray[np.int64]) -> Index:
    """Index of float16 (n, d) under int64 (n,) ids; of equal ids the first vector stays."""
    index = empty(values.shape[1])
    _, first = np.unique(ids, return_index=True)
    first.sort()
    index.add_with_ids(values[first].astype(np.float32), ids[first])
    return index


def empty(dimension: int) -> Index:
    """An index without vectors."""
    flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap2(flat)


def ids_of(index: Index) -> NDArray[np.int64]:
    """The ids in an index, int64 (ntotal,)."""
    ids: NDArray[np.int64] = faiss.vector_to_array(index.id_map)
    return ids


def merge(target: Index, part: Index) -> int:
    """Move ``part`` into ``target``; documents already there are left out.

    Returns:
        How many documents were left out.

    Raises:
        InputError: the two are of different dimensions.
    """
    if target.d != part.d:
        raise InputError(f"index of dimension {part.d} cannot be merged into one of {target.d}: embed anew")
    known = np.isin(ids_of(part), ids_of(target))
    expected = target.ntotal + part.ntotal - int(known.sum())
    keep = np.flatnonzero(~known)
    if len(keep):
        vectors = part.index.reconstruct_batch(keep)
        target.add_with_ids(vectors, ids_of(part)[keep])
    if target.ntotal != expected:
        raise InputError(f"merged index has {target.ntotal} vectors instead of {expected}: embed anew")
    return int(known.sum())


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
