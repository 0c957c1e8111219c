"""Seconds of a process."""

from aitp_tasks.forecast.costs import Cost, seconds_per_step


def test_the_first_step_is_left_out() -> None:
    assert seconds_per_step([{"seconds": 9.0}, {"seconds": 11.0}, {"seconds": 14.0}]) == 2.5
    assert seconds_per_step([{"seconds": 9.0}]) == 9.0


def test_validations_are_no_steps_and_their_time_is() -> None:
    step, validated = {"loss": 2.0}, {"eval_loss": 2.0}
    history = [{**step, "seconds": 9.0}, {**step, "seconds": 11.0}, {**validated, "seconds": 12.0}]
    assert seconds_per_step(history) == 3.0
    assert seconds_per_step([history[0], {**validated, "seconds": 10.0}]) == 10.0


def test_a_cost_never_starts_below_zero() -> None:
    assert Cost.measured(10.0, 4, 2.0) == Cost(2.0, 2.0)
    assert Cost.measured(10.0, 4, 3.0) == Cost(0.0, 3.0)
