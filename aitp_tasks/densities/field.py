"""Gaussian kernel densities from a grid, in time linear in the points.

Points are spread over the grid's cells by cubic B-splines, the cells convolved with
a kernel along each axis, and the density at a point gathered from the cells around
it by the same B-splines. Spreading and gathering both widen the kernel; the kernel
takes that out, so that an error of fourth order in cell / bandwidth remains. Every
number in this is positive: nothing cancels, and nothing rings, neither in the tails
nor between two groups of points.

A kernel ends somewhere, where densities are far below ``FLOOR``. Beyond, they are
summed over the cells that are nearest: less exact, but falling with the distance,
without end. Where the window cannot hold all points, those outside of it are summed
directly over the cells within a kernel's reach, or, where these are many, by a small
window.

What is not done: bandwidths per point or per axis.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from aitp_tasks.densities import loops
from aitp_tasks.densities.grid import ONE, Cells, Points, SparseGrid
from aitp_tasks.errors import InputError

Values = NDArray[np.float64]

#: Densities above this have the relative error that was asked for; those below are told to be below.
FLOOR = 1e-10
#: What all kernels together may lack of a density where they end.
_LACKING = 1e-4 * FLOOR
#: Densities that are gathered: those below are summed over the nearest cells.
_GATHERED = 1e-3 * FLOOR
#: Largest relative error, at one cell a bandwidth, where the density falls by exp(-2π) a bandwidth; it grows
#: with the fourth power of cell and slope (docs/measurements.md).
_ERROR_AT_ONE_CELL = 4.4
_LEAST_CELLS = 4
#: Cells of a window, 8 bytes each.
_MAX_CELLS = 2**25
#: Outside the window: cells that a density is always summed over; pairs of them and points around that are
#: summed rather than that a small window is made; points that are summed at a time.
_SUMMED, _SUMMED_PAIRS, _SUMMED_AT_A_TIME = 1 << 14, 1 << 27, 1 << 12
#: Small windows, at most (2 MB each); cells by which they are larger than their block at each end.
_MOST_WINDOWS, _RIM = 512, 2
#: Cells that a density below the gathered ones is summed over, and points that are summed at a time.
_NEAREST, _AT_A_TIME = 32, 1 << 16


def cells_per_bandwidth(max_error: float, bandwidth: float, axes: int) -> int:
    """Cells that keep the largest relative error, where a density is above ``FLOOR``, below ``max_error``.

    The error is largest where the density is least: there it falls most steeply. The
    smaller the bandwidth, the more bandwidths away from a point that is.
    """
    slope = np.sqrt(2 * np.log(max(_peak(bandwidth**2, axes) / FLOOR, 1.0)))
    needed = slope / (2 * np.pi) * (_ERROR_AT_ONE_CELL / max_error) ** 0.25
    return max(_LEAST_CELLS, int(np.ceil(needed)))


@dataclass(frozen=True)
class Window:
    """The cells that a dense field covers.

    Attributes:
        low: int64 (k,), its first cell.
        shape: int64 (k,), its cells per axis.
        margin: cells at its border whose densities lack what lies outside.
    """

    low: Cells
    shape: Cells
    margin: int = 0

    @classmethod
    def around(cls, grids: list[SparseGrid], bandwidth: float) -> Self:
        """The smallest that holds all grids' points; cut to the middle where that is too large."""
        cells = np.concatenate([grid.cells for grid in grids])
        if not len(cells):
            raise InputError("a density of no points is not defined: the set is empty")
        margin = int(np.ceil(bandwidth / grids[0].step)) + 4
        low, high = cells.min(axis=0) - margin, cells.max(axis=0) + margin + 1
        if (high - low).astype(float).prod() <= _MAX_CELLS:
            return cls(low, high - low)
        half = int(_MAX_CELLS ** (1 / cells.shape[1])) // 2
        low, high = np.clip(low, -half, half - 8), np.clip(high, 8 - half, half)
        # What lies outside reaches so far in.
        return cls(low, high - low, _reach(bandwidth, grids[0]))

    def contains(self, cells: Cells) -> NDArray[np.bool_]:
        """Which cells (n, k) lie inside; bool (n,)."""
        inside: NDArray[np.bool_] = np.all((cells >= self.low) & (cells < self.low + self.shape), axis=1)
        return inside


