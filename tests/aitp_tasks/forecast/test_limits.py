"""Which runs are refused, and what is said of them; through plan, on nights that are made up."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from aitp_tasks import config
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import learned, limits
from aitp_tasks.records.plan import Plan
from aitp_tasks.stages import plan
from tests.aitp_tasks.forecast.conftest import MEASURED, Line, whole

pytestmark = pytest.mark.slow

TOLD: dict[str, Any] = {
    "gpu_hours": 10.0,
    "cost": 25.0,
    "unknown": [],
    "at_most": [],
    "stages": {
        "plan": {"gpu_hours": 0.0},
        "embed": {"gpu_hours": 1.0},
        "rewrite": {"gpu_hours": 4.0},
        "answer": {"gpu_hours": 3.0},
        "finetune": {"gpu_hours": 2.0},
    },
}


@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"max_gpu_hours": 10.0},
        {"max_gpu_hours": 10.000001},
        {"price_per_gpu_hour": 2.5, "max_cost": 25.0},
        {"price_per_gpu_hour": 2.5, "max_cost": 1e9, "max_gpu_hours": 1e9},
    ],
)
def test_a_run_that_takes_no_more_than_it_may_goes_on(limit: dict[str, float]) -> None:
    limits.check(config.Plan(**limit), TOLD)


def test_a_run_that_takes_more_is_refused_with_what_can_be_done() -> None:
    with pytest.raises(InputError) as refused:
        limits.check(config.Plan(max_gpu_hours=9.999), TOLD)
    assert str(refused.value) == (
        "the run would take 10.00 GPU-hours, more than plan.max_gpu_hours=9.999 allows; most of it: "
        "rewrite (4.00 GPU-hours), answer (3.00 GPU-hours), finetune (2.00 GPU-hours). Select fewer "
        "documents (difference.max_documents), train less (finetune.epochs), or raise the limit; `aitp "
        "estimate` tries other settings"
    )
    with pytest.raises(
        InputError, match=r"25.00 EUR, more than plan.max_cost=24 allows; most of it: rewrite"
    ):
        limits.check(config.Plan(max_cost=24, price_per_gpu_hour=2.5, currency="EUR"), TOLD)


def test_what_counts_as_many_as_there_can_be_is_named() -> None:
    told = {**TOLD, "at_most": ["documents below the threshold"]}
    with pytest.raises(
        InputError, match="for want of a figure: documents below the threshold; `aitp estimate"
    ):
        limits.check(config.Plan(max_gpu_hours=1), told)


def test_a_limit_that_cannot_be_checked_does_not_pass_in_silence() -> None:
    told = {**TOLD, "unknown": ["rewrite", "finetune"]}
    limits.check(config.Plan(), told)
    with pytest.raises(InputError) as refused:
        limits.check(config.Plan(max_gpu_hours=99), told)
    assert str(refused.value).startswith(
        "plan.max_gpu_hours=99 cannot be checked: no earlier run of this dataset tells what rewrite, "
        "finetune will take with these models and settings. Run `aitp estimate`"
    )
    # What is known is enough to refuse it.
    with pytest.raises(InputError, match="the run would take at least 10.00 GPU-hours, more than"):
        limits.check(config.Plan(max_gpu_hours=9), told)


@pytest.mark.parametrize("price", [0.0, 0])
def test_what_is_free_is_never_too_dear(price: float) -> None:
    limits.check(config.Plan(max_cost=0, price_per_gpu_hour=price), {**TOLD, "cost": 0.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_cost": 5}, "max_cost=5 is given without price_per_gpu_hour"),
        ({"max_gpu_hours": -1}, "greater than or equal to 0"),
        ({"price_per_gpu_hour": -0.1}, "greater than or equal to 0"),
        ({"max_gpu_hours": float("inf")}, "finite number"),
        ({"max_gpu_hours": float("nan")}, "finite number|greater than or equal"),
        ({"currency": "\x1b[31m"}, "match pattern"),
        ({"currency": "x" * 13}, "at most 12 characters"),
    ],
)
def test_limits_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config.Plan(**settings)


def test_limits_and_prices_decide_no_result(line: Line) -> None:
    run = line.planned("one")
    limited = {"max_gpu_hours": 3, "price_per_gpu_hour": 2, "max_cost": 9, "currency": "€"}
    priced = line.planned("one", plan=limited)
    assert priced.digest == run.digest
    assert priced.config.plan.max_cost == 9
    # A plan of before has none of these.
    before = run.plan.model_dump(mode="json")
    for name in ("max_gpu_hours", "price_per_gpu_hour", "max_cost", "currency"):
        del before["config"]["plan"][name]
    assert Plan.read(json.dumps(before).encode())[1] == run.digest


def test_plan_refuses_a_run_that_is_too_dear_and_lets_the_same_run_pass_when_it_may(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole(line.night("one"))
    line.planned("two")
    priced = {"price_per_gpu_hour": 36.0, "currency": "EUR"}
    result = plan.execute(line.config("two", plan=priced))
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("estimate ")]
    # Half of 12 documents make 12 questions, 6 of them kept, 5 answered; 13 examples are one batch.
    seconds = {"embed": 17 + 13, "rewrite": 42, "score": 36, "answer": 48, "assemble": 2, "finetune": 96}
    total = sum(seconds.values())
    figures, end = f"{total / 3600:.4f} GPU-hours, {total / 100:.2f} EUR, ", " min .. s, by 1 run"
    assert re.fullmatch(f"{re.escape(figures)}.*{end}", result["estimate"])
    for stage, took in seconds.items():
        (row,) = [line.split() for line in lines if line.startswith(f"estimate {stage} ")]
        assert row[-2:] == [f"{took / 3600:.4f}", f"{took / 100:.2f}"]
    assert any("learnt from 1 run; the newest figure is of" in line for line in lines)
    for check in (False, True):
        with pytest.raises(InputError, match=r"more than plan.max_cost=2.5 allows; most of it: finetune"):
            plan.execute(line.config("two", plan={**priced, "max_cost": 2.5}), check)
    assert plan.execute(line.config("two", plan={**priced, "max_cost": 2.6}))["run"] == result["run"]


def test_a_first_run_with_a_limit_needs_a_rehearsal(line: Line) -> None:
    run = line.planned("one")
    assert plan.execute(line.config("one"))["estimate"].startswith(
        "no estimate: no earlier run tells what embed,"
    )
    limited = line.config("one", plan={"max_gpu_hours": 5})
    with pytest.raises(InputError, match=r"plan.max_gpu_hours=5 cannot be checked: no earlier run"):
        plan.execute(limited)
    learned.keep_rehearsed(run, MEASURED)
    assert plan.execute(limited)["estimate"].endswith("by a rehearsal")


def test_a_run_that_is_done_may_cost_nothing(line: Line) -> None:
    whole(line.planned("one"))
    told = plan.execute(line.config("one", plan={"max_gpu_hours": 0}))["estimate"]
    assert told.startswith("nothing is left to do")
