"""Windows: how chunks are grouped, and what the batches of several gain over those of one."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.encoder import chunks, windows
from aitp_tasks.encoder.batches import MAX_PADDING
from aitp_tasks.encoder.chunks import Chunk
from aitp_tasks.encoder.tokens import Tokenised


def chunk(start: int, lengths: list[int]) -> Chunk:
    made = Chunk(start, 2, False)
    for row, length in enumerate(lengths, start):
        made.add(f"{row}", Tokenised([np.full(length, row, np.int32)], False))
    return made


def sizes(lengths: list[int], tokens: int) -> list[int]:
    """How many chunks, of one text each, every window has."""
    read = [chunk(row, [length]) for row, length in enumerate(lengths)]
    found = list(windows.grouped(read, tokens))
    assert [one for window in found for one in window] == read
    return [len(window) for window in found]


@pytest.mark.parametrize(
    ("lengths", "tokens", "wanted"),
    [
        pytest.param([], 100, [], id="no chunk"),
        pytest.param([5], 100, [1], id="one chunk"),
        pytest.param([5] * 4, 0, [1] * 4, id="a window a chunk"),
        pytest.param([1] * 12, 100, [1, 2, 4, 5], id="twice as many each time"),
        pytest.param([1] * 200, 1000, [1, 2, 4, 8, 16, 32, 64, 64, 9], id="up to the largest"),
        pytest.param([50] * 8, 100, [1, 2, 2, 2, 1], id="enough tokens"),
        pytest.param([1, 1, 1_000_000, 1, 1, 1], 100, [1, 2, 3], id="one huge text ends its window"),
        pytest.param([0] * 7, 100, [1, 2, 4], id="chunks without a token"),
        pytest.param([1, 99, 1, 100, 1, 100], 100, [1, 2, 1, 2], id="exactly enough"),
    ],
)
def test_chunks_are_grouped_in_their_order(lengths: list[int], tokens: int, wanted: list[int]) -> None:
    assert sizes(lengths, tokens) == wanted


def test_no_chunk_is_read_before_it_is_wanted() -> None:
    read: list[int] = []

    def reading() -> Iterator[Chunk]:
        for row in range(20):
            read.append(row)
            yield chunk(row, [3])

    found = windows.grouped(reading(), 1000)
    for count in (1, 3, 7, 15):
        next(found)
        assert len(read) == count


@given(st.lists(st.lists(st.integers(1, 300), max_size=20), min_size=1, max_size=8), st.integers(64, 4096))
def test_every_sequence_of_a_window_is_in_one_batch(lengths: list[list[int]], budget: int) -> None:
    window = [chunk(1000 * place, some) for place, some in enumerate(lengths)]
    found = list(chunks.batches(window, budget))
    places = [(one, text) for batch in found for one, text in batch.positions]
    assert sorted((one.start, text) for one, text in places) == [
        (one.start, text) for one, some in zip(window, lengths, strict=True) for text in range(len(some))
    ]
    for batch in found:
        assert batch.even == (len({len(sequence) for sequence in batch.sequences}) == 1)
        assert batch.padded_tokens <= budget or len(batch.sequences) == 1
        for (one, text), sequence in zip(batch.positions, batch.sequences, strict=True):
            assert sequence[0] == one.start + text


def test_a_window_fills_batches_that_a_chunk_cannot_fill() -> None:
    """Lengths as a web corpus has them, cut at 256: what a device of 131,072 tokens gets at a time."""
    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(5.0, 1.0, 64 * 512).astype(int) + 3, 256)
    read = [chunk(start, lengths[start : start + 512].tolist()) for start in range(0, len(lengths), 512)]
    budget = 131_072

    def mean(grouped: list[list[Chunk]]) -> float:
        found = [batch for window in grouped for batch in chunks.batches(window, budget)]
        padded = sum(batch.padded_tokens for batch in found)
        assert sum(one.tokens for window in grouped for one in window) >= padded * (1 - MAX_PADDING)
        return padded / len(found)

    alone, together = mean([[one] for one in read]), mean([read])
    assert alone < budget / 10
    assert together > budget / 2