@dataclass(frozen=True)
class Field:
    """The kernel density of a grid's points.

    Attributes:
        grid: the points.
        bandwidth: in projected units.
        window: where the field is dense.
    """

    grid: SparseGrid
    bandwidth: float
    window: Window
    #: float64, shape of the window: what densities are gathered from.
    _cells: NDArray[np.floating[Any]] = field(repr=False)

    @classmethod
    def of(cls, grid: SparseGrid, bandwidth: float, window: Window) -> Self:
        """Density of a grid's points over a window.

        Raises:
            InputError: the grid has no points, or its cells are too large for the bandwidth.
        """
        if grid.count == 0:
            raise InputError("a density of no points is not defined: the set is empty")
        if grid.step > bandwidth / 2:
            raise InputError(
                f"a grid of cell {grid.step} is too coarse for a bandwidth of {bandwidth}: "
                "raise density.bandwidth"
            )
        cells = _filled(grid, window)
        kernel = _kernel(grid.step, bandwidth, _reach(bandwidth, grid))
        for axis in range(cells.ndim):
            cells = convolve1d(cells, kernel, axis=axis, mode="constant")
        return cls(grid, bandwidth, window, cells)

    @cached_property
    def values(self) -> Values:
        """Densities float64 at the window's cells, in its shape."""
        found: Values = self._cells.astype(np.float64, copy=False)
        for axis in range(found.ndim):
            found = convolve1d(found, np.array([1.0, 4.0, 1.0]) / 6, axis=axis, mode="constant")
        return found

    @property
    def axes(self) -> list[Values]:
        """Coordinates of the window's cells, one float64 array per axis."""
        return [
            self.grid.step * np.arange(low, low + count, dtype=np.float64)
            for low, count in zip(self.window.low, self.window.shape, strict=True)
        ]

    def at(self, points: Points) -> Values:
        """Densities float64 (n,) at points (n, k), wherever they lie.

        Above ``FLOOR`` with the relative error of the grid; below it, less and less exact
        and still falling with the distance, until float64 ends.
        """
        found = self._gathered(points)
        outside = np.isnan(found)
        if outside.any():
            found[outside] = self._outskirts.at(points[outside])
        far = found < _GATHERED
        if far.any():
            found[far] = self._tail.at(points[far])
        return found

    def _gathered(self, points: Points) -> Values:
        """Densities from the cells around each point; not a number outside the window."""
        found = np.empty(len(points))
        step, low, margin = self.grid.step, self.window.low, self.window.margin
        cells = self._cells.reshape((1,) * (3 - len(low)) + self._cells.shape)

        def work(start: int, end: int) -> None:
            loops.gather(points[start:end], step, low, margin, cells, found[start:end])

        loops.in_threads(work, len(points))
        return found

    @cached_property
    def _outskirts(self) -> "_Outskirts":
        return _Outskirts(self.grid, self.bandwidth, self.window)

    @cached_property
    def _tail(self) -> "_Tail":
        return _Tail(self.grid, self.bandwidth)


