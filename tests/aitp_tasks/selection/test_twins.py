"""Which earlier pairs an SFT example says too, against all cosines."""

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from aitp_tasks.records import digest, vectors
from aitp_tasks.selection import twins
from aitp_tasks.vector_index import library
from aitp_tasks.vector_index.opened import OpenIndex

LIMIT = 0.9
Values = NDArray[np.float16]


class Index:
    """Examples and pairs in one exact index, as the run's SFT side is."""

    def __init__(self, texts: list[str], shards: list[str], values: Values) -> None:
        self._ids = vectors.faiss_ids([digest.of_text(text) for text in texts])
        self._index = library.flat(values, self._ids)
        self._rows = {
            int(number): {"doc_id": digest.of_text(text), "shard": shard, "row": row}
            for row, (number, text, shard) in enumerate(zip(self._ids, texts, shards, strict=True))
        }

    def search(self, values: Values, k: int) -> Any:
        return library.search(self._index, values, k)

    def places(self, ids: NDArray[np.int64]) -> pa.Table:
        schema = pa.schema([("doc_id", pa.string()), ("shard", pa.string()), ("row", pa.int64())])
        return pa.Table.from_pylist([self._rows[int(number)] for number in ids], schema)


def found(texts: list[str], shards: list[str], values: Values, in_sft: set[str]) -> dict[str, Any]:
    index = cast(OpenIndex, Index(texts, shards, values))
    pairs = [place for place, shard in enumerate(shards) if shard == "pairs"]
    ids = [digest.of_text(texts[place]) for place in pairs]
    return twins.near([(ids, values[pairs])], index, frozenset({"pairs"}), in_sft, LIMIT)


@pytest.mark.parametrize("seed", range(6))
def test_those_are_twins_that_are_nearer_to_an_example_than_the_limit(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Around few centres, so that a pair often has many other pairs nearer than any example.
    centres = random.normal(size=(4, 12))
    spread = 0.25 * random.normal(size=(160, 12))
    values = (centres[random.integers(0, 4, 160)] + spread).astype(np.float16)
    shards = ["pairs" if number % 8 else "sft" for number in range(160)]
    texts = [f"text {seed} {number}" for number in range(160)]
    exact = library.unit(values).astype(np.float64)
    cosines = exact @ exact.T
    examples = [place for place, shard in enumerate(shards) if shard == "sft"]
    expected = {
        digest.of_text(texts[place]): float(cosines[place, examples].max())
        for place, shard in enumerate(shards)
        if shard == "pairs" and cosines[place, examples].max() > LIMIT
    }
    told = found(texts, shards, values, set())
    assert told.keys() == expected.keys()
    assert 10 < len(expected) < 140
    for text_id, example in told.items():
        assert example["shard"] == "sft"
        assert example["similarity"] == pytest.approx(expected[text_id], abs=2e-3)


def test_a_pair_that_stands_in_for_an_example_counts_as_one() -> None:
    """Of equal texts the index holds one, and may say that it is the pair's."""
    values = np.eye(3, 4, dtype=np.float16)
    values[1] = values[0]
    values[1, 3] = 0.1
    texts, shards = ["a", "b", "c"], ["pairs", "pairs", "pairs"]
    assert found(texts, shards, values, set()) == {}
    assert found(texts, shards, values, {digest.of_text("a")}).keys() == {digest.of_text(t) for t in "ab"}


def test_equal_texts_are_found_by_their_ids() -> None:
    ids = [digest.of_text(text) for text in ("one", "two", "three")]
    sft = [
        vectors.halves([digest.of_text(text) for text in some]) for some in (["two", "four"], [], ["three"])
    ]
    assert twins.same_texts([*ids, ""], sft) == set(ids[1:])
    assert twins.same_texts([], sft) == set()
    assert twins.same_texts(ids, []) == set()
