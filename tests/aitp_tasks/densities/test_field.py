"""Grid densities against the exact sum of all pairs, in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from aitp_tasks.densities.field import Field, Window, cells_per_bandwidth
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.errors import InputError


def exact(points: Points, at: Points, bandwidth: float) -> NDArray[np.float64]:
    """All pairs."""
    kernels = [np.exp(-((points - x) ** 2).sum(axis=1) / (2 * bandwidth**2)).sum() for x in at]
    return np.array(kernels) / (len(points) * (2 * np.pi * bandwidth**2) ** (points.shape[1] / 2))


def field_of(points: Points, bandwidth: float, error: float, at: Points) -> Field:
    grid = SparseGrid.of(points, bandwidth / cells_per_bandwidth(error, bandwidth, points.shape[1]))
    window = Window.around([grid, SparseGrid.of(at, grid.step)], bandwidth)
    return Field.of(grid, bandwidth, window)


@pytest.mark.parametrize("error", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 30, 3000])
def test_the_error_asked_for_is_kept_down_to_1e_10(axes: int, count: int, error: float) -> None:
    random = np.random.default_rng(count)
    points = random.normal(size=(count, axes)) * [4.5, 3.0][:axes]
    at = random.normal(size=(2000, axes)) * [6.0, 5.0][:axes]
    truth = exact(points, at, 1.0)
    above = truth > 1e-10
    assert above.sum() > 500
    found = field_of(points, 1.0, error, at).at(at)
    assert np.abs(found[above] / truth[above] - 1).max() < error


@pytest.mark.parametrize("bandwidth", [0.3, 2.0])
def test_in_three_dimensions_and_other_bandwidths(bandwidth: float) -> None:
    random = np.random.default_rng(5)
    points = random.normal(size=(400, 3)) * bandwidth * 2
    at = random.normal(size=(500, 3)) * bandwidth * 3
    truth = exact(points, at, bandwidth)
    above = truth > 1e-10
    found = field_of(points, bandwidth, 1e-3, at).at(at)
    assert np.abs(found[above] / truth[above] - 1).max() < 1e-3


def test_points_beyond_the_window_have_their_density() -> None:
    random = np.random.default_rng(6)
    points = np.concatenate([random.normal(size=(500, 2)), [[5000.0, 5000.0], [5001.0, 5000.0]]])
    truth = exact(points, points, 1.0)
    field = field_of(points, 1.0, 1e-3, points)
    assert field.window.shape.prod() <= 2**25
    assert np.abs(field.at(points) / truth - 1).max() < 2e-3


def test_a_density_integrates_to_one() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 2)) * 4
    grid = SparseGrid.of(points, 0.125)
    window = Window.around(
        [grid, SparseGrid.of(points * 2 + 5, 0.125), SparseGrid.of(points * 2 - 5, 0.125)], 1.0
    )
    assert Field.of(grid, 1.0, window).values.sum() * 0.125**2 == pytest.approx(1.0, abs=1e-6)


def test_how_points_are_cut_into_calls_changes_no_bit() -> None:
    random = np.random.default_rng(7)
    points = random.normal(size=(1000, 2))
    field = field_of(points, 1.0, 1e-3, points)
    pieces = [field.at(piece) for piece in np.split(points, [1, 7, 500, 993])]
    assert np.array_equal(np.concatenate(pieces), field.at(points))


def test_an_empty_set_has_no_density() -> None:
    empty = SparseGrid.empty(2, 0.1)
    with pytest.raises(InputError, match="the set is empty"):
        Window.around([empty], 1.0)
    window = Window.around([SparseGrid.of(np.zeros((1, 2)), 0.1)], 1.0)
    with pytest.raises(InputError, match="the set is empty"):
        Field.of(empty, 1.0, window)


def test_a_grid_too_coarse_for_the_bandwidth_is_refused() -> None:
    grid = SparseGrid.of(np.zeros((1, 2)), 0.5)
    with pytest.raises(InputError, match="too coarse for a bandwidth of 0.5"):
        Field.of(grid, 0.5, Window.around([grid], 0.5))


@pytest.mark.parametrize("max_error", [1e-2, 1e-3, 1e-4])
def test_between_lone_groups_the_error_is_kept(max_error: float) -> None:
    points = np.array([[0.0], [13.0]])
    grid = SparseGrid.of(points, 1.0 / cells_per_bandwidth(max_error, 1.0, points.shape[1]))
    field = Field.of(grid, 1.0, Window.around([grid], 1.0))
    between = np.linspace(0.0, 13.0, 501)[:, None]
    exact = np.exp(-((between - points.T) ** 2) / 2).mean(axis=1) / np.sqrt(2 * np.pi)
    assert np.abs(field.at(between) / exact - 1).max() < max_error