class _Outskirts:
    """Densities outside a window, at a cost for each point that does not grow with the grid.

    Cells lie in blocks whose sides are a kernel's reach. A point is summed over the
    cells in its block and those around it, where these are few. Where they are many,
    its block gets a small window of its own. Which of both depends on the grid alone,
    so that a density does not depend on what else is asked for.
    """

    def __init__(self, grid: SparseGrid, bandwidth: float, window: Window) -> None:
        """Sort the cells into blocks.

        Raises:
            InputError: too many blocks would need a window of their own.
        """
        self._bandwidth = bandwidth
        self._side = _reach(bandwidth, grid) + _RIM + 2
        keys = grid.cells // self._side
        order = np.lexsort(keys.T[::-1])
        ordered = keys[order]
        new = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
        self._keys, self._starts = ordered[new], np.append(new, len(ordered))
        self._grid = replace(grid, cells=grid.cells[order], weights=grid.weights[order])
        self._weights = np.add.reduceat(self._grid.weights, new) / ONE
        self._windows: dict[tuple[int, ...], Field] = {}
        corners = (self._keys * self._side, (self._keys + 1) * self._side)
        outside = self._keys[~np.logical_and(*(window.contains(corner) for corner in corners))]
        self._require_few(int(self._many(loops.blocks_around(self._keys, outside)).sum()))

    def _many(self, around: Cells) -> NDArray[np.bool_]:
        """Whether a window costs less than sums over blocks (n, 3**k), -1 for none; bool (n,)."""
        cells = np.append(np.diff(self._starts), 0)[around].sum(axis=1)
        points = np.append(self._weights, 0)[around].sum(axis=1)
        many: NDArray[np.bool_] = (cells > _SUMMED) & (cells * points > _SUMMED_PAIRS)
        return many

    def _require_few(self, windows: int) -> None:
        if windows > _MOST_WINDOWS:
            raise InputError(
                f"{windows} regions of {self._side} cells a side hold many documents beyond the window of "
                f"{_MAX_CELLS} cells, more than {_MOST_WINDOWS}: "
                f"raise density.bandwidth={self._bandwidth:g}, or lower density.components"
            )

    def at(self, points: Points) -> Values:
        """Densities float64 (n,).

        Raises:
            InputError: too many blocks would need a window of their own.
        """
        keys = np.floor(points / (self._side * self._grid.step)).astype(np.int64)
        around = loops.blocks_around(self._keys, keys)
        many = self._many(around)
        found = np.empty(len(points))
        found[~many] = self._summed(points[~many], around[~many])
        for key in np.unique(keys[many], axis=0):
            here = many & (keys == key).all(axis=1)
            found[here] = self._window(key)._gathered(points[here])
        return found

    def _summed(self, points: Points, around: Cells) -> Values:
        """Sums over cells, by the kernel that takes out that points were spread over them."""
        grid, found = self._grid, np.empty(len(points))
        variance = _variance(grid, self._bandwidth)
        fourth = (grid.step / (2 * variance)) ** 4 / 45
        centres, weights = grid.centres, grid.weights / ONE

        def work(start: int, end: int) -> None:
            found[start:end] = loops.local_sums(
                centres, weights, self._starts, around[start:end], points[start:end], variance, fourth
            )

        loops.in_threads(work, len(points), _SUMMED_AT_A_TIME)
        return found * _peak(variance, points.shape[1]) / grid.count

    def _window(self, key: Cells) -> Field:
        """The field of one block, from the cells that reach into it."""
        name = tuple(key.tolist())
        if name not in self._windows:
            self._require_few(len(self._windows) + 1)
            self._windows[name] = self._made(key)
        return self._windows[name]

    def _made(self, key: Cells) -> Field:
        reach = _reach(self._bandwidth, self._grid)
        blocks = loops.blocks_around(self._keys, key[None])[0]
        some = np.concatenate(
            [np.arange(self._starts[block], self._starts[block + 1]) for block in blocks if block >= 0]
        )
        part = replace(self._grid, cells=self._grid.cells[some], weights=self._grid.weights[some])
        inner = Window(key * self._side - _RIM, np.full(len(key), self._side + 2 * _RIM))
        cells = _filled(part, Window(inner.low - reach, inner.shape + 2 * reach))
        # Of all sums along an axis only those inside are wanted: a product of matrices.
        kernel = _kernel(part.step, self._bandwidth, reach)
        rows = np.arange(inner.shape[0])[:, None]
        band = np.zeros((inner.shape[0], inner.shape[0] + 2 * reach))
        band[rows, rows + np.arange(len(kernel))] = kernel
        for axis in range(cells.ndim):
            summed = np.tensordot(band, cells, axes=(1, axis)).astype(np.float64, copy=False)
            cells = np.moveaxis(summed, 0, axis)
        return Field(part, self._bandwidth, inner, np.ascontiguousarray(cells, np.float32))


