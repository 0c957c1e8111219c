"""What densities say of regions, on sets whose overlap is known."""

import numpy as np
import pytest

from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.selection import regions

STEP = 0.25
RANDOM = np.random.default_rng(0)
HERE = RANDOM.normal(size=(2000, 2))
FAR = HERE + np.array([30.0, 0.0])


def fields(*sets: Points) -> list[Field]:
    grids = [SparseGrid.of(points, STEP) for points in sets]
    window = Window.around(grids, 1.0)
    return [Field.of(grid, 1.0, window) for grid in grids]


def test_what_no_example_is_near_is_not_covered() -> None:
    corpus, sft = fields(np.concatenate([HERE, FAR[:500]]), HERE)
    assert regions.uncovered(corpus, sft, tau=0.5) == pytest.approx(0.2, abs=1e-4)
    assert regions.uncovered(corpus, corpus, tau=0.5) == 0
    assert regions.uncovered(sft, corpus, tau=1e9) == 1


def test_documents_that_a_corpus_never_had_lie_outside() -> None:
    now, before = fields(np.concatenate([HERE, FAR[:500]]), HERE)
    assert regions.outside(now, before) == pytest.approx(0.2, abs=0.01)
    assert regions.outside(before, before) == 0
    assert regions.outside(before, now) == 0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_distance_is_the_share_that_has_moved(share: float, expected: float) -> None:
    moved = int(share * len(HERE))
    now, before = fields(np.concatenate([FAR[:moved], HERE[moved:]]), HERE)
    assert regions.distance(now, before) == pytest.approx(expected, abs=0.02)


def test_one_axis_and_three_are_measured_alike() -> None:
    for axes in (1, 3):
        points = RANDOM.normal(size=(300, axes))
        now, before = fields(points, points + 20.0)
        assert regions.distance(now, before) == pytest.approx(1.0, abs=1e-3)
        assert regions.outside(now, before) == 1
