"""Token-budget batches, and what computes their vectors.

A batch is padded to its longest sequence. Batches are formed from sequences in
the order of their length, and closed before padding passes ``MAX_PADDING``, so
that hardly any arithmetic is spent on it.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.inputs.rows import Refusal

#: Largest share of padding in one batch.
MAX_PADDING = 0.05

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """Token sequences that one forward pass or request takes.

    Attributes:
        positions: which sequence of which chunk each one is; opaque to a backend.
        sequences: token ids int32, special tokens included, longest first.
    """

    positions: Sequence[Any]
    sequences: Sequence[Tokens]

    @property
    def padded_tokens(self) -> int:
        """Tokens with padding."""
        return len(self.sequences) * len(self.sequences[0])

    @property
    def even(self) -> bool:
        """Whether all sequences are of one length, so that nothing is padded."""
        return len(self.sequences[0]) == len(self.sequences[-1])

    def padded(self, pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and attention mask, both int64 (n, longest)."""
        ids = np.full((len(self.sequences), len(self.sequences[0])), pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(self.sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return ids, mask

    def halves(self) -> tuple["Batch", "Batch"]:
        """The batch in two."""
        middle = len(self.sequences) // 2
        return (
            Batch(self.positions[:middle], self.sequences[:middle]),
            Batch(self.positions[middle:], self.sequences[middle:]),
        )


@dataclass(frozen=True)
class Answer:
    """A batch's vectors.

    Attributes:
        batch: the batch.
        vectors: float32 (n, d); the row of a refused sequence is NaN.
        refused: why a sequence has no vector, by its place in the batch.
    """

    batch: Batch
    vectors: NDArray[np.float32]
    refused: Mapping[int, Refusal] = field(default_factory=dict)


class Backend(Protocol):
    """Computes the vectors of batches, on a device of this process or on a server."""

    @property
    def name(self) -> str:
        """Where it runs, by what and in which precision, in one word."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def batch_tokens(self) -> int:
        """Padded tokens that a batch should have at most."""

    @property
    def window_tokens(self) -> int:
        """Tokens of the chunks that batches are formed of at a time; 0 for those of one chunk."""

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """Answers in any order; takes a new batch only when it has room for one.

        However it ends, early or by an error, no batch of it answers a later run.
        """

    def memory_mb(self) -> float:
        """Largest use of the device's own memory so far, in MB; 0 where there is none."""


def form(positions: Sequence[Any], sequences: Sequence[Tokens], budget: int) -> Iterator[Batch]:
    """Batches of at most ``budget`` padded tokens; a longer sequence is a batch of its own."""
    order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
    lengths = [len(sequences[place]) for place in order]
    start = 0
    while start < len(order):
        end = _end_of_batch(lengths, start, budget)
        places = order[start:end]
        yield Batch([positions[place] for place in places], [sequences[place] for place in places])
        start = end


def _end_of_batch(lengths: list[int], start: int, budget: int) -> int:
    longest, tokens = lengths[start], 0
    for end in range(start, len(lengths)):
        padded = (end - start + 1) * longest
        tokens += lengths[end]
        if end > start and (padded > budget or tokens < padded * (1 - MAX_PADDING)):
            return end
    return len(lengths)
