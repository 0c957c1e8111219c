"""What follows from a curve, beside going through it step by step."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.training import curve
from aitp_tasks.training.job import Outcome


@given(st.lists(st.integers(0, 4), max_size=12))
def test_the_best_and_how_long_ago_it_was(losses: list[int]) -> None:
    history: list[dict[str, Any]] = []
    best, waited = None, 0
    for number, loss in enumerate(losses, 1):
        history += [{"step": 5 * number, "loss": 9.0}, {"step": 5 * number, "eval_loss": float(loss)}]
        if best is None or loss < best[1]:
            best, waited = (5 * number, float(loss)), 0
        else:
            waited += 1
        points = curve.of(history)
        assert (curve.best(points), curve.since_best(points)) == (best, waited)
    assert curve.best(curve.of(history)) == best
    assert len(curve.of(history)) == len(losses)


def test_an_outcome_tells_of_the_curve_and_of_an_early_end() -> None:
    points = [curve.Point(2, 3.00004), curve.Point(4, 2.0), curve.Point(6, 2.5)]
    told = Outcome.of([4.0] * 6, points, 10)
    assert (told.eval_loss_first, told.eval_loss_best, told.eval_loss_last, told.best_step) == (
        3.0,
        2.0,
        2.5,
        4,
    )
    assert (told.steps, told.planned_steps) == (6, 10)
    plain = Outcome.of([4.0] * 6, (), 6)
    assert (plain.planned_steps, plain.eval_loss_best, plain.best_step) == (None, None, None)
