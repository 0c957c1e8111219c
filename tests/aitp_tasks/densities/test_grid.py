"""Grids add exactly, whatever their shards; far points cost little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.densities.grid import ONE, SparseGrid
from aitp_tasks.errors import InputError


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.lists(st.integers(1, 199), max_size=6))
def test_grids_of_any_shards_add_to_the_same_bits(seed: int, axes: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(200, axes)) * random.choice([0.1, 3.0, 400.0])
    shards = np.split(points, sorted(set(cuts)))
    random.shuffle(shards)  # type: ignore[arg-type]
    whole = SparseGrid.of(points, 0.125)
    total = SparseGrid.empty(axes, 0.125)
    for shard in shards:
        total = total + SparseGrid.of(shard, 0.125)
    assert total.count == whole.count == 200
    assert np.array_equal(total.cells, whole.cells)
    assert np.array_equal(total.weights, whole.weights)
    assert abs(total.weights.sum() / ONE - 200) < 1e-6


def test_weights_have_the_points_mean_and_a_third_of_a_cell_more_variance() -> None:
    points = np.random.default_rng(0).normal(size=(5000, 2)) * [2.0, 1.0] + [3.0, -1.0]
    grid = SparseGrid.of(points, 0.25)
    shares = grid.weights / grid.weights.sum()
    places = grid.cells * 0.25
    mean = shares @ places
    assert mean == pytest.approx(points.mean(axis=0), abs=1e-6)
    assert shares @ (places - mean) ** 2 == pytest.approx(points.var(axis=0) + 0.25**2 / 3, abs=1e-6)


def test_points_on_several_threads_add_to_the_same_bits() -> None:
    points = np.random.default_rng(1).normal(size=(700_000, 2))
    whole = SparseGrid.of(points, 0.125)
    halves = SparseGrid.of(points[:100_000], 0.125) + SparseGrid.of(points[100_000:], 0.125)
    assert np.array_equal(whole.cells, halves.cells)
    assert np.array_equal(whole.weights, halves.weights)


def test_a_far_point_costs_a_few_cells() -> None:
    grid = SparseGrid.of(np.array([[0.0, 0.0], [90_000.0, -90_000.0]]), 0.125)
    assert len(grid.cells) <= 32


def test_survives_storage() -> None:
    grid = SparseGrid.of(np.random.default_rng(2).normal(size=(50, 3)), 0.25)
    again = SparseGrid.from_bytes(grid.to_bytes())
    assert (again.step, again.count) == (grid.step, grid.count)
    assert np.array_equal(again.cells, grid.cells)
    assert np.array_equal(again.weights, grid.weights)


def test_grids_of_another_geometry_do_not_add() -> None:
    with pytest.raises(InputError, match=r"2 dimensions and cell 0.1 does not add to one of 2 and 0.2"):
        SparseGrid.empty(2, 0.1) + SparseGrid.empty(2, 0.2)
    with pytest.raises(InputError, match="does not add to one of 3"):
        SparseGrid.empty(2, 0.1) + SparseGrid.empty(3, 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_points_that_no_grid_can_hold_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="from the corpus mean"):
        SparseGrid.of(np.array([[0.0, value]]), 0.125)
