"""What each criterion compares with the threshold, and which threshold selects as much as is wanted."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Criterion, Difference
from aitp_tasks.densities.discriminant import LOG_RATIO
from aitp_tasks.densities.field import FLOOR
from aitp_tasks.records import projected
from aitp_tasks.selection.coverage import Coverage
from aitp_tasks.selection.sample import draws
from aitp_tasks.vector_index import nearness

Scores = NDArray[np.float64]

#: Thresholds that every run counts; the authors' own values are among them.
SWEEP = (0.1, 0.2, 0.5, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0)
#: The same of cosines.
SIMILARITY_SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 21))
#: The same of logarithms, which in many dimensions are far from 0.
LOGARITHM_SWEEP = (
    -5000.0,
    -2000.0,
    -1000.0,
    -500.0,
    -200.0,
    -100.0,
    -50.0,
    -20.0,
    -10.0,
    -5.0,
    -2.0,
    -1.0,
    0.0,
    1.0,
)


@dataclass(frozen=True)
class Measure:
    """What a criterion compares with tau.

    Attributes:
        made: how the density units call what they make for it; None where the densities are enough.
        column: of that.
        sweep: scores that are counted as thresholds.
        logarithmic: whether scores are logarithms of what tau is given as; they are told as they are.
    """

    made: str | None = None
    column: str = ""
    sweep: tuple[float, ...] = SWEEP
    logarithmic: bool = False

    def comparable(self, tau: float) -> float:
        """A threshold as scores are."""
        return math.log(tau) if self.logarithmic else tau


_OF_DENSITIES = Measure()
_MEASURES = {
    Criterion.KNN: Measure("nearness", nearness.COLUMN, SIMILARITY_SWEEP),
    Criterion.GAUSSIAN: Measure("log_ratios", LOG_RATIO, LOGARITHM_SWEEP, logarithmic=True),
}


def measure(criterion: Criterion) -> Measure:
    """What a criterion compares with tau."""
    return _MEASURES.get(criterion, _OF_DENSITIES)


def scored(criterion: Criterion, coverage: Coverage, table: pa.Table) -> tuple[pa.Table, Scores]:
    """Documents with both densities and their ratio as columns; and their scores, float64 (n,).

    Args:
        criterion: what the scores are of.
        coverage: the densities of both sets.
        table: the documents' coordinates, and the measure's column where it has one.
    """
    found = coverage.at(projected.points(table))
    ratio = score(Criterion.DENSITY_RATIO, found["corpus"], found["sft"])
    for name, values in {"p_corpus": found["corpus"], "p_sft": found["sft"], "ratio": ratio}.items():
        table = table.append_column(name, pa.array(values, pa.float64()))
    if measure(criterion).made is not None:
        return table, table[measure(criterion).column].to_numpy()
    return table, score(criterion, found["corpus"], found["sft"])


def score(criterion: Criterion, p_corpus: Scores, p_sft: Scores) -> Scores:
    """What the criteria of densities compare with tau, float64 (n,)."""
    if criterion is Criterion.DENSITY_RATIO:
        return p_sft / p_corpus
    if criterion is Criterion.AUTHORS_COMPAT:
        floored: Scores = p_corpus / np.maximum(p_sft, FLOOR)
        return floored
    # Not floored: a floor would make one of all far documents, which are those that are looked for.
    return p_sft


@dataclass(frozen=True)
class Threshold:
    """Which documents are selected: those below tau, and of those at tau the first by their draw.

    Attributes:
        tau: what scores are compared with.
        seed: of the draws.
        last: draw, id, shard and row of the last document at tau that is selected; None where none is.
    """

    tau: float
    seed: int = 0
    last: tuple[int, str, str, int] | None = None

    @classmethod
    def told(cls, settings: Difference, figures: Mapping[str, Any]) -> Self:
        """The threshold that the figures of a difference set tell of."""
        last = figures.get("last_at_tau")
        return cls(
            float(figures["tau"]),
            settings.seed,
            None if last is None else (int(last[0]), str(last[1]), str(last[2]), int(last[3])),
        )

    def below(self, table: pa.Table, scores: Scores) -> NDArray[np.bool_]:
        """Which documents are selected, bool (n,).

        Args:
            table: with ``doc_id``, ``shard`` and ``row``.
            scores: float64 (n,).
        """
        below: NDArray[np.bool_] = scores < self.tau
        if self.last is not None:
            tied = np.flatnonzero(scores == self.tau)
            below[tied[[key <= self.last for key in _keys(self.seed, table.take(tied))]]] = True
        return below


#: What a threshold is found from: documents and their scores, shard by shard.
Scored = Callable[[], Iterator[tuple[pa.Table, Scores]]]


def threshold(settings: Difference, documents: Scored) -> Threshold:
    """The tau given, or the one that selects just the wanted share or number of documents.

    That is read off the sorted scores, 8 bytes a document, in memory; where scores tie,
    off the draws of those that do, which is as much again.

    Args:
        settings: tau, or what is wanted.
        documents: called once for the scores, and up to twice more where they tie.
    """
    if settings.target_share is None and settings.target_documents is None:
        return Threshold(measure(settings.criterion).comparable(settings.tau))
    found = _gathered(np.float64, (scores for _, scores in documents()))
    wanted = settings.target_documents
    if settings.target_share is not None:
        wanted = round(settings.target_share * len(found))
    assert wanted is not None
    if wanted >= len(found):
        return Threshold(float(np.nextafter(found.max(), np.inf)) if len(found) else 0.0)
    found.partition(wanted)
    tau = float(found[wanted])
    missing = wanted - int((found < tau).sum())
    del found
    if not missing:
        return Threshold(tau)
    return Threshold(tau, settings.seed, _last(settings.seed, tau, missing, documents))


def _last(seed: int, tau: float, wanted: int, documents: Scored) -> tuple[int, str, str, int]:
    """Of the documents at tau, the last that is among the first so many."""

    def tied() -> Iterator[pa.Table]:
        for table, scores in documents():
            yield table.take(np.flatnonzero(scores == tau))

    found = _gathered(np.uint64, (draws(seed, table["doc_id"].to_pylist()) for table in tied()))
    found.partition(wanted - 1)
    draw = found[wanted - 1]
    before = int((found < draw).sum())
    del found
    # Equal draws are those of one text that occurs again.
    equal = sorted(key for table in tied() for key in _keys(seed, table) if key[0] == draw)
    return equal[wanted - before - 1]


def _keys(seed: int, table: pa.Table) -> list[tuple[int, str, str, int]]:
    """Draw, id, shard and row of documents: their order, however they are cut into shards."""
    ids = table["doc_id"].to_pylist()
    shards, rows = table["shard"].to_pylist(), table["row"].to_pylist()
    return list(zip(draws(seed, ids).tolist(), ids, shards, rows, strict=True))


def _gathered(kind: type[np.generic], parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """All parts in one array, which is never held twice."""
    data = bytearray()
    for part in parts:
        if len(part):
            data += np.ascontiguousarray(part, kind).view(np.uint8).data
    return np.frombuffer(data, kind)
