"""FAISS indexes: explicit ids, cosines, few vectors, damage."""

import re

import faiss
import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.vector_index import library
from tests.aitp_tasks.conftest import REPOSITORY


def made(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, 16))
    return values.astype(np.float16)


def test_a_flat_index_finds_every_vector_by_its_own_id() -> None:
    values, ids = made(60), np.random.default_rng(1).integers(0, 2**63 - 1, 60)
    index = library.flat_from_bytes(library.to_bytes(library.flat(values, ids)), "x")
    similarities, found = library.search(index, values, 1)
    assert found[:, 0].tolist() == ids.tolist()
    assert similarities.min() > 0.999


def test_similarities_are_cosines_whatever_the_lengths() -> None:
    values = made(30)
    exact = values.astype(float) / np.linalg.norm(values.astype(float), axis=1, keepdims=True)
    index = library.flat(values * np.float16(8), np.arange(30))
    similarities, ids = library.search(index, values, 30)
    cosines = np.take_along_axis(exact @ exact.T, ids, axis=1)
    assert np.abs(similarities - cosines).max() < 2e-3
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_a_vector_of_length_zero_is_like_none() -> None:
    index = library.flat(made(4), np.arange(4))
    similarities, _ = library.search(index, np.zeros((1, 16), np.float16), 4)
    assert similarities.tolist() == [[0, 0, 0, 0]]


def test_more_wanted_than_there_are_is_all() -> None:
    similarities, ids = library.search(library.flat(made(3), np.arange(3)), made(2), 10)
    assert similarities.shape == ids.shape == (2, 3)


def test_damage_is_named() -> None:
    data = library.to_bytes(library.flat(made(50), np.arange(50)))
    with pytest.raises(InputError, match="s3://b/i is not a whole FAISS index"):
        library.flat_from_bytes(data[: len(data) // 2], "s3://b/i")
    with pytest.raises(InputError, match="not a whole FAISS index"):
        library.flat_from_bytes(b"", "s3://b/i")
    with pytest.raises(InputError, match="not an index with explicit ids"):
        library.flat_from_bytes(faiss.serialize_index(faiss.IndexFlatIP(4)).tobytes(), "s3://b/i")


def test_repeated_ids_in_a_file_are_refused() -> None:
    crooked = library.flat(made(2), np.array([5, 5]))
    with pytest.raises(InputError, match="2 vectors and 1 ids"):
        library.flat_from_bytes(library.to_bytes(crooked), "s3://b/i")


def test_a_quantiser_is_empty_and_of_lists() -> None:
    flat = library.to_bytes(library.flat(made(2), np.arange(2)))
    with pytest.raises(InputError, match="x is a IndexIDMap2, not one of inverted lists"):
        library.Quantiser(flat, "x")
    index = faiss.deserialize_index(np.frombuffer(library.Quantiser.trained(made(400), 8), np.uint8))
    index.add(made(1).astype(np.float32))
    with pytest.raises(InputError, match="x is no trained, empty index"):
        library.Quantiser(library.to_bytes(index), "x")


def test_both_kinds_of_worker_have_the_same_faiss() -> None:
    locks = [(REPOSITORY / f"requirements/worker-{kind}.txt").read_text() for kind in ("cpu", "gpu")]
    on_processors, beside_gpus = (re.findall(r"^faiss\S*", lock, re.MULTILINE) for lock in locks)
    assert on_processors == beside_gpus
    assert len(on_processors) == 1
    assert on_processors[0].startswith("faiss-cpu==")
