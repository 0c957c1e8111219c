"""Grid densities against the exact sum, and their additivity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aitp_tasks.density.grid import DensityField, SparseGrid, window
from aitp_tasks.errors import InputError

Points = NDArray[np.float64]


def exact(points: Points, at: Points, bandwidth: float) -> NDArray[np.float64]:
    """All pairs, in float64."""
    squares = ((at[:, None] - points[None]) ** 2).sum(axis=-1)
    kernels = np.exp(-squares / (2 * bandwidth**2)).sum(axis=1)
    density: NDArray[np.float64] = kernels / (2 * np.pi * bandwidth**2 * len(points))
    return density


def two_sets(seed: int) -> tuple[Points, Points]:
    random = np.random.default_rng(seed)
    corpus = random.normal(size=(3000, 2)) * [4.5, 3.0]
    return corpus, random.normal(size=(800, 2)) * [2.0, 1.0] + [5.0, 1.0]


@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relative_error_is_below_a_thousandth_down_to_1e_10(bandwidth: float, seed: int) -> None:
    corpus, sft = two_sets(seed)
    step = bandwidth / 8
    grids = [SparseGrid.of(points, step) for points in (corpus, sft)]
    low, high = window(grids, bandwidth)
    for points, grid in zip((corpus, sft), grids, strict=True):
        truth = exact(points, corpus, bandwidth)
        found = DensityField.of(grid, bandwidth, low, high).at(corpus)
        above = truth > 1e-10
        assert above.sum() > 1000
        assert np.abs(found[above] / truth[above] - 1).max() < 1e-3


def test_a_density_integrates_to_one() -> None:
    corpus, _ = two_sets(0)
    grid = SparseGrid.of(corpus, 0.125)
    low, high = window([grid], 12.0)
    assert DensityField.of(grid, 1.0, low, high).values.sum() * 0.125**2 == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 199), max_size=6))
def test_grids_of_any_shards_add_to_the_same_bits(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(200, 2)) * 3
    shards = np.split(points, sorted(set(cuts)))
    random.shuffle(shards)  # type: ignore[arg-type]
    whole = SparseGrid.of(points, 0.125)
    total = SparseGrid.of(shards[0], 0.125)
    for shard in shards[1:]:
        total = total + SparseGrid.of(shard, 0.125)
    assert total.count == whole.count
    assert np.array_equal(total.cells, whole.cells)
    assert np.array_equal(total.weights, whole.weights)


def test_grids_of_another_geometry_do_not_add() -> None:
    with pytest.raises(InputError, match="do not add"):
        SparseGrid.of(np.zeros((1, 2)), 0.1) + SparseGrid.of(np.zeros((1, 2)), 0.2)


def test_an_empty_set_has_no_density() -> None:
    grid = SparseGrid.of(np.empty((0, 2)), 0.1)
    with pytest.raises(InputError, match="the set is empty"):
        DensityField.of(grid, 1.0, np.array([0, 0]), np.array([1, 1]))


def test_points_that_span_too_much_are_refused() -> None:
    grid = SparseGrid.of(np.array([[0.0, 0.0], [1e6, 1e6]]), 0.1)
    low, high = window([grid], 1.0)
    with pytest.raises(InputError, match="raise density.bandwidth"):
        DensityField.of(grid, 1.0, low, high)
