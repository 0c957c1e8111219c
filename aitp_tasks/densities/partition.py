"""The plane cut into regions, each of which holds as many of some points.

A cut goes across the axis along which the points of a piece spread the most, where it leaves
as many of them on either side as there are regions to come there; the pieces are cut in turn.
The outermost regions have no end, so that any other point lies in exactly one region too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.densities.grid import Points

#: The quarters between which points are taken to spread: no order of points changes them, nor do far ones.
_INNER, _QUARTERS = (1, 3), 4


@dataclass(frozen=True)
class Partition:
    """Regions, numbered from 0.

    Attributes:
        cuts: axis and coordinate of each cut, a piece before the pieces that it is cut into, the lower side
            first; of n regions there are n - 1.
    """

    cuts: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, points: Points, regions: int) -> Self:
        """Cut the plane so that each region holds as many points as the others, or one more.

        Equal points lie in one region, so that regions may be empty where points are few or the same.

        Args:
            points: float64 (n, k), at least one.
            regions: how many there are to be.
        """
        return cls(tuple(_cuts(points, regions)))

    @classmethod
    def told(cls, cuts: Iterable[Sequence[float]]) -> Self:
        """From what JSON holds of ``cuts``."""
        return cls(tuple((int(axis), float(at)) for axis, at in cuts))

    @property
    def regions(self) -> int:
        """How many there are."""
        return len(self.cuts) + 1

    def at(self, points: Points) -> NDArray[np.int64]:
        """The region of each point, int64 (n,), at points float64 (n, k)."""
        found = np.zeros(len(points), np.int64)
        self._place(points, np.arange(len(points)), found, 0, 0, self.regions)
        return found

    def boxes(self, axes: int = 3) -> list[tuple[tuple[float, float], ...]]:
        """The lower and the upper end of each region along each axis; infinite where it has none."""
        return list(self._boxes(0, self.regions, ((-np.inf, np.inf),) * axes))

    def _boxes(
        self, cut: int, regions: int, box: tuple[tuple[float, float], ...]
    ) -> Iterator[tuple[tuple[float, float], ...]]:
        if regions == 1:
            yield box
            return
        (axis, at), low = self.cuts[cut], regions // 2
        (least, most), before, after = box[axis], box[:axis], box[axis + 1 :]
        yield from self._boxes(cut + 1, low, (*before, (least, at), *after))
        yield from self._boxes(cut + low, regions - low, (*before, (at, most), *after))

    def _place(
        self,
        points: Points,
        some: NDArray[np.int64],
        found: NDArray[np.int64],
        cut: int,
        first: int,
        regions: int,
    ) -> None:
        """Place some of the points in one of a number of regions, the first of which has a number."""
        if regions == 1:
            found[some] = first
            return
        axis, at = self.cuts[cut]
        low, below = regions // 2, points[some, axis] < at
        self._place(points, some[below], found, cut + 1, first, low)
        self._place(points, some[~below], found, cut + low, first + low, regions - low)


def _cuts(points: Points, regions: int) -> Iterator[tuple[int, float]]:
    """The cuts of one piece; of one without points, all at 0, so that they part nothing that is there."""
    if regions == 1:
        return
    low = regions // 2
    axis, at = _cut(points, low, regions) if len(points) else (0, 0.0)
    yield axis, at
    below = points[:, axis] < at
    yield from _cuts(points[below], low)
    yield from _cuts(points[~below], regions - low)


def _cut(points: Points, low: int, regions: int) -> tuple[int, float]:
    """Axis and coordinate; where axes spread alike, the first."""
    ordered = np.sort(points, axis=0)
    first, last = (ordered[place * (len(ordered) - 1) // _QUARTERS] for place in _INNER)
    axis = int(np.argmax(last - first))
    return axis, float(ordered[len(ordered) * low // regions, axis])
