"""What new pairs have gained: how much of the corpus is covered, and how far both densities are apart.

Before is the SFT set with the earlier pairs that stay, after the same with the new ones.
Intervals are of a bootstrap over the corpus's documents, in which each counts a random
number of times, Poisson's with a mean of 1. A cell of a grid holds parts of documents, and
sums of Poisson's numbers are Poisson's: so the cells' weights are drawn, at a cost that does
not grow with the documents. The SFT side is held as it is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import rel_entr

from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.grid import ONE, Points, SparseGrid
from aitp_tasks.records import projected
from aitp_tasks.records.run import Run
from aitp_tasks.selection import coverage

Values = NDArray[np.float64]

LEVEL = 0.95
#: Bandwidths around the outermost points; beyond, there is nothing that counts.
_REACH = 5.0
#: Resamples; fewer over windows whose cells in all resamples would be more than these.
_RESAMPLES, _FEWEST, _CELLS = 200, 40, 2**30
#: Of fewer documents no interval is told.
LEAST_DOCUMENTS = 20
_SEED = 0


#: Of a grid, and of both sides' densities float64 (2, m) at its cells: each measure before and after.
_Measures = Callable[[SparseGrid, Values], dict[str, list[float]]]


@dataclass(frozen=True)
class Sides:
    """The corpus's density, and the SFT side's before and after the new pairs, over one window."""

    corpus: Field
    before: Field
    after: Field
    tau: float

    @classmethod
    def of(cls, corpus: Field, alone: Field, earlier: Points, new: Points, tau: float) -> Self:
        """Of the corpus and the SFT set alone; earlier and new pairs lie at points float64 (n, k).

        Args:
            tau: where p_sft / p_corpus is below it, the corpus is not covered.
        """
        before = alone.grid + SparseGrid.of(earlier, alone.grid.step)
        after = before + SparseGrid.of(new, alone.grid.step)
        window = Window.around([corpus.grid, after], _REACH * max(corpus.bandwidth, alone.bandwidth))
        first, second = (Field.of(grid, alone.bandwidth, window) for grid in (before, after))
        return cls(Field.of(corpus.grid, corpus.bandwidth, window), first, second, tau)

    def figures(self, by_source: Mapping[str, SparseGrid]) -> dict[str, Any]:
        """Both measures before and after, and what was gained, with intervals; the same of each source."""
        grid, cells = self.corpus.grid, self.corpus.values.size
        resamples = int(np.clip(_CELLS // cells, _FEWEST, _RESAMPLES))
        told = {
            "documents": grid.count,
            "examples": {"before": self.before.grid.count, "after": self.after.grid.count},
            "tau": self.tau,
            "level": LEVEL,
            "resamples": resamples if grid.count >= LEAST_DOCUMENTS else 0,
            # A window that was cut to the middle lacks some of both.
            "outside_window": round(1 - min(self._inside(self.corpus), self._inside(self.after)), 6),
            **self._both(grid, resamples, self._of_corpus),
        }
        told["sources"] = [
            {"source": name, "documents": of.count, **self._both(of, _RESAMPLES, self._of_source)}
            for name, of in by_source.items()
            if of.count
        ]
        return told

    def picture(self) -> bytes:
        """The densities as safetensors; see ``coverage.drawn``."""
        return coverage.drawn({"corpus": self.corpus, "before": self.before, "after": self.after})

    def _inside(self, field: Field) -> float:
        return float(field.values.sum()) * self._cell

    @property
    def _cell(self) -> float:
        return float(self.corpus.grid.step**self.corpus.values.ndim)

    def _both(self, grid: SparseGrid, resamples: int, measures: _Measures) -> dict[str, Any]:
        """Each measure of a grid's documents, and its intervals over resamples of them."""
        centres = grid.centres
        sides = np.stack([side.at(centres) for side in (self.before, self.after)])
        found = measures(grid, sides)
        if grid.count < LEAST_DOCUMENTS:
            return {name: told(values, None) for name, values in found.items()}
        draws = [measures(drawn, sides[:, there]) for drawn, there in resampled(grid, resamples)]
        return {
            name: told(values, np.array([draw[name] for draw in draws])) for name, values in found.items()
        }

    def _of_corpus(self, grid: SparseGrid, sides: Values) -> dict[str, list[float]]:
        """Both measures of the whole corpus, or of a resample, before and after."""
        corpus = Field.of(grid, self.corpus.bandwidth, self.corpus.window)
        return {
            "uncovered": self._uncovered(grid, corpus, sides),
            "divergence": [
                divergence(corpus.values, side.values, self._cell) for side in (self.before, self.after)
            ],
        }

    def _of_source(self, grid: SparseGrid, sides: Values) -> dict[str, list[float]]:
        """How much of a source's documents lies where the corpus as a whole is not covered."""
        return {"uncovered": self._uncovered(grid, self.corpus, sides)}

    def _uncovered(self, grid: SparseGrid, corpus: Field, sides: Values) -> list[float]:
        below = sides < self.tau * corpus.at(grid.centres)
        found: list[float] = (below @ (grid.weights / ONE) / grid.count).tolist()
        return found