class _Tail:
    """Sums over the few nearest cells, where all others add little and nothing is exact anyhow."""

    def __init__(self, grid: SparseGrid, bandwidth: float) -> None:
        from scipy.spatial import KDTree

        self._variance = _variance(grid, bandwidth)
        self._peak = np.log(_peak(self._variance, grid.cells.shape[1]) / grid.count)
        # A weight may be rounded to nothing.
        weighty = grid.weights > 0
        self._tree = KDTree(grid.centres[weighty])
        self._logarithms = np.log(grid.weights[weighty] / ONE)
        self._nearest = np.arange(1, min(_NEAREST, len(self._logarithms)) + 1)

    def at(self, points: Points) -> Values:
        """Densities float64 (n,); 0 where float64 has no smaller number."""
        found = [np.empty(0)]
        for start in range(0, len(points), _AT_A_TIME):
            some = points[start : start + _AT_A_TIME]
            distances, places = self._tree.query(some, self._nearest, workers=loops.threads())
            sums = loops.sums_of_nearest(distances**2, self._logarithms[places], self._variance)
            # What is summed up here is known to be less.
            found.append(np.minimum(np.exp(sums + self._peak), _GATHERED))
        return np.concatenate(found)


def _filled(grid: SparseGrid, window: Window) -> Values:
    """The grid's weights over a window, so that a kernel whose sum is 1 makes densities of them."""
    cells = np.zeros(tuple(window.shape))
    inside = window.contains(grid.cells)
    scale = ONE * grid.count * grid.step**cells.ndim
    cells[tuple((grid.cells[inside] - window.low).T)] = grid.weights[inside] / scale
    return cells


def _variance(grid: SparseGrid, bandwidth: float) -> float:
    """Of the kernel around each cell: spreading has added a third of a cell's square to the points'."""
    return bandwidth**2 - grid.step**2 / 3


def _peak(variance: float, axes: int) -> float:
    """The largest density of a kernel."""
    return float((2 * np.pi * variance) ** (-axes / 2))


def _reach(bandwidth: float, grid: SparseGrid) -> int:
    """Cells after which a kernel ends: the smaller it is, the higher its peak."""
    peak = _peak(bandwidth**2, grid.cells.shape[1])
    bandwidths = float(np.sqrt(2 * np.log(max(peak / _LACKING, np.e))))
    return int(np.ceil(bandwidths * bandwidth / grid.step))


def _kernel(step: float, bandwidth: float, reach: int) -> Values:
    """The Gaussian with both B-splines taken out, sampled at the cells; its sum is 1.

    In Fourier space that is exp(-h²ω²/2) / sinc⁸(ωδ/2). The way back is integrated
    along a line through the saddle point of each sample, where nothing cancels, so
    that the far tail is as exact as the middle.
    """
    offsets = np.arange(reach + 1)[:, None] * step
    line = np.linspace(-9, 9, 257) / bandwidth
    phase = (line + 1j * offsets / bandwidth**2) * step / 2
    sinc = np.where(phase == 0, 1.0, np.sin(phase) / np.where(phase == 0, 1.0, phase))
    integral = (np.exp(-((line * bandwidth) ** 2) / 2) / sinc**8).real.sum(axis=1)
    half = np.exp(-(offsets[:, 0] ** 2) / (2 * bandwidth**2)) * integral
    kernel = np.concatenate([half[:0:-1], half])
    normalised: Values = kernel / kernel.sum()
    return normalised
