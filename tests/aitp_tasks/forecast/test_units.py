"""Processes, the devices that they hold, and when they end."""

from dataclasses import replace

import pytest

from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.units import Units, makespan, units
from aitp_tasks.forecast.work import Done, Places, Sizes, forecast
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.forecast.conftest import MEASURED, SIZES

ANYWHERE = Places(float("inf"), 732_000)


@pytest.mark.parametrize(
    ("seconds", "slots", "end"),
    [
        ([], 2, 0.0),
        ([3.0, 3.0, 3.0], 1, 9.0),
        ([3.0, 3.0, 3.0], 2, 6.0),
        ([1.0, 5.0, 1.0, 1.0], 2, 5.0),
        ([4.0, 2.0], 8, 4.0),
    ],
)
def test_units_start_in_order_as_slots_become_free(seconds: list[float], slots: int, end: float) -> None:
    assert makespan(seconds, slots) == end


def test_time_and_gpu_hours(configure: Configure) -> None:
    config = configure(
        difference={"max_documents": 1000, "documents_per_part": 500},
        engine={"model": "/model", "engine_args": {"tensor_parallel_size": 2}},
        finetune={"model": "/model", "processes": 4, "max_steps": 100},
    )
    expected = forecast(config, SIZES, replace(MEASURED, below=1.0), Places(float("inf"), 1000))
    stages = units(
        config,
        SIZES,
        expected,
        replace(MEASURED, devices={"rewrite": 2, "score": 2, "answer": 2, "finetune": 4}),
    )
    assert stages["embed"].seconds == (65.0, 45.0, 11.0)
    assert stages["embed"].hours(1) * 3600 == pytest.approx(121)
    assert stages["embed"].hours(2) * 3600 == pytest.approx(65)
    assert stages["embed"].gpu_hours * 3600 == pytest.approx(121)
    assert stages["rewrite"].seconds == (530.0, 530.0)
    # Two GPUs a unit: on three, one unit at a time.
    assert stages["rewrite"].hours(3) * 3600 == pytest.approx(1060)
    assert stages["rewrite"].hours(4) * 3600 == pytest.approx(530)
    assert stages["rewrite"].gpu_hours * 3600 == pytest.approx(2120)
    assert stages["finetune"].gpu_hours * 3600 == pytest.approx(4 * 360)
    assert stages["density"].gpu_hours == 0
    assert stages["density"].hours(1) * 3600 == pytest.approx(6)
    on_processors = units(config, SIZES, expected, MEASURED)
    assert on_processors["finetune"].gpu_hours * 3600 == pytest.approx(360)


def test_the_devices_of_endpoints_are_not_counted(configure: Configure) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "served_model": "model"}
    config = configure(
        encoder={"model": "/model", "endpoint": endpoint}, engine={"model": "/model", "endpoint": endpoint}
    )
    expected = forecast(config, SIZES, replace(MEASURED, below=1.0), ANYWHERE)
    stages = units(config, SIZES, expected, MEASURED)
    assert [name for name, stage in stages.items() if stage.gpu_hours] == ["finetune"]
    assert stages["rewrite"].hours(2) > 0


def test_an_evaluation_costs_where_something_is_held_out(configure: Configure) -> None:
    config = configure(evaluate={"held_out": 0.1}, finetune={"model": "/model", "max_steps": 100})
    expected = forecast(config, SIZES, MEASURED, ANYWHERE)
    measured = replace(MEASURED, costs={**MEASURED.costs, "evaluate": Cost(20.0, 2.0)})
    stages = units(config, SIZES, expected, measured)
    assert stages["evaluate"].seconds == (220.0,)
    assert stages["evaluate"].gpu_hours * 3600 == pytest.approx(220)
    assert list(stages)[-3:] == ["finetune", "evaluate", "report"]
    assert not units(config, SIZES, expected, MEASURED)["evaluate"].known
    done = Done(frozenset({"evaluate"}))
    assert units(config, SIZES, expected, measured, done)["evaluate"].seconds == ()


def test_what_is_done_costs_nothing(configure: Configure) -> None:
    config = configure(difference={"max_documents": 1000, "documents_per_part": 250})
    done = Done(
        frozenset({"merge", "index", "difference", "assemble", "finetune", "report"}),
        {"embed": 1, "density": 3, "rewrite": 4, "score": 4, "answer": 1},
        (1.0, 0.5, 0.0),
        1000,
        4,
    )
    expected = forecast(config, SIZES, MEASURED, ANYWHERE, done)
    left = {name: stage.seconds for name, stage in units(config, SIZES, expected, MEASURED, done).items()}
    assert left.pop("embed") == (25.0, 11.0)
    # 750 of 1,500 questions are kept, in four parts.
    assert left.pop("answer") == ((30 + 2 * 187.5),) * 3
    assert set(left.values()) == {()}


def test_what_has_no_figures_is_not_known_unless_nothing_is_left(configure: Configure) -> None:
    config = configure()
    expected = forecast(config, SIZES, Measured(), ANYWHERE)
    assert not any(stage.known for stage in units(config, SIZES, expected, Measured()).values())
    nothing = forecast(config, Sizes(()), Measured(), Places(0.0, 0))
    left = units(config, Sizes(()), nothing, Measured(), Done(frozenset({"finetune"})))
    assert [name for name, stage in left.items() if stage.known] == [
        "embed", "density", "rewrite", "score", "answer", "finetune",
    ]  # fmt: skip
    assert Units(()).hours(1) == Units(()).gpu_hours == 0.0


def test_a_huge_corpus(configure: Configure) -> None:
    sizes = Sizes((("corpus", 10**9),) * 200)
    config = configure(difference={"max_documents": 10**9, "documents_per_part": 5000})
    expected = forecast(config, sizes, MEASURED, Places(float("inf"), 10**9))
    left = units(config, sizes, expected, MEASURED)
    assert len(left["rewrite"].seconds) == 1000
    assert left["embed"].hours(100) * 3600 == pytest.approx(2 * (5 + 0.01 * 10**9))
