"""Which pairs stay where there is not room for all, and which documents could win a place.

How rare a place is says its crowd: the kernels of all examples that reach it, those of
the SFT set and of all pairs but the one whose place it is, over the density of all
dumps that the line has seen. The pair in the largest crowd leaves, is taken out of
the crowds of those that are left, and so on: of many pairs of one region, the last
ones are rare again. No region is emptied because it was full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.config import OrderKey
from aitp_tasks.densities import loops
from aitp_tasks.densities.field import Field
from aitp_tasks.densities.grid import Points
from aitp_tasks.records.pair_texts import Pair

Values = NDArray[np.float64]

#: A kernel ends after so many bandwidths, where 1e-14 of it is left.
_REACH = 8.0
#: Pairs that one thread takes at a time.
_AT_A_TIME = 1 << 10


@dataclass(frozen=True)
class Crowds:
    """What a place's crowd is made of.

    Attributes:
        sft: density of the SFT set alone.
        corpus: density of all dumps of the line.
    """

    sft: Field
    corpus: Field

    def at(self, points: Points, examples: Field) -> Values:
        """Crowds float64 (n,) at points (n, k), by all ``examples``, of which the SFT set is a part."""
        return _over(examples.at(points) * examples.grid.count / self._peak(points), self.corpus.at(points))

    def among(self, points: Points) -> Values:
        """Crowds float64 (n,) of pairs at points (n, k), each by the SFT set and all others."""
        order = _along(points)
        kernels = np.empty(len(points))
        kernels[order] = self._kernels(points[order])
        return _over(kernels, self.corpus.at(points))

    def leaving(self, points: Points, before: Sequence[Any], after: Sequence[Any], count: int) -> list[int]:
        """Which of n pairs leave, one after the other.

        Args:
            points: float64 (n, k).
            before: what counts before the crowd; the largest leaves first.
            after: what decides between equal crowds; the largest leaves first.
            count: how many leave.
        """
        order = _along(points)
        ordered = np.ascontiguousarray(points[order])
        crowds, scales = self._kernels(ordered), self.corpus.at(ordered)
        # Where no corpus is, nothing needs to be covered.
        crowds[scales == 0], scales[scales == 0] = np.inf, 1.0
        ranks = [_ranks(keys)[order] for keys in (before, after)]
        bandwidth = self.sft.bandwidth
        found = loops.outlast(ordered, crowds, scales, *ranks, bandwidth**2, _REACH * bandwidth, count)
        return [int(order[place]) for place in found]

    def _kernels(self, points: Points) -> Values:
        """Kernels, in units of one's peak, at points in the order of their first axis."""
        ordered, found = np.ascontiguousarray(points), np.empty(len(points))
        bandwidth = self.sft.bandwidth

        def work(start: int, end: int) -> None:
            loops.sums_of_others(ordered, bandwidth**2, _REACH * bandwidth, start, found[start:end])

        loops.in_threads(work, len(points), _AT_A_TIME)
        return found + self.sft.at(points) * self.sft.grid.count / self._peak(points)

    def _peak(self, points: Points) -> float:
        return float((2 * np.pi * self.sft.bandwidth**2) ** (-points.shape[1] / 2))


def leaving(
    order: Sequence[OrderKey], pairs: Sequence[Pair], points: Points, crowds: Crowds, count: int
) -> list[int]:
    """Which of n pairs leave, one after the other, by an order of keys.

    Args:
        order: what counts first, and what decides where that ties.
        pairs: each with its scores, its ``age`` (the place of its version in the line) and id.
        points: float64 (n, k), where they lie; not a number where a pair has no vector.
        crowds: of which rarity follows.
        count: how many leave.
    """
    placed = ~np.isnan(points).any(axis=1)
    # What has no place covers none.
    unplaced = [int(place) for place in np.flatnonzero(~placed)[:count]]
    some = np.flatnonzero(placed)
    keys = [_keys(name, [pairs[place] for place in some]) for name in order if name is not OrderKey.RARITY]
    keys.append([(str(pairs[place]["pair_id"]),) for place in some])
    first = list(order).index(OrderKey.RARITY) if OrderKey.RARITY in order else len(keys)
    before, after = (_joined(part, len(some)) for part in (keys[:first], keys[first:]))
    left = min(count - len(unplaced), len(some))
    placed_ones = crowds.leaving(points[some], before, after, left)
    return [*unplaced, *(int(some[place]) for place in placed_ones)]


def winnable(
    own: Values, documents: NDArray[np.int64], per_document: float, over: int = 0
) -> tuple[int, float]:
    """How many places of earlier pairs those of documents can win, and in which crowd a document cannot.

    Args:
        own: crowds of the earlier pairs, in ascending order, float64 (m,).
        documents: how many documents lie in a smaller crowd than each of them, int64 (m,).
        per_document: pairs that a document gives.
        over: so many of the earlier pairs leave anyhow.
    """
    # The more pairs are to be given up, the fewer documents are rarer than the last of them.
    places = len(own) - over - np.arange(len(own))
    possible = np.flatnonzero((documents * per_document >= places) & (places > 0))
    if not len(possible):
        return 0, 0.0
    place = int(possible[0])
    return int(places[place]), float(own[place])


def _keys(name: OrderKey, pairs: Sequence[Pair]) -> list[tuple[Any, ...]]:
    """What a key compares, of each pair: the largest leaves first."""
    if name is OrderKey.AGE:
        return [(-int(pair["age"]),) for pair in pairs]
    return [(-(pair["quality"] or 0), -(pair["difficulty"] or 0)) for pair in pairs]


def _joined(keys: Sequence[Sequence[tuple[Any, ...]]], count: int) -> list[tuple[Any, ...]]:
    return [sum(found, ()) for found in zip(*keys, strict=True)] if keys else [()] * count


def _ranks(keys: Sequence[Any]) -> NDArray[np.int64]:
    """The place of each key among all distinct ones."""
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return np.array([places[key] for key in keys], np.int64)


def _along(points: Points) -> NDArray[np.int64]:
    """The order of points along their axes."""
    order: NDArray[np.int64] = np.lexsort(points.T[::-1])
    return order


def _over(kernels: Values, corpus: Values) -> Values:
    found: Values = np.divide(kernels, corpus, out=np.full(len(kernels), np.inf), where=corpus > 0)
    return found
