"""What new pairs gain, against sums over all documents and a bootstrap that draws documents one by one."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.errors import InputError
from aitp_tasks.selection import gain
from aitp_tasks.selection.gain import Sides
from tests.aitp_tasks.selection.coverage_cases import CASES, Case, total

STEP = 0.125
RANDOM = np.random.default_rng(3)
HERE = RANDOM.normal(size=(400, 2))
THERE = RANDOM.normal(size=(100, 2)) + np.array([9.0, 0.0])
NONE: Points = np.empty((0, 2))


def sides(corpus: Points, sft: Points, earlier: Points = NONE, new: Points = NONE, tau: float = 0.5) -> Sides:
    grids = [SparseGrid.of(points, STEP) for points in (corpus, sft)]
    window = Window.around(grids, 1.0)
    return Sides.of(*(Field.of(grid, 1.0, window) for grid in grids), earlier, new, tau)


def exact(points: Points, at: Points) -> NDArray[np.float64]:
    """The kernel density of some points, summed over all of them."""
    distances = ((at[:, None] - points[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-distances / 2).mean(axis=1) / (2 * np.pi))


def plane(*sets: Points) -> tuple[Points, float]:
    """Places all over what the sets reach, and the area that each stands for."""
    everything, step = np.concatenate(sets), 0.2
    axes = [
        np.arange(low - 8, high + 8, step)
        for low, high in zip(everything.min(0), everything.max(0), strict=True)
    ]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1), step**2


@pytest.fixture(autouse=True)
def all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain, "_RESAMPLES", 200)
    monkeypatch.setattr(gain, "_FEWEST", 40)


@pytest.mark.parametrize("new", [NONE, THERE[:1], THERE[:40]], ids=["none", "one", "forty"])
def test_the_divergence_is_that_of_exact_densities(new: Points) -> None:
    corpus = np.concatenate([HERE, THERE])
    found = sides(corpus, HERE[:150], new=new).figures({})["divergence"]
    places, area = plane(corpus)
    p = exact(corpus, places) * area
    for name, examples in (("before", HERE[:150]), ("after", np.concatenate([HERE[:150], new]))):
        expected = jensenshannon(p, exact(examples, places) * area, base=2) ** 2
        assert found[name]["value"] == pytest.approx(expected, abs=2e-4)
    assert found["gained"]["value"] == pytest.approx(
        found["before"]["value"] - found["after"]["value"], abs=2e-6
    )


def test_what_is_not_covered_is_the_share_of_documents_where_the_ratio_is_below_tau() -> None:
    corpus, sft, new = np.concatenate([HERE, THERE]), HERE[:150], THERE[:40]
    found = sides(corpus, sft, new=new).figures({})["uncovered"]
    p = exact(corpus, corpus)
    for name, examples in (("before", sft), ("after", np.concatenate([sft, new]))):
        expected = float(np.mean(exact(examples, corpus) < 0.5 * p))
        # A document at the border lies partly on either side.
        assert found[name]["value"] == pytest.approx(expected, abs=0.02)
    assert found["before"]["value"] == pytest.approx(0.2, abs=0.02)
    assert found["after"]["value"] < 0.05


def test_intervals_are_those_of_a_bootstrap_that_draws_documents() -> None:
    corpus, sft, new = np.concatenate([HERE, THERE]), HERE[:150], THERE[:10]
    found = sides(corpus, sft, new=new).figures({})
    places, area = plane(corpus)
    kernels = np.exp(-((places[:, None] - corpus[None]) ** 2).sum(axis=2) / 2) / (2 * np.pi) * area
    sides_exact = [exact(points, places) * area for points in (sft, np.concatenate([sft, new]))]
    random = np.random.default_rng(11)
    drawn = []
    for _ in range(300):
        counts = np.bincount(random.integers(0, len(corpus), len(corpus)), minlength=len(corpus))
        p = kernels @ counts / counts.sum()
        drawn.append([jensenshannon(p, q, base=2) ** 2 for q in sides_exact])
    values = np.array(drawn)
    columns = {"before": values[:, 0], "after": values[:, 1], "gained": values[:, 0] - values[:, 1]}
    for name, column in columns.items():
        told: dict[str, Any] = found["divergence"][name]
        assert told["low"] < told["value"] < told["high"]
        expected = float(np.quantile(column, 0.975) - np.quantile(column, 0.025))
        assert told["high"] - told["low"] == pytest.approx(expected, rel=0.25)


def test_nothing_new_gains_nothing() -> None:
    found = sides(HERE, HERE[:50], earlier=THERE[:5]).figures({"all": SparseGrid.of(HERE, STEP)})
    for told in (found, *found["sources"]):
        assert told["uncovered"]["gained"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["divergence"]["gained"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["examples"] == {"before": 55, "after": 55}


def test_sets_that_are_equal_and_sets_that_are_apart() -> None:
    equal = sides(HERE, HERE).figures({})
    assert equal["divergence"]["before"]["value"] == pytest.approx(0, abs=1e-9)
    assert equal["uncovered"]["before"]["value"] == 0
    apart = sides(HERE, HERE + 40.0).figures({})
    assert apart["divergence"]["before"]["value"] == pytest.approx(1, abs=1e-5)
    assert apart["uncovered"]["before"]["value"] == 1
    assert apart["outside_window"] == pytest.approx(0, abs=1e-5)


def test_more_documents_make_an_interval_narrower() -> None:
    random = np.random.default_rng(5)
    widths = []
    for count in (200, 3200):
        told = sides(random.normal(size=(count, 2)), HERE[:50] + 1.0).figures({})["divergence"]["before"]
        widths.append(told["high"] - told["low"])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


@pytest.mark.parametrize("count", [1, gain.LEAST_DOCUMENTS - 1])
def test_of_few_documents_no_interval_is_told(count: int) -> None:
    found = sides(HERE[:count], HERE).figures({})
    assert found["resamples"] == 0
    assert found["uncovered"]["before"] == {
        "value": pytest.approx(found["uncovered"]["before"]["value"]),
        "low": None,
        "high": None,
    }


def test_each_source_is_told_of_by_itself() -> None:
    sources = {name: SparseGrid.of(points, STEP) for name, points in (("near", HERE), ("far", THERE))}
    empty = SparseGrid.of(NONE, STEP)
    corpus = np.concatenate([HERE, THERE])
    found = sides(corpus, HERE[:150], new=THERE[:40]).figures(sources | {"none": empty})
    near, far = found["sources"]
    assert (near["source"], near["documents"], far["source"], far["documents"]) == ("near", 400, "far", 100)
    assert near["uncovered"]["before"]["value"] < 0.02
    assert far["uncovered"]["before"]["value"] == 1
    assert far["uncovered"]["after"]["value"] < 0.1
    whole = 0.8 * near["uncovered"]["before"]["value"] + 0.2 * far["uncovered"]["before"]["value"]
    assert found["uncovered"]["before"]["value"] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_one_axis_and_three_are_measured_alike(axes: int) -> None:
    points = np.random.default_rng(1).normal(size=(300, axes))
    grids = [SparseGrid.of(some, 0.5) for some in (points, points + 20.0)]
    window = Window.around(grids, 1.0)
    fields = [Field.of(grid, 1.0, window) for grid in grids]
    found = Sides.of(*fields, np.empty((0, axes)), points[:100], 0.5).figures({})
    assert found["divergence"]["before"]["value"] == pytest.approx(1, abs=1e-3)
    assert found["divergence"]["after"]["value"] < 0.7
    assert found["resamples"] >= 40


#: Cells so far apart that no kernel reaches the next: each density is its cell's count.
APART = 40.0
#: A cell of a grid holds 2**31 documents at most.
TOO_MANY = {"huge counts"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["name"] not in TOO_MANY], ids=lambda case: case["name"]
)
def test_cases_of_somebody_who_had_not_read_the_code(case: Case) -> None:
    def placed(counts: list[int]) -> Points:
        return np.repeat(np.arange(len(counts)) * APART, counts)[:, None].astype(float)

    corpus = total(case["corpus"], len(case["sft"]))
    grids = {name: SparseGrid.of(placed(counts), STEP) for name, counts in case["corpus"].items()}
    if not sum(corpus) or not sum(case["sft"]):
        # Such a run is refused before.
        with pytest.raises(InputError, match="the set is empty"):
            sides(placed(corpus), placed(case["sft"]), new=placed(case["pairs"]))
        return
    found = sides(
        placed(corpus), placed(case["sft"]), NONE[:, :1], placed(case["pairs"]), case["tau"]
    ).figures(grids)
    for number, side in enumerate(("before", "after")):
        assert found["uncovered"][side]["value"] == pytest.approx(case["below"][number], abs=1e-6)
        assert found["divergence"][side]["value"] == pytest.approx(case["js_bits"][number], abs=1e-5)
        for source in found["sources"]:
            expected = case["below_by_source"][source["source"]][number]
            assert source["uncovered"][side]["value"] == pytest.approx(expected, abs=1e-6)
    assert [source["source"] for source in found["sources"]] == [
        name for name, counts in case["corpus"].items() if sum(counts)
    ]
