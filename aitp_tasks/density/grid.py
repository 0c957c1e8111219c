"""Gaussian kernel densities in the plane, in time linear in the points.

Points are spread over the cells of a grid with cubic B-spline weights, the grid
is convolved with a sampled Gaussian along each axis, and the logarithm of the
result is interpolated. Cubic weights widen every point by the same variance,
cell² / 3, wherever it lies in its cell; so much is taken out of the kernel, and
what remains is an error of fourth order. Weights are positive, so nothing
cancels in the tails, and whole numbers, so grids add exactly: in any order, in
any grouping, to the same bits. Grids are sparse; they know no border.

What is not done: more than two dimensions, bandwidths per point.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, map_coordinates

from aitp_tasks.errors import InputError

Points = NDArray[np.float64]  # (n, 2)
#: A weight of one. 2**32 keeps 2**31 points in one cell within 63 bits.
_ONE = 2**32
#: Beyond so many bandwidths a point adds less than 1e-17 of its peak.
_REACH = 9.0
_BATCH = 1 << 20
#: Cells of a dense grid, 8 bytes each.
_MAX_CELLS = 1 << 28
_TINY = 1e-300


@dataclass(frozen=True)
class SparseGrid:
    """Points spread over cells.

    Attributes:
        step: side of a cell, in projected units.
        cells: int64 (m, 2), indices of the occupied cells, sorted.
        weights: int64 (m,), in units of 2**-32 points.
        count: number of points.
    """

    step: float
    cells: NDArray[np.int64]
    weights: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, points: Points, step: float) -> Self:
        """Spread points (n, 2)."""
        empty = cls(step, np.empty((0, 2), np.int64), np.empty(0, np.int64), 0)
        for start in range(0, len(points), _BATCH):
            empty = empty + cls._of_batch(points[start : start + _BATCH], step)
        return empty

    @classmethod
    def _of_batch(cls, points: Points, step: float) -> Self:
        scaled = points / step
        base = np.floor(scaled).astype(np.int64)
        fraction = scaled - base
        along_x, along_y = _spline_weights(fraction[:, 0]), _spline_weights(fraction[:, 1])
        cells = np.concatenate([base + np.array([i - 1, j - 1]) for i in range(4) for j in range(4)])
        weights = np.concatenate(
            [np.rint(along_x[i] * along_y[j] * _ONE).astype(np.int64) for i in range(4) for j in range(4)]
        )
        return cls(step, *_sum_by_cell(cells, weights), len(points))

    def __add__(self, other: "SparseGrid") -> Self:
        if self.step != other.step:
            raise InputError(f"grids of cell {self.step} and {other.step} do not add: run density anew")
        cells = np.concatenate([self.cells, other.cells])
        weights = np.concatenate([self.weights, other.weights])
        return type(self)(self.step, *_sum_by_cell(cells, weights), self.count + other.count)


@dataclass(frozen=True)
class DensityField:
    """A kernel density on a dense grid.

    Attributes:
        origin: float64 (2,), coordinates of the first cell's point.
        step: side of a cell.
        values: float64 (nx, ny), densities per unit area; they integrate to 1.
    """

    origin: NDArray[np.float64]
    step: float
    values: NDArray[np.float64]

    @classmethod
    def of(cls, grid: SparseGrid, bandwidth: float, low: NDArray[np.int64], high: NDArray[np.int64]) -> Self:
        """Density of a grid's points over the cells from ``low`` to ``high``, both (2,).

        Raises:
            InputError: the grid has no points, or the window has too many cells.
        """
        if grid.count == 0:
            raise InputError("a density of no points is not defined: the set is empty")
        shape = high - low + 1
        if np.prod(shape.astype(float)) > _MAX_CELLS:
            raise InputError(
                f"the projected points span {shape[0]} × {shape[1]} cells: "
                "lower density.cells_per_bandwidth or raise density.bandwidth"
            )
        dense = np.zeros(tuple(shape))
        inside = ((grid.cells >= low) & (grid.cells <= high)).all(axis=1)
        at = grid.cells[inside] - low
        dense[at[:, 0], at[:, 1]] = grid.weights[inside] / _ONE
        kernel = _kernel(grid.step, bandwidth)
        for axis in (0, 1):
            dense = convolve1d(dense, kernel, axis=axis, mode="constant")
        dense /= grid.count * grid.step**2
        origin: NDArray[np.float64] = (low * grid.step).astype(np.float64)
        return cls(origin, grid.step, dense)

    def at(self, points: Points) -> NDArray[np.float64]:
        """Densities float64 (n,) at points (n, 2) inside the grid."""
        places = ((points - self.origin) / self.step).T
        logarithms = np.log(np.maximum(self.values, _TINY))
        densities: NDArray[np.float64] = np.exp(map_coordinates(logarithms, places, order=3, mode="nearest"))
        return densities


def window(grids: list[SparseGrid], bandwidth: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest cell window, (2,) and (2,), that holds all grids' points and a bandwidth around them."""
    cells = np.concatenate([grid.cells for grid in grids])
    margin = int(np.ceil(bandwidth / grids[0].step)) + 4
    return cells.min(axis=0) - margin, cells.max(axis=0) + margin


def _kernel(step: float, bandwidth: float) -> NDArray[np.float64]:
    """Sampled Gaussian whose variance, with the B-spline's, is the bandwidth's."""
    variance = bandwidth**2 - step**2 / 3
    reach = int(np.ceil(_REACH * bandwidth / step))
    offsets = np.arange(-reach, reach + 1) * step
    kernel = np.exp(-(offsets**2) / (2 * variance))
    normalised: NDArray[np.float64] = kernel / kernel.sum()
    return normalised


def _spline_weights(fraction: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cubic B-spline weights of the four cells around each fraction in [0, 1)."""
    rest = 1 - fraction
    return [
        rest**3 / 6,
        (4 - 6 * fraction**2 + 3 * fraction**3) / 6,
        (4 - 6 * rest**2 + 3 * rest**3) / 6,
        fraction**3 / 6,
    ]


def _sum_by_cell(
    cells: NDArray[np.int64], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    unique, inverse = np.unique(cells, axis=0, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse.reshape(-1), weights)
    return unique, sums
