"""An index whose lists stay in storage finds what the whole one does, and reads what it looks into."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aitp_tasks.errors import InputError
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.library import INDEX_FILE, LISTS_FILE, Quantiser
from aitp_tasks.vector_index.lists import Encoded, Merge
from aitp_tasks.vector_index.ranged import RangedIndex

DIMENSION = 16
KEY, LISTS = f"index/{INDEX_FILE}", f"index/{LISTS_FILE}"


def made(count: int, seed: int = 0) -> NDArray[np.float16]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, DIMENSION))
    return (centres[random.integers(0, 20, count)] + 0.3 * random.normal(size=(count, DIMENSION))).astype(
        np.float16
    )


def written(
    storage: Storage, folder: Path, values: NDArray[np.float16], lists: int = 64, kept: slice = slice(None)
) -> library.Index:
    """Write an index of some of the vectors into storage; the whole one."""
    quantiser = Quantiser(Quantiser.trained(values, lists), "x")
    ids = np.random.default_rng(1).permutation(len(values) * 3)[: len(values)].astype(np.int64)[kept]
    found, codes = quantiser.encode(values[kept])
    order = np.lexsort((ids, found))
    folder.mkdir()
    merge = Merge(quantiser, folder)
    merge.add(Encoded(found[order], ids[order], codes[order], quantiser.digest))
    quantiser.write_index(folder, merge.write(folder / LISTS_FILE))
    for key, name in ((KEY, INDEX_FILE), (LISTS, LISTS_FILE)):
        storage.upload(key, folder / name)
    return library.read_folder(folder, "x")


@pytest.mark.parametrize("k", [1, 3, 10, 200, 5000])
@pytest.mark.parametrize("lists", [8, 64, 2048])
def test_it_finds_the_same_to_the_last_bit(storage: Storage, tmp_path: Path, lists: int, k: int) -> None:
    values = made(3000)
    # Texts that occur in many forms: equal vectors under different ids.
    values[100:300] = values[100]
    whole = written(storage, tmp_path / "made", values, lists)
    found = RangedIndex(storage, KEY, LISTS)
    assert (found.d, found.ntotal) == (DIMENSION, 3000)
    queries = np.concatenate([values[98:104], made(5, seed=9), np.zeros((1, DIMENSION), np.float16)])
    for expected, given in zip(library.search(whole, queries, k), found.search(queries, k), strict=True):
        assert given.dtype == expected.dtype
        assert given.tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [1, 7])
def test_lists_that_are_empty_hold_nothing(storage: Storage, tmp_path: Path, count: int) -> None:
    values = made(3000)
    whole = written(storage, tmp_path / "made", values, kept=slice(count))
    queries = made(6, seed=5)
    for k in (1, 10):
        cosines, ids = RangedIndex(storage, KEY, LISTS).search(queries, k)
        expected_cosines, expected_ids = library.search(whole, queries, k)
        assert ids.tolist() == expected_ids.tolist()
        assert cosines.tolist() == expected_cosines.tolist()
        assert ids.shape == (6, min(k, count))


def test_only_the_lists_that_a_query_looks_into_are_read(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(storage, tmp_path / "made", made(20_000), lists=2048)
    read: list[int] = []
    plain = storage.read_range

    def counted(info: ObjectInfo, start: int, size: int) -> bytes:
        assert info.key == LISTS
        read.append(size)
        return plain(info, start, size)

    monkeypatch.setattr(storage, "read_range", counted)
    monkeypatch.setattr(storage, "download", None)
    RangedIndex(storage, KEY, LISTS).search(made(1, seed=3), 10)
    assert len(read) <= 2048 // 32
    assert sum(read) < 20_000 * (DIMENSION + 8) / 8


def test_a_vector_of_another_encoder_is_refused(storage: Storage, tmp_path: Path) -> None:
    written(storage, tmp_path / "made", made(3000))
    with pytest.raises(InputError, match="dimension 8 do not fit an index of 16"):
        RangedIndex(storage, KEY, LISTS).search(np.ones((1, 8), np.float16), 3)


def test_damage_is_named(storage: Storage, tmp_path: Path) -> None:
    written(storage, tmp_path / "made", made(3000))
    lists, index = storage.read(LISTS), storage.read(KEY)
    storage.write(LISTS, lists[:-1])
    with pytest.raises(InputError, match=rf"{KEY} has 71999 of 72000 bytes of lists"):
        RangedIndex(storage, KEY, LISTS)
    storage.write(LISTS, lists)
    for damaged in (b"", index[: len(index) // 2], Quantiser.trained(made(3000), 8)):
        storage.write(KEY, damaged)
        with pytest.raises(InputError, match=f"{KEY} is not a whole FAISS index"):
            RangedIndex(storage, KEY, LISTS)
    storage.write(KEY, library.to_bytes(library.flat(made(9), np.arange(9))))
    with pytest.raises(InputError, match="not one of inverted lists"):
        RangedIndex(storage, KEY, LISTS)


def test_lists_that_were_replaced_or_deleted_are_noticed(storage: Storage, tmp_path: Path) -> None:
    written(storage, tmp_path / "made", made(3000))
    found = RangedIndex(storage, KEY, LISTS)
    storage.write(LISTS, b"x" * 72_000)
    with pytest.raises(ObjectChangedError, match=f"{LISTS} changed"):
        found.search(made(1), 3)
    (tmp_path / "storage" / LISTS).unlink()
    with pytest.raises(InputError, match=f"{LISTS} does not exist"):
        RangedIndex(storage, KEY, LISTS)
