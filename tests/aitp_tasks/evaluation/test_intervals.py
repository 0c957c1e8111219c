"""Differences of losses, against all resamples by hand where there are few."""

import itertools
import tracemalloc
import warnings

import numpy as np
import pytest

from aitp_tasks.evaluation import intervals
from aitp_tasks.evaluation.intervals import FEWEST, Difference, between
from tests.aitp_tasks.evaluation.bootstrap_cases import CASES, HUGE, PROPERTIES, Case, Huge, Property
from tests.aitp_tasks.evaluation.bootstrap_cases import _made as made


def _made(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    hard = random.gamma(2.0, 1.0, n)
    return hard + random.normal(-0.05, 0.1, n), hard


def test_the_interval_is_that_of_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "FEWEST", 2)
    first, second = _made(6)
    found = between(first, second)
    each = first - second
    means = np.array([each[list(chosen)].mean() for chosen in itertools.product(range(6), repeat=6)])
    assert found.mean == pytest.approx(each.mean(), abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    spread = means.std()
    assert abs(found.low - np.quantile(means, 0.025)) < 0.05 * spread
    assert abs(found.high - np.quantile(means, 0.975)) < 0.05 * spread


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        found = between(*_made(60, seed))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= -0.05 <= found.high
    # 57 are expected; 49 is four standard deviations below.
    assert covered >= 49


def test_what_is_hard_for_both_does_not_count() -> None:
    first, second = _made(200)
    found = between(first, second)
    assert found.high is not None
    assert found.high < 0
    # Not in pairs, the examples' own spread hides the difference.
    unpaired = between(first, np.random.default_rng(1).permutation(second))
    assert unpaired.high is not None
    assert unpaired.high > 0


def test_the_order_of_the_examples_decides_nothing() -> None:
    first, second = _made(50)
    order = np.random.default_rng(3).permutation(50)
    assert between(first, second) == between(first[order], second[order])


def test_it_shrinks_with_the_number_of_examples() -> None:
    widths = []
    for n in (50, 800):
        found = between(*_made(n))
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.0), (-0.25, -0.25), (0.5, 0.5)])
def test_equal_differences_have_an_interval_of_no_width(shift: float, expected: float) -> None:
    second = np.arange(30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = between(second + shift, second)
    assert (found.mean, found.low, found.high, found.why) == (expected, expected, expected, "")


def test_too_few_examples_have_no_interval_and_it_is_said_why() -> None:
    none, one = between(np.empty(0), np.empty(0)), between(np.array([1.0]), np.array([1.5]))
    assert (none.n, none.mean, none.low, none.high) == (0, None, None, None)
    assert none.why == "there is no example"
    assert (one.n, one.mean, one.low, one.high) == (1, -0.5, None, None)
    assert one.why == f"1 examples are fewer than {FEWEST}: too few to resample"
    assert between(*_made(FEWEST - 1)).low is None
    assert between(*_made(FEWEST)).low is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_told(bad: float) -> None:
    first, second = _made(30)
    first[7] = bad
    found = between(first, second)
    assert (found.n, found.mean, found.low) == (30, None, None)
    assert found.why == "1 of 30 losses are not finite"


def _of(first: list[float], second: list[float]) -> Difference:
    return between(np.array(first, np.float64), np.array(second, np.float64))


#: Losses are numbers of an array, and never texts.
_NUMBERS = [case for case in CASES if case["name"] != "a string among the losses"]


@pytest.mark.parametrize("case", _NUMBERS, ids=lambda case: case["name"])
def test_as_an_outsider_would_resample(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "FEWEST", 2)
    first, second = case["first"], case["second"]
    if case["answer"] == "refused":
        try:
            found = _of(first, second)
        except ValueError:
            return
        assert found.mean is None
        assert "losses are not finite" in found.why
        return
    found = _of(first, second)
    if case["mean"] is None:
        assert found.mean is None
        return
    assert found.mean == pytest.approx(case["mean"], rel=1e-12, abs=1e-16)
    if case["answer"] == "mean only":
        assert found.low is None
        return
    assert case["low_band"]
    assert case["high_band"]
    assert found.low is not None
    assert found.high is not None
    slack = 1e-9 * max(1.0, abs(case["mean"]))
    for bound, band in ((found.low, case["low_band"]), (found.high, case["high_band"])):
        assert band[0] - slack <= bound <= band[1] + slack
    if case["excludes_zero"] is not None:
        assert (found.high < 0 or found.low > 0) is case["excludes_zero"]


@pytest.mark.parametrize("wanted", PROPERTIES, ids=lambda wanted: wanted["name"])
def test_what_an_outsider_holds_to_be_true(wanted: Property) -> None:
    before, after = (
        _of(wanted[one], wanted[other])  # type: ignore[literal-required]
        for one, other in (("first", "second"), ("first_after", "second_after"))
    )
    numbers = [value for found in (before, after) for value in (found.mean, found.low, found.high)]
    mean, low, high, mean_after, low_after, high_after = map(float, numbers)  # type: ignore[arg-type]
    width, width_after = high - low, high_after - low_after
    match wanted["name"]:
        case "models swapped":
            expected = [-mean, -high, -low]
        case "one shifted":
            expected = [mean + 3, low + 3, high + 3]
        case "both scaled":
            expected = [number / np.log(2) for number in (mean, low, high)]
        case "only one side permuted":
            assert mean_after == pytest.approx(mean, abs=1e-12)
            assert width_after >= 5 * width
            return
        case "sixteen times the data":
            assert mean_after == pytest.approx(mean, abs=1e-12)
            assert width / 4 == pytest.approx(width_after, rel=0.2)
            return
        case _:
            expected = [mean, low, high]
            assert wanted["name"] != "no true difference" or low <= 0 <= high
    assert mean_after == pytest.approx(expected[0], abs=1e-12)
    loose = wanted["tolerance"] * width if wanted["tolerance"] > 1e-6 else 1e-12
    assert [low_after, high_after] == pytest.approx(expected[1:], abs=loose)


@pytest.mark.parametrize(("huge", "resamples"), [(HUGE[0], 200), (HUGE[1], 9999)], ids=["huge", "usual"])
def test_many_examples_take_little_memory(
    huge: Huge, resamples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "_RESAMPLES", resamples)
    first, second = made(huge["n"], huge["mean"], huge["spread"], huge["seed"])
    tracemalloc.start()
    found = _of(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e9
    spread = 1.96 * huge["spread"] / huge["n"] ** 0.5
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.2)
    assert found.high < 0
