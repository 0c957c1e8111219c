"""Batches: every sequence once, within the budget, with little padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.encoder.batches import MAX_PADDING, form


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(64, 4096))
def test_every_sequence_is_in_one_batch(lengths: list[int], budget: int) -> None:
    sequences = [np.full(length, place, np.int32) for place, length in enumerate(lengths)]
    batches = list(form(range(len(lengths)), sequences, budget))
    assert sorted(place for batch in batches for place in batch.positions) == list(range(len(lengths)))
    for batch in batches:
        sizes = [len(sequence) for sequence in batch.sequences]
        assert [int(sequence[0]) for sequence in batch.sequences] == list(batch.positions)
        assert sizes == sorted(sizes, reverse=True)
        assert batch.padded_tokens == len(sizes) * sizes[0]
        assert len(sizes) == 1 or batch.padded_tokens <= budget
        assert sum(sizes) >= batch.padded_tokens * (1 - MAX_PADDING)


def test_padding_is_masked() -> None:
    (batch,) = form("ab", [np.arange(1, 20, dtype=np.int32), np.arange(1, 21, dtype=np.int32)], 64)
    ids, mask = batch.padded(0)
    assert ids.shape == mask.shape == (2, 20)
    assert ids[1].tolist() == [*range(1, 20), 0]
    assert mask.sum(axis=1).tolist() == [20, 19]
    assert batch.positions == ["b", "a"]


def test_halves_are_the_whole() -> None:
    (batch,) = form(range(5), [np.ones(8, np.int32)] * 5, 64)
    left, right = batch.halves()
    assert [*left.positions, *right.positions] == [*batch.positions]
