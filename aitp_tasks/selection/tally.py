"""What a run tells of its difference set: counts, quantiles, rates, and the error of its densities."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities import loops
from aitp_tasks.densities.field import FLOOR, Field
from aitp_tasks.densities.grid import Points
from aitp_tasks.records import projected
from aitp_tasks.selection.criteria import Threshold, measure

#: Documents whose densities are compared with the exact sums: a fair sample, and at both ends of their ratio.
PROBES, _AT_EACH_END = 32, 8
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Sources that are told, the largest first.
_SOURCES_TOLD = 20

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
        # The first logarithmic bin is that of 0.
        return np.where(places > 0, 10.0**values, 0.0) if self.logarithmic else values


#: Bins of all positive numbers 0.5% wide, of cosines 0.0005.
DECADES = Scale(-320, 308, 500, logarithmic=True)
COSINES = Scale(-1, 1, 2000)


class SignedScale:
    """Bins of numbers of either sign and any size, 0.2% wide but for the smallest (by arsinh)."""

    bins = 50_000
    _PER_UNIT = 500

    def places(self, values: Values) -> NDArray[np.int64]:
        """The bin of each of n values, int64 (n,)."""
        places = (np.arcsinh(values) * self._PER_UNIT + self.bins / 2).clip(0, self.bins - 1)
        found: NDArray[np.int64] = places.astype(np.int64)
        return found

    def middles(self, places: NDArray[np.int64]) -> Values:
        """The values in the middle of some bins, float64 (m,)."""
        middles: Values = np.sinh((places + 0.5 - self.bins / 2) / self._PER_UNIT)
        return middles


SIGNED = SignedScale()


class Spread:
    """Mean and quantiles of numbers, from a histogram."""

    def __init__(self, scale: Scale | SignedScale = DECADES) -> None:
        self._scale = scale
        self._counts = np.zeros(scale.bins, np.int64)
        self._total = 0.0

    def add(self, values: Values) -> None:
        """Take in some numbers."""
        if not len(values):
            return
        places = self._scale.places(values)
        # Of so many bins, those in which these numbers lie.
        first = int(places.min())
        counts = np.bincount(places - first)
        self._counts[first : first + len(counts)] += counts
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

    def __init__(self, threshold: Threshold, criterion: Criterion = Criterion.DENSITY_RATIO) -> None:
        """Nothing is counted yet.

        Args:
            threshold: which documents are below tau.
            criterion: what their scores are of.
        """
        self._threshold = threshold
        self._measure = measure(criterion)
        self._sweep = np.zeros(len(self._measure.sweep), np.int64)
        self._spreads = {"p_corpus": Spread(), "p_sft": Spread()}
        if self._measure.made is not None:
            self._spreads[self._measure.column] = Spread(SIGNED if self._measure.logarithmic else COSINES)
        self._sources: dict[str, Counter[str]] = {"documents": Counter(), "below_tau": Counter()}
        self._first: pa.Table | None = None
        self._ends: dict[str, pa.Table] = {}
        self.shards: list[dict[str, Any]] = []
        self.documents = self.below = 0

    def add(self, facts: dict[str, str], table: pa.Table, scores: Values) -> NDArray[np.bool_]:
        """Count one shard's documents, which lie in the order of their ids; which are below tau."""
        below = self._threshold.below(table, scores)
        self.documents += len(table)
        self.below += int(below.sum())
        self._sweep += [(scores < tau).sum() for tau in self._measure.sweep]
        for name, spread in self._spreads.items():
            spread.add(table[name].to_numpy())
        self._add_probes(table)
        self.shards.append({**facts, "documents": len(table), "below_tau": int(below.sum())})
        for name, rows in (("documents", table), ("below_tau", table.filter(pa.array(below)))):
            counted = rows["source"].value_counts()
            self._sources[name].update({item["values"].as_py(): item["counts"].as_py() for item in counted})
        return below

    def _add_probes(self, table: pa.Table) -> None:
        axes = [axis for axis in projected.AXES if axis in table.column_names]
        first = _first_documents(table.select(["doc_id", *axes]))
        if self._first is not None:
            first = _first_documents(pa.concat_tables([self._first, first]).sort_by("doc_id"))
        self._first = first
        for end in ("ascending", "descending"):
            order = [("ratio", end), ("doc_id", "ascending")]
            some = table.select(["doc_id", "ratio", *axes])
            # Sorting a few is fast; most shards have none that comes further to the end.
            some = some.take(pc.select_k_unstable(some, _AT_EACH_END, order))
            if end in self._ends:
                some = pa.concat_tables([self._ends[end], some])
            self._ends[end] = some.sort_by(order).slice(0, _AT_EACH_END)

    def probes(self) -> Points:
        """Coordinates float64 (m, k) of the documents whose ids come first, and of those at the ends.

        The first are a fair sample; of the lowest and highest ratios are the documents that
        are farthest from the SFT set, and those that an error would rather call covered.
        """
        assert self._first is not None
        return np.concatenate([projected.points(table) for table in (self._first, *self._ends.values())])

    @property
    def share(self) -> float:
        """Of the documents that are below tau."""
        return self.below / self.documents if self.documents else 0.0

    def figures(self) -> dict[str, Any]:
        """The counts, what each threshold would select, and how densities and similarities are spread."""
        return {
            "documents": self.documents,
            "below_tau": self.below,
            "sweep": [[tau, int(count)] for tau, count in zip(self._measure.sweep, self._sweep, strict=True)],
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


@dataclass(frozen=True)
class Errors:
    """How far densities are from the exact sums.

    Attributes:
        relative: the largest, where the exact density is above the floor; 0 where it is nowhere.
        below_floor: the largest in size, where it is not.
    """

    relative: float
    below_floor: float


def measured_errors(field: Field, probes: Points, points: Iterable[Points]) -> Errors:
    """Errors of a field at probes (m, k), against the exact sums over all points."""
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
    found, above = field.at(probes), exact > FLOOR
    relative = np.abs(found[above] / exact[above] - 1).max(initial=0.0)
    below = np.abs(found[~above] - exact[~above]).max(initial=0.0)
    return Errors(float(f"{relative:.3g}"), float(f"{below:.3g}"))
