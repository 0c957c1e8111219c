"""Points spread over the cells of a grid, in whole numbers: grids of any shards add exactly.

Every point gives the 4 cells around it on each axis its cubic B-spline weights,
rounded to multiples of 2**-32. Sums of whole numbers do not depend on order or
grouping, so a thousand grids add to the same bits as one. Grids are sparse and
know no border: a document far off costs one cell, not a larger grid.
"""

from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aitp_tasks.densities import loops
from aitp_tasks.errors import InputError

Points = NDArray[np.float64]  # (n, k), k from 1 to 3
Cells = NDArray[np.int64]

#: A weight of one. 2**32 keeps 2**31 points in one cell within 63 bits.
ONE = 2**32
#: Cells per axis of the box around the origin that is spread densely, by dimension.
_BOX = {1: 2**22, 2: 2**12, 3: 2**8}
#: Up to so many cells, each thread has a grid of its own.
_SHARED_CELLS = 2**20
#: Bits of one axis in a cell's key; half of its values lie on either side of 0.
_BITS = 21
_HALF = 2 ** (_BITS - 1)


@dataclass(frozen=True)
class SparseGrid:
    """Weights of points on a grid of k dimensions.

    Attributes:
        step: side of a cell, in projected units.
        cells: int64 (m, k), indices of the occupied cells, in the order of their keys.
        weights: int64 (m,), in units of 2**-32 points.
        count: number of points.
    """

    step: float
    cells: Cells
    weights: NDArray[np.int64]
    count: int

    @property
    def centres(self) -> Points:
        """Coordinates float64 (m, k) of the occupied cells."""
        return np.asarray(self.cells * self.step, np.float64)

    @classmethod
    def empty(cls, axes: int, step: float) -> Self:
        """The grid of no points."""
        return cls(step, np.empty((0, axes), np.int64), np.empty(0, np.int64), 0)

    @classmethod
    def of(cls, points: Points, step: float) -> "SparseGrid":
        """Spread points (n, k).

        Raises:
            InputError: a point is not finite, or lies more than a million cells from 0.
        """
        axes = points.shape[1]
        if not len(points):
            return cls.empty(axes, step)
        farthest = _farthest(points, step)
        half = _BOX[axes] // 2
        if farthest < (half - 2) * step:
            return _dense(points, step)
        near = (np.abs(points) < (half - 2) * step).all(axis=1)
        return _dense(points[near], step) + _scattered(points[~near], step)

    def __add__(self, other: "SparseGrid") -> "SparseGrid":
        if self.step != other.step or self.cells.shape[1] != other.cells.shape[1]:
            raise InputError(
                f"a grid of {self.cells.shape[1]} dimensions and cell {self.step} does not add to one of "
                f"{other.cells.shape[1]} and {other.step}: run density anew"
            )
        cells = np.concatenate([self.cells, other.cells])
        weights = np.concatenate([self.weights, other.weights])
        return SparseGrid(self.step, *_sum_by_cell(cells, weights), self.count + other.count)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        arrays = {
            "step": np.array([self.step]),
            "cells": np.ascontiguousarray(self.cells),
            "weights": self.weights,
            "count": np.array([self.count]),
        }
        data: bytes = save(arrays)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Back from safetensors."""
        arrays = load(data)
        return cls(float(arrays["step"][0]), arrays["cells"], arrays["weights"], int(arrays["count"][0]))


def _farthest(points: Points, step: float) -> float:
    """Largest size of a coordinate, found without a copy of the points."""
    farthest = float(max(points.max(), -points.min()))
    if not farthest < (_HALF - 2) * step:
        raise InputError(
            f"a projected document lies {farthest:.6g} from the corpus mean; a grid of cell {step} reaches "
            f"to {(_HALF - 2) * step:g}: raise density.bandwidth or look for broken vectors"
        )
    return farthest


def _dense(points: Points, step: float) -> SparseGrid:
    """Points in the box around the origin, on dense grids around them."""
    axes = points.shape[1]
    if not len(points):
        return SparseGrid.empty(axes, step)
    low = np.floor(points.min(axis=0) / step).astype(np.int64) - 1
    shape = np.floor(points.max(axis=0) / step).astype(np.int64) + 3 - low
    free: SimpleQueue[NDArray[np.int64]] = SimpleQueue()
    for _ in range(loops.threads() if shape.prod() <= _SHARED_CELLS else 1):
        free.put(np.zeros((1,) * (3 - axes) + tuple(shape), np.int64))

    def work(start: int, end: int) -> None:
        grid = free.get()
        loops.spread(points[start:end], step, low, float(ONE), grid)
        free.put(grid)

    loops.in_threads(work, len(points))
    total = free.get()
    while not free.empty():
        total += free.get()
    total = total.reshape(tuple(shape))
    occupied = np.nonzero(total)
    return SparseGrid(step, *_sum_by_cell(np.stack(occupied, axis=1) + low, total[occupied]), len(points))


def _scattered(points: Points, step: float) -> SparseGrid:
    """Points anywhere, each on a small grid of its own."""
    axes = points.shape[1]
    offsets = np.stack(np.unravel_index(np.arange(4**axes), (4,) * axes), axis=1)
    first = np.floor(points / step).astype(np.int64) - 1
    own = np.zeros((len(points),) + (1,) * (3 - axes) + (4,) * axes, np.int64)
    for number in range(len(points)):
        loops.spread(points[number : number + 1], step, first[number], float(ONE), own[number])
    cells = (first[:, None] + offsets).reshape(-1, axes)
    return SparseGrid(step, *_sum_by_cell(cells, own.reshape(-1)), len(points))


def _sum_by_cell(cells: Cells, weights: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
    """Each cell once, in the order of the keys, with its summed weight."""
    axes = cells.shape[1]
    shifts = _BITS * np.arange(axes)[::-1]
    keys = ((cells + _HALF) << shifts).sum(axis=1)
    unique, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, weights)
    found = ((unique[:, None] >> shifts) & (2**_BITS - 1)) - _HALF
    return found, sums
