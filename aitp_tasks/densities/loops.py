"""Compiled loops over points of one to three dimensions.

Each point is worked on by itself and in a fixed order of operations, so that no
result depends on how points were split between calls. numba compiles a loop
when it is first called, in about a second; its cache on disk is not used,
because it is pickle.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Points that one thread takes at a time.
_SLICE = 1 << 18
#: Rows that are worked on side by side.
_ROWS = 64


def threads() -> int:
    """How many loops run at the same time: one a core."""
    return len(os.sched_getaffinity(0))


def in_threads(work: Callable[[int, int], Any], count: int, at_a_time: int = _SLICE) -> list[Any]:
    """``work(start, end)`` over slices of ``count`` points, on all cores; the loops leave the GIL."""
    slices = [(start, min(start + at_a_time, count)) for start in range(0, count, at_a_time)]
    if len(slices) < 2:
        return [work(*bounds) for bounds in slices]
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(lambda bounds: work(*bounds), slices))


@njit(nogil=True)
def _spline(fraction: float, weights: Floats) -> None:
    """Cubic B-spline weights of the four cells around a fraction in [0, 1)."""
    rest = 1.0 - fraction
    weights[0] = rest * rest * rest / 6.0
    weights[1] = (4.0 - 6.0 * fraction * fraction + 3.0 * fraction * fraction * fraction) / 6.0
    weights[2] = (4.0 - 6.0 * rest * rest + 3.0 * rest * rest * rest) / 6.0
    weights[3] = fraction * fraction * fraction / 6.0


@njit(nogil=True)
def _stencil(axes: int) -> tuple[Integers, Integers, Floats]:
    """For a point of so many axes: cells touched on each of three, the first of them, and their weights."""
    taps = np.array([4 if axis + axes >= 3 else 1 for axis in range(3)])
    return taps, np.zeros(3, np.int64), np.ones((3, 4))


@njit(nogil=True)
def _place(point: Floats, step: float, low: Integers, first: Integers, weights: Floats) -> None:
    """First cell of the grid that a point touches on each of its axes, and its weights there."""
    unused = 3 - point.shape[0]
    for axis in range(point.shape[0]):
        scaled = point[axis] / step
        base = np.floor(scaled)
        first[unused + axis] = np.int64(base) - 1 - low[axis]
        _spline(scaled - base, weights[unused + axis])


@njit(nogil=True)
def _is_inside(first: Integers, taps: Integers, margin: int, shape: tuple[int, int, int]) -> bool:
    """Whether all touched cells of used axes are at least ``margin`` cells from the border."""
    for axis in range(3):
        if taps[axis] == 4 and (first[axis] < margin or first[axis] + 4 + margin > shape[axis]):
            return False
    return True


@njit(nogil=True)
def spread(points: Floats, step: float, low: Integers, one: float, grid: NDArray[np.int64]) -> None:
    """Add each point's B-spline weights, in units of 1 / ``one``, to a grid.

    ``points``: float64 (n, k). ``low``: int64 (k,), the grid's first cell. ``grid``:
    int64 (n0, n1, n2), its last k axes the points', the others of length 1. Every
    point lies two cells inside.
    """
    taps, first, weights = _stencil(points.shape[1])
    for n in range(points.shape[0]):
        _place(points[n], step, low, first, weights)
        for i in range(taps[0]):
            for j in range(taps[1]):
                both = weights[0, i] * weights[1, j] * one
                for k in range(taps[2]):
                    grid[first[0] + i, first[1] + j, first[2] + k] += np.int64(np.rint(both * weights[2, k]))


@njit(nogil=True)
def gather(
    points: Floats,
    step: float,
    low: Integers,
    margin: int,
    grid: NDArray[np.floating[Any]],
    found: Floats,
) -> None:
    """The sum of the cells around each point, by its B-spline weights, into ``found`` (n,).

    ``grid``: float64 (n0, n1, n2), as ``spread`` has it. Not a number where a point's
    first cell is not at least ``margin`` cells inside.
    """
    taps, first, weights = _stencil(points.shape[1])
    for n in range(points.shape[0]):
        _place(points[n], step, low, first, weights)
        if not _is_inside(first, taps, margin, grid.shape):
            found[n] = np.nan
            continue
        total = 0.0
        for i in range(taps[0]):
            for j in range(taps[1]):
                both = weights[0, i] * weights[1, j]
                for k in range(taps[2]):
                    total += both * weights[2, k] * grid[first[0] + i, first[1] + j, first[2] + k]
        found[n] = total


@njit(nogil=True)
def gaussian_sums(points: Floats, weights: Floats, at: Floats, variance: float) -> Floats:
    """Σ weight · exp(−|x − point|² / 2 variance) at each x of ``at`` (m, k), over ``points`` (n, k)."""
    sums = np.zeros(at.shape[0])
    for n in range(points.shape[0]):
        for m in range(at.shape[0]):
            square = 0.0
            for axis in range(points.shape[1]):
                difference = at[m, axis] - points[n, axis]
                square += difference * difference
            exponent = square / (2.0 * variance)
            if exponent < 700.0:
                sums[m] += weights[n] * np.exp(-exponent)
    return sums


@njit(nogil=True)
def _find(keys: Integers, key: Integers) -> int:
    """Where a key (k,) stands among sorted ones (m, k); -1 where it does not."""
    low, high = 0, keys.shape[0]
    while low < high:
        middle = (low + high) // 2
        before = False
        for axis in range(key.shape[0]):
            if keys[middle, axis] != key[axis]:
                before = keys[middle, axis] < key[axis]
                break
        if before:
            low = middle + 1
        else:
            high = middle
    if low == keys.shape[0]:
        return -1
    for axis in range(key.shape[0]):
        if keys[low, axis] != key[axis]:
            return -1
    return low


@njit(nogil=True)
def blocks_around(keys: Integers, of: Integers) -> Integers:
    """Places int64 (m, 3**k) of the blocks ``of`` (m, k) and of those around them among ``keys``; -1: none.

    ``keys``: int64 (b, k), blocks in rising order.
    """
    axes = of.shape[1]
    found = np.empty((of.shape[0], 3**axes), np.int64)
    key = np.zeros(axes, np.int64)
    for m in range(of.shape[0]):
        for neighbour in range(3**axes):
            rest = neighbour
            for axis in range(axes):
                key[axis] = of[m, axis] + rest % 3 - 1
                rest //= 3
            found[m, neighbour] = _find(keys, key)
    return found


@njit(nogil=True)
def local_sums(
    points: Floats,
    weights: Floats,
    starts: Integers,
    around: Integers,
    at: Floats,
    variance: float,
    fourth: float,
) -> Floats:
    """Σ weight · exp(−|y|² / 2 variance + fourth · Σ yᵢ⁴), y = x − point, at each x of ``at`` (m, k).

    ``points``: float64 (n, k), block by block. ``starts``: int64 (b + 1,), where each
    begins. ``around``: int64 (m, j), the blocks that are summed for each x, -1 for none.
    """
    sums = np.zeros(at.shape[0])
    for m in range(at.shape[0]):
        for place in range(around.shape[1]):
            block = around[m, place]
            if block < 0:
                continue
            for n in range(starts[block], starts[block + 1]):
                square = quartic = 0.0
                for axis in range(at.shape[1]):
                    difference = at[m, axis] - points[n, axis]
                    square += difference * difference
                    quartic += difference * difference * difference * difference
                sums[m] += weights[n] * np.exp(fourth * quartic - square / (2.0 * variance))
    return sums


@njit(nogil=True)
def sums_of_nearest(squares: Floats, logarithms: Floats, variance: float) -> Floats:
    """log Σ exp(logarithm − square / 2 variance) along the rows of (n, k); never overflows or vanishes."""
    sums = np.empty(squares.shape[0])
    for n in range(squares.shape[0]):
        largest = -np.inf
        for k in range(squares.shape[1]):
            largest = max(largest, logarithms[n, k] - squares[n, k] / (2.0 * variance))
        total = 0.0
        for k in range(squares.shape[1]):
            total += np.exp(logarithms[n, k] - squares[n, k] / (2.0 * variance) - largest)
        sums[n] = largest + np.log(total)
    return sums


@njit(nogil=True)
def quadratic_forms(
    values: NDArray[np.float32],
    centre: Floats,
    axes: Floats,
    curvatures: Floats,
    slope: Floats,
    constant: float,
    found: Floats,
) -> None:
    """constant + slope · y + Σ curvature (axis · y)² of y = x − centre, for each row x, into ``found`` (n,).

    ``values``: float32 (n, d). ``axes``: float64 (k, d). The rows of a block lie side by
    side, so that each sum is taken in the order of the columns, whatever the block.
    """
    width = values.shape[1]
    block = np.empty((width, _ROWS))
    dot, total = np.empty(_ROWS), np.empty(_ROWS)
    for start in range(0, values.shape[0], _ROWS):
        rows = min(_ROWS, values.shape[0] - start)
        total[:] = constant
        block[:] = 0.0
        for n in range(rows):
            for j in range(width):
                block[j, n] = values[start + n, j] - centre[j]
        for j in range(width):
            for n in range(_ROWS):
                total[n] += slope[j] * block[j, n]
        for k in range(axes.shape[0]):
            dot[:] = 0.0
            for j in range(width):
                for n in range(_ROWS):
                    dot[n] += axes[k, j] * block[j, n]
            for n in range(_ROWS):
                total[n] += curvatures[k] * dot[n] * dot[n]
        found[start : start + rows] = total[:rows]


@njit(nogil=True)
def project(values: NDArray[np.float32], weights: Floats, offset: Floats, found: Floats) -> None:
    """Rows of ``values`` (n, d) times ``weights`` (k, d), less ``offset`` (k,), into ``found`` (n, k).

    Not a matrix product of BLAS: that rounds a row by its place in the matrix.
    """
    width = values.shape[1]
    whole = width - width % 4
    for n in range(values.shape[0]):
        for k in range(weights.shape[0]):
            a = b = c = d = 0.0
            for j in range(0, whole, 4):
                a += values[n, j] * weights[k, j]
                b += values[n, j + 1] * weights[k, j + 1]
                c += values[n, j + 2] * weights[k, j + 2]
                d += values[n, j + 3] * weights[k, j + 3]
            for j in range(whole, width):
                a += values[n, j] * weights[k, j]
            found[n, k] = (a + b) + (c + d) - offset[k]


@njit(nogil=True)
def sums_of_others(points: Floats, variance: float, reach: float, first: int, found: Floats) -> None:
    """Of points (n, k) from ``first`` on, Σ exp(−d² / 2 variance) over all others, into ``found`` (m,).

    The points lie in the order of their first axis; those farther than ``reach`` count nothing.
    """
    for m in range(found.shape[0]):
        i = first + m
        total = 0.0
        for step in (-1, 1):
            j = i + step
            while 0 <= j < points.shape[0] and abs(points[j, 0] - points[i, 0]) <= reach:
                total += _kernel_between(points, i, j, variance, reach)
                j += step
        found[m] = total


@njit(nogil=True)
def _kernel_between(points: Floats, i: int, j: int, variance: float, reach: float) -> float:
    square = 0.0
    for axis in range(points.shape[1]):
        difference = points[i, axis] - points[j, axis]
        square += difference * difference
    return float(np.exp(-square / (2.0 * variance))) if square <= reach * reach else 0.0


@njit(nogil=True)
def outlast(
    points: Floats,
    crowds: Floats,
    scales: Floats,
    before: Integers,
    after: Integers,
    variance: float,
    reach: float,
    leaving: int,
) -> Integers:
    """Which of points (n, k) leave, int64 (leaving,), one after the other.

    Each time that of the largest ``before``, among those of the largest crowd / scale, among those of the
    largest ``after``. Its kernel is taken from the crowds of those that are left.

    The points lie in the order of their first axis. ``crowds``: float64 (n,), changed in place.
    """
    gone = np.zeros(points.shape[0], np.bool_)
    order = np.empty(leaving, np.int64)
    for number in range(leaving):
        worst = -1
        for i in range(points.shape[0]):
            if gone[i]:
                continue
            if worst < 0 or before[i] > before[worst]:
                worst = i
            elif before[i] == before[worst]:
                mine, other = crowds[i] / scales[i], crowds[worst] / scales[worst]
                if mine > other or (mine == other and after[i] > after[worst]):
                    worst = i
        gone[worst] = True
        order[number] = worst
        for step in (-1, 1):
            j = worst + step
            while 0 <= j < points.shape[0] and abs(points[j, 0] - points[worst, 0]) <= reach:
                crowds[j] = max(crowds[j] - _kernel_between(points, worst, j, variance, reach), 0.0)
                j += step
    return order
