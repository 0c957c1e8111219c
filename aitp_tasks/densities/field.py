"""Gaussian kernel densities from a grid, in time linear in the points.

The grid's weights are convolved with a kernel along each axis, and the
logarithm of the result is interpolated by a cubic spline. Spreading points by
B-splines has widened them; the kernel takes that out, so that an error of
fourth order in cell / bandwidth remains. Weights are positive, so nothing
cancels in the tails. Points far outside the dense window are summed directly.

What is not done: bandwidths per point or per axis.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, spline_filter

from aitp_tasks.densities import loops
from aitp_tasks.densities.grid import ONE, Cells, Points, SparseGrid
from aitp_tasks.errors import InputError

#: Beyond so many bandwidths a point adds less than 1e-17 of its peak.
_REACH = 9.0
#: Cells of a window, 8 bytes each.
_MAX_CELLS = 2**25
_TINY = 1e-300
#: Largest relative error where a density is above 1e-10, at one cell per bandwidth; it falls with the
#: fourth power of the cells (docs/measurements.md).
_ERROR_AT_ONE_CELL = 2.4


def cells_per_bandwidth(max_error: float) -> int:
    """Cells that keep the largest relative error, where a density is above 1e-10, below ``max_error``."""
    return max(4, int(np.ceil((_ERROR_AT_ONE_CELL / max_error) ** 0.25)))


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
        return cls(low, high - low, int(np.ceil(_REACH * bandwidth / grids[0].step)))

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
        values: float64, shape of the window: densities per unit volume.
    """

    grid: SparseGrid
    bandwidth: float
    window: Window
    values: NDArray[np.float64] = field(repr=False)
    _coefficients: NDArray[np.float64] = field(repr=False)

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
        dense = np.zeros(tuple(window.shape))
        inside = window.contains(grid.cells)
        dense[tuple((grid.cells[inside] - window.low).T)] = grid.weights[inside] / ONE
        kernel = _kernel(grid.step, bandwidth)
        for axis in range(dense.ndim):
            dense = convolve1d(dense, kernel, axis=axis, mode="constant")
        dense /= grid.count * grid.step**dense.ndim
        coefficients = spline_filter(np.log(np.maximum(dense, _TINY)), order=3, mode="mirror")
        return cls(grid, bandwidth, window, dense, coefficients)

    @property
    def axes(self) -> list[NDArray[np.float64]]:
        """Coordinates of the window's cells, one float64 array per axis."""
        return [
            self.grid.step * np.arange(low, low + count, dtype=np.float64)
            for low, count in zip(self.window.low, self.window.shape, strict=True)
        ]

    def at(self, points: Points) -> NDArray[np.float64]:
        """Densities float64 (n,) at points (n, k)."""
        found = np.empty(len(points))
        step, low = self.grid.step, self.window.low
        coefficients = self._coefficients.reshape((1,) * (3 - len(low)) + self._coefficients.shape)

        def work(start: int, end: int) -> None:
            some, values = points[start:end], found[start:end]
            loops.interpolate(some, step, low, self.window.margin, coefficients, values)
            outside = np.isnan(values)
            if outside.any():
                values[outside] = self._outside(some[outside])

        loops.in_threads(work, len(points))
        return found

    def _outside(self, points: Points) -> NDArray[np.float64]:
        """Densities at points outside the window, summed over all cells."""
        step = self.grid.step
        # Spreading has added so much to the variance.
        variance = self.bandwidth**2 - step**2 / 3
        sums = loops.gaussian_sums(self.grid.cells * step, self.grid.weights / ONE, points, variance)
        densities: NDArray[np.float64] = sums / (
            self.grid.count * (2 * np.pi * variance) ** (points.shape[1] / 2)
        )
        return densities


def _kernel(step: float, bandwidth: float) -> NDArray[np.float64]:
    """The Gaussian with the points' B-spline weights taken out, sampled at the cells; its sum is 1.

    In Fourier space that is exp(-h²ω²/2) / sinc⁴(ωδ/2). The way back is integrated
    along a line through the saddle point of each sample, where nothing cancels, so
    that the far tail is as exact as the middle.
    """
    reach = int(np.ceil(_REACH * bandwidth / step))
    offsets = np.arange(reach + 1)[:, None] * step
    line = np.linspace(-_REACH, _REACH, 257) / bandwidth
    phase = (line + 1j * offsets / bandwidth**2) * step / 2
    sinc = np.where(phase == 0, 1.0, np.sin(phase) / np.where(phase == 0, 1.0, phase))
    integral = (np.exp(-((line * bandwidth) ** 2) / 2) / sinc**4).real.sum(axis=1)
    half = np.exp(-(offsets[:, 0] ** 2) / (2 * bandwidth**2)) * integral
    kernel = np.concatenate([half[:0:-1], half])
    normalised: NDArray[np.float64] = kernel / kernel.sum()
    return normalised