def divergence(one: Values, other: Values, cell: float) -> float:
    """Jensen-Shannon divergence in bits of two densities over the same cells: 0 where equal, 1 where apart.

    Args:
        one: float64 of any shape.
        other: of the same shape.
        cell: the volume of a cell.
    """
    middle = (one + other) / 2
    return float((rel_entr(one, middle).sum() + rel_entr(other, middle).sum()) * cell / 2 / np.log(2))


def resampled(grid: SparseGrid, resamples: int) -> Iterator[tuple[SparseGrid, NDArray[np.bool_]]]:
    """Grids in which each document counts a random number of times, and which cells they have.

    The same ones each time.
    """
    random = np.random.default_rng(_SEED)
    for _ in range(resamples):
        drawn = random.poisson(grid.weights / ONE)
        there = drawn > 0
        yield SparseGrid(grid.step, grid.cells[there], drawn[there] * ONE, int(drawn.sum())), there


def by_source(run: Run, step: float) -> dict[str, SparseGrid]:
    """The documents of each of the largest sources on a grid, as ``difference`` has told of them.

    Raises:
        InputError: the difference set has not been made, or a group was not projected.
    """
    names = [told["source"] for told in run.require_manifest("difference").figures["sources"]]
    axes = run.config.density.components
    found = {name: SparseGrid.empty(axes, step) for name in names}
    for facts, table in projected.coordinates(run, "corpus"):
        points = projected.points(table)
        for number, rows in enumerate(_rows(table, facts["source"], names)):
            found[names[number]] = found[names[number]] + SparseGrid.of(points[rows], step)
    return found


def _rows(table: pa.Table, dump: str, names: list[str]) -> list[NDArray[np.bool_]]:
    """Which documents of a shard each source has; without a column of sources the dump is one."""
    if "source" not in table.column_names:
        return [np.full(len(table), name == dump) for name in names]
    codes = pc.index_in(table["source"].cast(pa.string()), pa.array(names, pa.string()))
    numbers = codes.fill_null(-1).to_numpy()
    return [numbers == number for number in range(len(names))]


def told(values: list[float], draws: Values | None) -> dict[str, Any]:
    """Before, after and gained, each as value, low and high; draws are float64 (resamples, 2)."""
    before, after = values
    if draws is None:
        draws = np.empty((0, 2))
    return {
        "before": _interval(before, draws[:, 0], least=0.0),
        "after": _interval(after, draws[:, 1], least=0.0),
        "gained": _interval(before - after, draws[:, 0] - draws[:, 1], least=-1.0),
    }


def _interval(value: float, draws: Values, least: float) -> dict[str, float | None]:
    """The basic bootstrap's: a resample differs from the sample as that does from what it is of.

    It ends where the measure does, at ``least`` and 1.
    """
    if not len(draws):
        return {"value": round(value, 6), "low": None, "high": None}
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "value": round(value, 6),
        "low": round(max(2 * value - float(high), least), 6),
        "high": round(min(2 * value - float(low), 1.0), 6),
    }
