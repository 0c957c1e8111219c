"""How many lists an index gets, and that its quantiser is trained once."""

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest
from aitp_tasks.storage import Storage
from aitp_tasks.vector_index import quantiser
from aitp_tasks.vector_index.library import Quantiser
from tests.aitp_tasks.vector_index.conftest import MakeShard


@pytest.mark.parametrize(
    ("count", "lists"),
    [(1, 0), (200_000, 0), (200_001, 2048), (1_000_000, 4096), (16_000_000, 16384), (10**9, 16384)],
)
def test_lists_follow_the_number_of_vectors(count: int, lists: int) -> None:
    assert quantiser.lists_for(count) == lists


def test_a_quantiser_is_trained_once(
    storage: Storage, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [key for number in range(3) for key in make_shard(number).chunks]
    key = quantiser.ensure(storage, "index/e/quantiser-sft", 16, chunks)
    assert key == "index/e/quantiser-sft-16.faiss"
    trained = quantiser.load(storage, key)
    assert (trained.lists, trained.code_size) == (16, 16)
    monkeypatch.setattr(Quantiser, "trained", None)
    assert quantiser.ensure(storage, "index/e/quantiser-sft", 16, chunks) == key


def test_a_sets_own_quantiser_does_not_depend_on_what_was_trained_before(
    storage: Storage, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [key for number in range(4) for key in make_shard(number).chunks]
    own = quantiser.ensure_own(storage, "a", 8, chunks[:1], 300)
    other = quantiser.ensure_own(storage, "a", 8, chunks[1:2], 300)
    assert own != other
    assert storage.read(own) != storage.read(other)
    # Elsewhere, the other way round: the same keys, the same bytes.
    assert quantiser.ensure_own(storage, "b", 8, chunks[1:2], 300) == other.replace("a-", "b-", 1)
    assert storage.read(other.replace("a-", "b-", 1)) == storage.read(other)
    monkeypatch.setattr(Quantiser, "trained", None)
    assert quantiser.ensure_own(storage, "a", 8, chunks[:1], 300) == own


def test_a_set_that_grows_a_little_keeps_its_quantiser(storage: Storage, make_shard: MakeShard) -> None:
    chunks = [key for number in range(4) for key in make_shard(number).chunks]
    own = quantiser.ensure_own(storage, "a", 8, chunks, 1200)
    assert quantiser.ensure_own(storage, "a", 8, chunks[::-1], 1200) == own
    last = max(map(digest.of_text, chunks))
    later = [name for number in range(200) if digest.of_text(name := f"later-{number}") > last][:2]
    assert (
        quantiser.ensure_own(storage, "a", 8, [*chunks, *later], 1200 + 1200 * len(later) // len(chunks))
        == own
    )


def test_the_sample_does_not_follow_the_order_of_chunks(storage: Storage, make_shard: MakeShard) -> None:
    chunks = [key for number in range(6) for key in make_shard(number).chunks]
    first, again = (
        storage.read(quantiser.ensure(storage, name, 8, some))
        for name, some in (("a", chunks), ("b", chunks[::-1]))
    )
    assert first == again


def test_a_damaged_quantiser_is_named(storage: Storage, make_shard: MakeShard) -> None:
    key = quantiser.ensure(storage, "index/e/quantiser-sft", 8, make_shard(0).chunks)
    storage.write(key, storage.read(key)[:-50])
    with pytest.raises(InputError, match=r"quantiser-sft-8.faiss is not a whole FAISS index"):
        quantiser.load(storage, key)
