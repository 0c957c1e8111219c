"""What a run tells of its difference set: counts, quantiles, rates, and the error of its densities."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aitp_tasks.densities import loops
from aitp_tasks.densities.field import Field
from aitp_tasks.densities.grid import Points
from aitp_tasks.records import projected
from aitp_tasks.vector_index import nearness

#: Thresholds that every run counts; the authors' own values are among them.
SWEEP = (0.1, 0.2, 0.5, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0)
#: The same of cosines.
SIMILARITY_SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 21))
#: Documents whose densities are compared with the exact sums.
PROBES = 32
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Sources that are told, the largest first.
_SOURCES_TOLD = 20
#: Relative errors count where the exact density is above this.
_ABOVE = 1e-10

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """The bins of a histogram, of equal width between ``low`` and ``high``; of logarithms, if so wanted."""

    low: float
    high: float
    bins_per_unit: int
    logarithmic: bool = False

    @property
    def bins(self) -> int:
        """How many there are."""
        return round((self.high - self.low) * self.bins_per_unit)

    def places(self, values: Values) -> NDArray[np.int64]:
        """The bin of each of n values, int64 (n,); those beyond the ends count at the ends."""
        if self.logarithmic:
            values = np.log10(np.maximum(values, 10.0**self.low))
        places: NDArray[np.int64] = ((values - self.low) * self.bins_per_unit).clip(0, self.bins - 1)
        return places.astype(np.int64)

    def middles(self, places: NDArray[np.int64]) -> Values:
        """The values in the middle of some bins, float64 (m,)."""
        values: Values = (places + 0.5) / self.bins_per_unit + self.low
        return 10.0**values if self.logarithmic else values


#: Bins of positive numbers 0.5% wide, of cosines 0.0005.
DECADES = Scale(-20, 10, 500, logarithmic=True)
COSINES = Scale(-1, 1, 2000)


class Spread:
    """Mean and quantiles of numbers, from a histogram."""

    def __init__(self, scale: Scale = DECADES) -> None:
        self._scale = scale
        self._counts = np.zeros(scale.bins, np.int64)
        self._total = 0.0

    def add(self, values: Values) -> None:
        """Take in some numbers."""
        self._counts += np.bincount(self._scale.places(values), minlength=self._scale.bins)
        self._total += float(values.sum())

    def figures(self) -> dict[str, float]:
        """``mean``, and the quantiles as ``q05`` and so on."""
        count = int(self._counts.sum())
        if not count:
            return {}
        ends = np.searchsorted(self._counts.cumsum(), np.ceil(np.array(QUANTILES) * count).clip(min=1))
        values = self._scale.middles(ends)
        named = {f"q{round(100 * q):02d}": float(f"{v:.4g}") for q, v in zip(QUANTILES, values, strict=True)}
        return {"mean": float(f"{self._total / count:.4g}"), **named}


class Tally:
    """Counts over all documents of the corpus."""

    def __init__(self, tau: float, by_similarity: bool = False) -> None:
        """``by_similarity``: tau is a cosine, and the documents have a similarity."""
        self._tau = tau
        self._taus = SIMILARITY_SWEEP if by_similarity else SWEEP
        self._sweep = np.zeros(len(self._taus), np.int64)
        self._spreads = {"p_corpus": Spread(), "p_sft": Spread()}
        if by_similarity:
            self._spreads[nearness.COLUMN] = Spread(COSINES)
        self._sources: dict[str, Counter[str]] = {"documents": Counter(), "below_tau": Counter()}
        self._first: pa.Table | None = None
        self.shards: list[dict[str, Any]] = []
        self.documents = self.below = 0

    def add(self, facts: dict[str, str], table: pa.Table, scores: Values) -> NDArray[np.bool_]:
        """Count one shard's documents, which lie in the order of their ids; which are below tau."""
        below: NDArray[np.bool_] = scores < self._tau
        self.documents += len(table)
        self.below += int(below.sum())
        self._sweep += [(scores < tau).sum() for tau in self._taus]
        for name, spread in self._spreads.items():
            spread.add(table[name].to_numpy())
        columns = ["doc_id", *(axis for axis in projected.AXES if axis in table.column_names)]
        first = _first_documents(table.select(columns))
        if self._first is not None:
            first = _first_documents(pa.concat_tables([self._first, first]).sort_by("doc_id"))
        self._first = first
        self.shards.append({**facts, "documents": len(table), "below_tau": int(below.sum())})
        for name, rows in (("documents", table), ("below_tau", table.filter(pa.array(below)))):
            counted = rows["source"].value_counts()
            self._sources[name].update({item["values"].as_py(): item["counts"].as_py() for item in counted})
        return below

    def probes(self) -> Points:
        """Coordinates float64 (m, k) of the documents whose ids come first: a fair sample."""
        assert self._first is not None
        return projected.points(self._first)

    def figures(self) -> dict[str, Any]:
        """The counts, what each threshold would select, and how densities and similarities are spread."""
        return {
            "documents": self.documents,
            "below_tau": self.below,
            "sweep": [[tau, int(count)] for tau, count in zip(self._taus, self._sweep, strict=True)],
            **{name: spread.figures() for name, spread in self._spreads.items()},
        }

    def sources(self, sample: pa.Table) -> list[dict[str, Any]]:
        """Documents, those below tau and those drawn, of the largest sources."""
        drawn = Counter(sample["source"].to_pylist())
        return [
            {
                "source": source,
                "documents": count,
                "below_tau": self._sources["below_tau"][source],
                "selected": drawn[source],
            }
            for source, count in sorted(
                self._sources["documents"].items(), key=lambda item: (-item[1], item[0])
            )[:_SOURCES_TOLD]
        ]

    def shard_table(self, sample: pa.Table) -> pa.Table:
        """The same of every shard."""
        drawn = Counter(sample["shard"].to_pylist())
        return pa.Table.from_pylist([{**shard, "selected": drawn[shard["shard"]]} for shard in self.shards])


def _first_documents(table: pa.Table) -> pa.Table:
    """Of a table in the order of its ids, the documents whose ids come first, each once."""
    ids = table["doc_id"].combine_chunks()
    first = np.ones(len(ids), bool)
    first[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return table.take(np.flatnonzero(first)[:PROBES])


def largest_error(field: Field, probes: Points, points: Iterable[Points]) -> float:
    """Largest relative error of a field at probes (m, k), against the exact sum over all points.

    Only where the exact density is above 1e-10; 0 where it is nowhere.
    """
    sums = np.zeros(len(probes))
    count = 0
    for some in points:
        ones = np.ones(len(some))

        def work(start: int, end: int, some: Points = some, ones: Values = ones) -> Values:
            found: Values = loops.gaussian_sums(some[start:end], ones[start:end], probes, field.bandwidth**2)
            return found

        sums += sum(loops.in_threads(work, len(some)), np.zeros(len(probes)))
        count += len(some)
    exact = sums / (count * (2 * np.pi * field.bandwidth**2) ** (probes.shape[1] / 2))
    counted = exact > _ABOVE
    errors = np.abs(field.at(probes)[counted] / exact[counted] - 1)
    return float(f"{errors.max():.3g}") if counted.any() else 0.0
