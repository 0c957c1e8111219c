"""A run is opened only if its plan is the one that its name says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records.plan import RULES, Plan
from aitp_tasks.records.run import Run
from aitp_tasks.storage import open_storage

#: Two runs as the release before this check planned them: the second builds on a version.
BEFORE = Path(__file__).with_name("planned_before")
NAMES = ["news/aaf2581d124cffff9c1ad2881d27fcee", "more/b6206d969d04794d9a33c337cf0e16ef"]
Plain = dict[str, Any]


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    shutil.copytree(BEFORE, tmp_path / "runs")
    return tmp_path


def edit(root: Path, name: str, change: Callable[[Plain], object]) -> str:
    """Change a stored plan; the run's URI."""
    path = root / "runs" / name / "plan.json"
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))
    return f"file://{root}/runs/{name}"


@pytest.mark.operation("older-release")
@pytest.mark.parametrize("name", NAMES)
def test_a_run_planned_by_an_earlier_release_opens(planned: Path, name: str) -> None:
    run = Run.open(f"file://{planned}/runs/{name}")
    assert (f"{run.config.dump}/{run.digest}", run.prefix) == (name, f"runs/{name}")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found_again_when_it_is_planned_again(planned: Path, name: str) -> None:
    plan = Run.open(f"file://{planned}/runs/{name}").plan
    again = Run.create(open_storage(f"file://{planned}"), plan)
    assert again.prefix == f"runs/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_rules_of_that_release(planned: Path, name: str) -> None:
    plan = Run.open(f"file://{planned}/runs/{name}").plan
    assert plan.rules < RULES
    assert plan.model_copy(update={"rules": RULES}).digest != plan.digest
    assert Plan.read(plan.model_dump_json().encode())[0] == plan


def test_a_setting_that_came_later_does_not_refuse_the_plans_before(planned: Path) -> None:
    # As if the release that made it had not known the setting.
    path = planned / "runs" / NAMES[0] / "plan.json"
    values = json.loads(path.read_text())
    del values["config"]["density"]["max_drift"]
    digest = Plan.read(json.dumps(values).encode())[1]
    assert digest != NAMES[0].partition("/")[2]
    path.write_text(json.dumps(values))
    path.parent.rename(path.parent.with_name(digest))
    assert Run.open(f"file://{planned}/runs/news/{digest}").config.density.max_drift > 0


@pytest.mark.operation("newer-release")
@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda plan: plan["config"]["gates"].update(min_wit=3), "config.gates.min_wit"),
        (lambda plan: plan["config"].update(wisdom={"source": "owl"}), "config.wisdom"),
        (lambda plan: plan.update(oracle="Delphi"), "oracle"),
    ],
)
def test_a_run_planned_by_a_later_release_is_refused_and_left_as_it_is(
    planned: Path, change: Callable[[Plain], object], where: str
) -> None:
    uri = edit(planned, NAMES[0], change)
    stored = (planned / "runs" / NAMES[0] / "plan.json").read_bytes()
    with pytest.raises(
        InputError, match=rf"cannot be read \({where}\): .* made by another release; plan the"
    ):
        Run.open(uri)
    assert (planned / "runs" / NAMES[0] / "plan.json").read_bytes() == stored


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda plan: plan["config"]["engine"]["engine_args"].update(trust_remote_code=True), id="code"
        ),
        pytest.param(lambda plan: plan["config"]["gates"].update(min_quality=1), id="setting"),
        pytest.param(lambda plan: plan["config"]["gates"].pop("min_quality"), id="setting left out"),
        pytest.param(lambda plan: plan["config"]["finetune"].update(learning_rate="1e-05"), id="type"),
        pytest.param(lambda plan: plan["prompts"]["answer"].update(template="{text}"), id="prompt"),
        pytest.param(lambda plan: plan.update(engine_identity="0" * 32), id="model"),
        pytest.param(lambda plan: plan["groups"][0]["shards"][0].update(etag="0"), id="shard"),
        pytest.param(lambda plan: plan["groups"].pop(), id="group"),
        pytest.param(lambda plan: plan["config"].update(dump="other"), id="dump"),
        pytest.param(lambda plan: plan["base"].update(name="other"), id="base"),
        pytest.param(lambda plan: plan.update(geometry=None), id="geometry"),
        pytest.param(lambda plan: plan.update(rules=RULES), id="rules"),
    ],
)
def test_an_edited_plan_is_refused(planned: Path, change: Callable[[Plain], object]) -> None:
    uri = edit(planned, NAMES[1], change)
    with pytest.raises(InputError, match=r"was edited or moved after it was made.*plan the run again"):
        Run.open(uri)


def test_a_plan_that_names_a_setting_twice_is_read_in_one_way(planned: Path) -> None:
    path = planned / "runs" / NAMES[0] / "plan.json"
    values = json.loads(path.read_text())
    hostile = json.dumps(
        values["config"] | {"engine": {**values["config"]["engine"], "engine_args": {"a": 1}}}
    )
    whole = path.read_text()
    for text in (whole[:-1] + f', "config": {hostile}' + "}", '{"config": ' + hostile + ", " + whole[1:]):
        path.write_text(text)
        try:
            opened = Run.open(f"file://{planned}/runs/{NAMES[0]}")
        except InputError:
            continue
        assert opened.config.engine.engine_args == values["config"]["engine"]["engine_args"]


def test_a_plan_under_another_name_is_refused(planned: Path) -> None:
    moved = planned / "runs/news/0123456789abcdef0123456789abcdef"
    (planned / "runs" / NAMES[0]).rename(moved)
    with pytest.raises(InputError, match="is that of news/aaf2581d124cffff9c1ad2881d27fcee"):
        Run.open(f"file://{moved}")


@pytest.mark.parametrize(
    ("data", "where"),
    [("{", "it is not JSON"), ("[]", ""), ("{}", "config, encoder_identity, engine_identity")],
)
def test_what_is_no_plan_is_refused(planned: Path, data: str, where: str) -> None:
    (planned / "runs" / NAMES[0] / "plan.json").write_text(data)
    with pytest.raises(InputError, match=rf"cannot be read \({where}\): it was edited, or made by another"):
        Run.open(f"file://{planned}/runs/{NAMES[0]}")


def test_models_may_lie_elsewhere(planned: Path) -> None:
    uri = edit(planned, NAMES[0], lambda plan: plan["config"]["engine"].update(model="/elsewhere"))
    assert Run.open(uri).config.engine.model == "/elsewhere"


def test_planning_again_restores_an_edited_plan(planned: Path) -> None:
    uri = f"file://{planned}/runs/{NAMES[0]}"
    plan = Run.open(uri).plan
    edit(planned, NAMES[0], lambda stored: stored["config"]["gates"].update(min_quality=1))
    Run.create(open_storage(f"file://{planned}"), plan)
    assert Run.open(uri).plan == plan


def test_what_json_cannot_keep_is_refused_at_plan(planned: Path) -> None:
    plan = Run.open(f"file://{planned}/runs/{NAMES[0]}").plan
    finetune = plan.config.finetune.model_copy(update={"epochs": float("inf")})
    config = plan.config.model_copy(update={"finetune": finetune})
    with pytest.raises(InputError, match=r"is .inf or .nan, which JSON cannot hold"):
        Run.create(open_storage(f"file://{planned}"), plan.model_copy(update={"config": config}))
