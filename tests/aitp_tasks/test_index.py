"""FAISS indexes: explicit ids, repeats, damage."""

import faiss
import numpy as np
import pytest

from aitp_tasks import index
from aitp_tasks.errors import InputError


def vectors(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, 16))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def build(values: np.ndarray, ids: np.ndarray) -> index.Index:
    built = index.empty(values.shape[1])
    index.add(built, values, ids, set())
    return built


def test_an_index_of_parts_finds_every_vector_by_its_own_id() -> None:
    values, ids = vectors(60), np.random.default_rng(1).integers(0, 2**63 - 1, 60)
    merged, seen = index.empty(16), set()
    for part in np.split(np.arange(60), [7, 30]):
        index.add(merged, values[part], ids[part], seen)
    _, found = merged.search(values.astype(np.float32), 1)
    assert found[:, 0].tolist() == ids.tolist()


def test_repeats_are_left_out() -> None:
    values, seen = vectors(10), set()
    merged = index.empty(16)
    index.add(merged, values, np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 7]), seen)
    assert merged.ntotal == 8
    index.add(merged, values, np.arange(10), seen)
    assert sorted(index.ids_of(merged).tolist()) == list(range(10))


def test_survives_storage() -> None:
    built = build(vectors(5), np.arange(5))
    again = index.from_bytes(index.to_bytes(built), "x")
    assert index.ids_of(again).tolist() == [0, 1, 2, 3, 4]


def test_damage_is_named() -> None:
    data = index.to_bytes(build(vectors(50), np.arange(50)))
    with pytest.raises(InputError, match="s3://b/i is not a whole FAISS index"):
        index.from_bytes(data[: len(data) // 2], "s3://b/i")
    with pytest.raises(InputError, match="not a whole FAISS index"):
        index.from_bytes(b"", "s3://b/i")
    flat = faiss.serialize_index(faiss.IndexFlatIP(4)).tobytes()
    with pytest.raises(InputError, match="not an index with explicit ids"):
        index.from_bytes(flat, "s3://b/i")


def test_repeated_ids_in_a_file_are_refused() -> None:
    crooked = index.empty(16)
    crooked.add_with_ids(vectors(2).astype(np.float32), np.array([5, 5]))
    with pytest.raises(InputError, match="2 vectors and 1 ids"):
        index.from_bytes(index.to_bytes(crooked), "s3://b/i")


def test_another_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="dimension 16 cannot go into an index of 8"):
        index.add(index.empty(8), vectors(2), np.arange(2), set())
