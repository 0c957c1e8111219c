"""An encoder whose vectors are made, not learnt: fast, and of a known shape."""

import importlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.encoder.tokens import Tokenised
from aitp_tasks.records.run import Run

DIMENSION = 16


def vector(text: str) -> NDArray[np.float32]:
    """A text's vector: around the centre that its first word names; not of length 1."""
    return _place(*_numbers(text))


def _numbers(text: str) -> tuple[int, int]:
    return crc32(text.split()[0].encode()) >> 1, crc32(text.encode()) >> 1


def _place(centre: int, own: int) -> NDArray[np.float32]:
    centred = np.random.default_rng(centre).normal(size=DIMENSION)
    spread = 0.3 * np.random.default_rng(own).normal(size=DIMENSION)
    return (centred + spread).astype(np.float32)


def encoder(
    numbers: Callable[[str], tuple[int, int]] = _numbers,
    place: Callable[[int, int], NDArray[np.float32]] = _place,
    dimension: int = DIMENSION,
) -> Encoder:
    """What ``open_encoder`` may return in its place: a text as two numbers, and the vector of those."""

    def tokens(texts: Sequence[str]) -> list[Tokenised]:
        return [Tokenised([np.array(numbers(text), np.int32)], False) for text in texts]

    facts = Facts(
        dimension=dimension,
        max_tokens=2,
        prompt="",
        prompt_tokens=0,
        lower_case=False,
        normalised=False,
        pad=0,
    )
    return Encoder(facts, cast(Any, tokens), _Backend(place, dimension))


def through(run: Run, last: str) -> Run:
    """Run the stages after plan, up to ``last``."""
    for name in ("embed", "merge", "density", "index", "difference"):
        module = importlib.import_module(f"aitp_tasks.stages.{name}")
        for unit in range(len(run.plan.groups)) if name in ("embed", "density") else [None]:
            module.execute(run, unit)
        if name == last:
            break
    return run


class _Backend:
    name = "made"
    batch_tokens = 64
    window_tokens = 0

    def __init__(self, place: Callable[[int, int], NDArray[np.float32]], dimension: int) -> None:
        self._place = place
        self.dimension = dimension

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        for batch in batches:
            yield Answer(batch, np.stack([self._place(*sequence.tolist()) for sequence in batch.sequences]))

    def memory_mb(self) -> float:
        return 0.0
