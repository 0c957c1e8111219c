"""The DAG: what Airflow sees of it, and one run of its wiring in a stand-in for the worker."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import structlog
import yaml
from airflow.callbacks.callback_requests import TaskCallbackRequest
from airflow.dag_processing import processor
from airflow.dag_processing.dagbag import DagBag

import aitp_labels
from aitp_tasks.config import RunConfig
from aitp_tasks.stages import STAGES
from demo.services import POOLS

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "faiss", "vllm", "deepspeed", "pyarrow", "pandas", "numpy", "trl")
GPU = {"embed", "rewrite", "score", "answer", "assemble", "finetune"}
MAPPED = {"embed", "density", "rewrite", "score", "answer"}
#: Without the one that is there only where a configuration wants a pilot.
ALWAYS = [stage.name for stage in STAGES if stage.name != "allocate"]


@pytest.fixture(scope="module")
def dag() -> Any:
    bag = DagBag(str(REPOSITORY / "dags"))
    assert bag.import_errors == {}
    assert "aitp_refresh" in bag.dags
    return bag.dags["aitp_refresh"]


def test_one_task_a_stage_and_two_that_count(dag: Any) -> None:
    assert set(dag.task_ids) == set(ALWAYS) | {
        "begin",
        "embed_units",
        "density_units",
        "parts",
        "end",
    }


def test_stages_follow_each_other_in_the_order_of_the_command_line(dag: Any) -> None:
    common = ["plan", "embed_units", "embed", "merge", "density"]
    selected = ["difference", "parts", "rewrite", "score", "answer", "assemble", "finetune"]
    selected += ["evaluate", "promote", "report"]
    # What the index is for is not what the difference set is for: neither waits for the other.
    ways = [[*common, *selected], [*common, "index", "report"]]
    order = ALWAYS
    for way in ways:
        stages = [task for task in way if task not in ("embed_units", "parts")]
        assert stages == sorted(stages, key=order.index)
        for before, after in itertools.pairwise(way):
            assert after in dag.get_task(before).downstream_task_ids, (before, after)
    assert set(itertools.chain(*ways)) - {"embed_units", "parts"} == set(order)
    assert dag.get_task("index").downstream_task_ids == {"report"}


def test_a_run_begins_and_ends_on_its_line_and_does_so_again_when_a_task_is_cleared(dag: Any) -> None:
    begin, end = dag.get_task("begin"), dag.get_task("end")
    assert begin.is_setup
    assert begin.downstream_task_ids == {"plan", "end"}
    assert end.is_teardown
    assert not end.on_failure_fail_dagrun
    for name in ("embed", "finetune"):
        cleared = dag.partial_subset(task_ids=[name], include_downstream=True, include_upstream=False)
        assert {"begin", "end", name} <= set(cleared.task_dict)
        assert "plan" not in cleared.task_dict


def test_stages_fan_out_as_the_command_line_says(dag: Any) -> None:
    assert {stage.name for stage in STAGES if stage.fans_out} == MAPPED
    for name in ("embed", "density"):
        assert dag.get_task(name).is_mapped
    for name in ("rewrite", "score", "answer"):
        assert dag.get_task(name).get_closest_mapped_task_group().group_id == "prompts"


@pytest.mark.parametrize("stage", ALWAYS)
def test_every_stage_has_a_timeout_retries_and_backoff(dag: Any, stage: str) -> None:
    task = dag.get_task(stage)
    assert timedelta(0) < task.execution_timeout <= timedelta(hours=48)
    assert task.retries >= 2
    assert task.retry_exponential_backoff
    assert task.max_retry_delay
    assert task.doc_md
    assert task.pool == ("gpu" if stage in GPU else "default_pool")


@pytest.mark.parametrize("stage", sorted(MAPPED))
def test_mapped_stages_are_labelled(dag: Any, stage: str) -> None:
    assert "label" in dag.get_task(stage).map_index_template
    listed_by = aitp_labels.LISTED_BY[stage]
    assert listed_by in dag.get_task(stage).get_flat_relative_ids(upstream=True)
    of_pilots = {f"pilot_{name}" for name in ("rewrite", "score", "answer")}
    assert set(aitp_labels.LISTED_BY) == MAPPED | of_pilots


def test_every_task_tells_of_its_failure_and_four_of_more(dag: Any) -> None:
    for task in dag.tasks:
        (tells,) = task.on_failure_callback
        assert type(tells).__name__ == "FailureNotifier"
    more = {task.task_id: type(*task.on_success_callback) for task in dag.tasks if task.on_success_callback}
    assert {task: tells.__name__ for task, tells in more.items()} == {
        "begin": "NotPromotedNotifier",
        "assemble": "NotPromotedNotifier",
        "promote": "NotPromotedNotifier",
        "end": "GroupNotifier",
    }
    assert not dag.deadline


def test_the_demo_creates_every_pool_that_is_named(dag: Any) -> None:
    assert {task.pool for task in dag.tasks} - {"default_pool"} == set(POOLS)


def test_the_form_is_the_configurations_own(dag: Any) -> None:
    fields = RunConfig.model_json_schema()["$defs"]
    tau = dag.params.get_param("difference__tau")
    assert tau.schema["title"] == fields["Difference"]["properties"]["tau"]["title"]
    assert tau.schema["exclusiveMinimum"] == 0
    assert (tau.schema["type"], tau.value) == (["null", "number"], None)
    configured = demo_config()["difference"]["tau"]
    assert tau.description.endswith(f"More than 0. Configured: {configured}.")
    share = dag.params.get_param("difference__target_share")
    assert (share.schema["type"], share.schema["exclusiveMaximum"]) == (["null", "number"], 1)
    assert share.description.endswith("More than 0 and less than 1. Configured: not set.")


def test_choices_say_what_is_configured_and_can_return_to_it(dag: Any) -> None:
    criterion = dag.params.get_param("difference__criterion")
    configured = f"as configured ({demo_config()['difference'].get('criterion', 'density_ratio')})"
    names = ["density_ratio", "sft_density", "authors_compat", "knn", "gaussian"]
    assert criterion.schema["enum"] == [configured, *names]
    assert criterion.value == configured
    more = dag.params.get_param("gates__allow_additional_information")
    assert more.schema["enum"][1:] == ["on", "off"]
    assert more.value in ("as configured (on)", "as configured (off)")


def demo_config() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
    return values


def test_what_a_run_needs_is_in_sight_and_nothing_is_set(dag: Any) -> None:
    assert "section" not in dag.params.get_param("dump").schema
    for name, param in dag.params.items():
        value = param if not hasattr(param, "value") else param.value
        expected = [None, "demo"] if name == "config" else [None]
        assert value in expected or str(value).startswith("as configured"), name


def test_the_dag_is_a_nightly_partition_without_catching_up(dag: Any) -> None:
    assert type(dag.timetable).__name__ == "CronPartitionTimetable"
    assert dag.timetable.key_format == "%Y-%m-%d"
    assert not dag.catchup
    assert dag.max_active_runs > 1, "runs of other datasets need not wait"
    assert all(stage.name in dag.doc_md for stage in STAGES)


def test_the_reports_result_is_the_runs(dag: Any) -> None:
    assert [task.task_id for task in dag.tasks if task.returns_dag_result] == ["report"]


def test_parsing_is_quick_and_imports_nothing_heavy() -> None:
    code = f"""
import sys, time, json
import airflow.sdk, airflow.models
before = set(sys.modules)
sys.path[:0] = [{str(REPOSITORY / "plugins")!r}, {str(REPOSITORY)!r}]
started = time.process_time()
import runpy
runpy.run_path({str(REPOSITORY / "dags" / "aitp_refresh.py")!r})
seconds = time.process_time() - started
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([seconds, sorted(new)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    assert set(modules).isdisjoint(HEAVY)
    # Processor time: about half a second; a heavy import alone costs several.
    assert seconds < 3


WORKER = """#!/usr/bin/env python3
import json, os, sys
stage, *arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
result = {"stage": stage, "run": "s3://b/runs/x", "seconds": 0}
if "--unit" in arguments and arguments[-1] == "1":
    result["label"] = "shards of " + arguments[arguments.index("--unit") + 1]
if stage == "line":
    result |= {"taken": True, "dump": "c4", "left": {}, "waits_for": None}
if stage == "plan":
    result |= {"embed_units": 2, "documents": 9}
if stage == "units":
    left = [int(number) for number in os.environ["LEFT"].split()]
    result["units"] = [{"number": number, "holds": f"c4 {{{{ 7 * 7 }}}} {number}"} for number in left]
if stage == "difference":
    result |= {"label": "c4 {{ 7 * 7 }}", "selected": 5, "parts": int(os.environ["PARTS"])}
    result["pilot_parts"] = int(os.environ.get("PILOT", "0"))
print(json.dumps(result))
"""

RUN = """
import json
from airflow.dag_processing.dagbag import DagBag
run = DagBag(%r).dags["aitp_refresh"].test(run_conf={"dump": "c4", "difference__tau": 0.25})
rows = [[ti.task_id, ti.map_index, ti.state, ti.rendered_map_index] for ti in run.get_task_instances()]
print(json.dumps([run.state, rows]))
"""


@pytest.mark.parametrize(("left", "parts"), [("0 1", 2), ("0 1", 0), ("", 2)])
def test_a_run_calls_every_stage_and_one_with_nothing_to_do_still_ends(
    airflow: dict[str, str], tmp_path: Path, left: str, parts: int
) -> None:
    worker = tmp_path / "aitp"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {
        **airflow,
        "AITP_COMMAND": str(worker),
        "AITP_CONFIG": "/etc/aitp.yaml",
        "CALLS": str(calls),
        "PARTS": str(parts),
        "LEFT": left,
    }
    code = RUN % str(REPOSITORY / "dags")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state, rows = json.loads(done.stdout.splitlines()[-1])
    assert state == "success"
    labels = {(task, index): label for task, index, _, label in rows}
    if left:
        # A name is a name, and no template.
        assert labels["embed", 0] == "c4 {{ 7 * 7 }} 0"
        assert labels["embed", 1] == "shards of 1"
    if parts:
        assert labels["rewrite", 0] == "c4 {{ 7 * 7 }} part 1 of 2"
        assert labels["rewrite", 1] == "shards of 1"

    first, *called, last = [json.loads(line) for line in calls.read_text().splitlines()]
    assert first[:3] == ["line", "begin", "--holder"]
    assert last[:3] == ["line", "end", "--holder"]
    assert first[3] == last[3]
    assert first[4:7] == ["--kind", "manual", "--alone"]
    assert called[0] == [
        "plan",
        "--config",
        "/etc/aitp.yaml",
        "--set",
        'dump="c4"',
        "--set",
        "difference.tau=0.25",
    ]
    units = 2 if left else 0
    expected = {stage.name: units if stage.fans_out == "embed_units" else 1 for stage in STAGES}
    expected |= {stage.name: parts for stage in STAGES if stage.fans_out == "parts"} | {"allocate": 0}
    assert {stage.name: sum(call[0] == stage.name for call in called) for stage in STAGES} == expected
    assert all(call[1:3] == ["--run", "s3://b/runs/x"] for call in called[1:])
    skipped = {task for task, _, task_state, _ in rows if task_state == "skipped"}
    nothing = set() if parts else {"rewrite", "score", "answer"}
    assert skipped == nothing | (set() if left else {"embed", "density"})


@pytest.mark.parametrize(("pilot", "parts"), [(2, 5), (0, 1)])
def test_a_pilot_is_answered_before_the_rest_is_drawn_and_one_without_parts_holds_nothing_up(
    airflow: dict[str, str], tmp_path: Path, pilot: int, parts: int
) -> None:
    (tmp_path / "law.yaml").write_text("root: s3://b\ndifference: {allocation: yield}\n")
    worker, calls = tmp_path / "aitp", tmp_path / "calls"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    environment = {
        **airflow,
        "AITP_COMMAND": str(worker),
        "AITP_CONFIG": str(tmp_path / "law.yaml"),
        "CALLS": str(calls),
        "PILOT": str(pilot),
        "PARTS": str(parts),
        "LEFT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN % str(REPOSITORY / "dags")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state, rows = json.loads(done.stdout.splitlines()[-1])
    assert state == "success"
    called = [json.loads(line) for line in calls.read_text().splitlines()]
    order = [(call[0], call[call.index("--unit") + 1] if "--unit" in call else "") for call in called]
    (allocated,) = (place for place, (stage, _) in enumerate(order) if stage == "allocate")
    before = {unit for stage, unit in order[:allocated] if stage == "answer"}
    after = {unit for stage, unit in order[allocated:] if stage == "answer"}
    assert before == {str(unit) for unit in range(pilot)}
    assert after == {str(unit) for unit in range(pilot, parts)}
    skipped = {task for task, _, task_state, _ in rows if task_state == "skipped"}
    stages = ("rewrite", "score", "answer")
    assert skipped == ({f"pilot_{stage}" for stage in stages} if not pilot else set())
    labels = {(task, index): label for task, index, _, label in rows}
    if pilot:
        assert labels["pilot_rewrite", 0] == f"c4 {{{{ 7 * 7 }}}} part 1 of {parts}"
        assert labels["rewrite", 0] == f"c4 {{{{ 7 * 7 }}}} part {pilot + 1} of {parts}"


def described(config: Path) -> dict[str, Any]:
    """The DAG's pools and params, with that configuration."""
    code = "from airflow.dag_processing.dagbag import DagBag; import json\n"
    code += f"bag = DagBag({str(REPOSITORY / 'dags')!r}); assert not bag.import_errors, bag.import_errors\n"
    code += "dag = bag.dags['aitp_refresh']\n"
    code += "params = {name: dag.params.get_param(name).dump() for name in dag.params}\n"
    code += "pools = {task.task_id: task.pool for task in dag.tasks}\n"
    code += "slots = {task.task_id: task.pool_slots for task in dag.tasks}\n"
    code += "after = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}\n"
    code += "print(json.dumps({'pools': pools, 'slots': slots, 'params': params, 'after': after}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "AITP_CONFIG": str(config),
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_where_a_server_embeds_or_generates_no_gpu_slot_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("engine: {endpoint: {url: 'http://127.0.0.1:1'}}\nencoder: {model: /m}\n")
    pools = described(config)["pools"]
    assert {task for task, pool in pools.items() if pool == "gpu"} == {"embed", "assemble", "finetune"}
    # The base model that ranks several answers has no server.
    config.write_text(config.read_text() + "prompts: {folder: ./prompts, answers_per_question: 4}\n")
    pools = described(config)["pools"]
    assert {task for task, pool in pools.items() if pool == "gpu"} == {
        "embed", "answer", "assemble", "finetune",
    }  # fmt: skip


GPUS, CPUS = "devices: {require: gpu}", "devices: {require: cpu}"
TENSORS = "engine: {{engine_args: {{tensor_parallel_size: {}}}}}".format
RANKS = "finetune: {{processes: {}}}".format
BOTH_KINDS = "{tensor_parallel_size: 4, pipeline_parallel_size: 2}"


@pytest.mark.parametrize(
    ("law", "code", "engine", "ranks"),
    [
        ([], [], 1, 1),
        ([GPUS], [], 1, 1),
        ([TENSORS(8)], [], 8, 1),
        ([f"engine: {{engine_args: {BOTH_KINDS}}}"], [], 8, 1),
        # Ranks on processors lease nothing, and the pool may have one slot.
        ([RANKS(8)], [], 1, 1),
        ([RANKS(8), GPUS], [], 1, 8),
        ([RANKS(8), CPUS, TENSORS(4)], [], 1, 1),
        # Of several configurations, the one with most.
        ([RANKS(4), GPUS, TENSORS(2)], [RANKS(2), GPUS, TENSORS(4)], 4, 4),
        (
            ["engine: {endpoint: {url: 'http://127.0.0.1:1'}, engine_args: {tensor_parallel_size: 8}}"],
            [],
            1,
            1,
        ),
        # What plan will refuse.
        ([TENSORS("many"), RANKS(-2), GPUS], [], 1, 1),
        (["engine: {engine_args: [8]}", "devices: gpu"], [], 1, 1),
    ],
)
def test_a_unit_takes_as_many_slots_as_it_leases_gpus(
    tmp_path: Path, law: list[str], code: list[str], engine: int, ranks: int
) -> None:
    for name, lines in (("law", law), ("code", code)):
        (tmp_path / f"{name}.yaml").write_text("\n".join(["root: s3://b", *lines]))
    slots = described(tmp_path / "law.yaml")["slots"]
    prompts = dict.fromkeys(("rewrite", "score", "answer"), engine)
    assert slots == dict.fromkeys(slots, 1) | prompts | {"finetune": ranks, "evaluate": ranks}


def test_a_gpu_is_waited_for_only_where_something_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text("root: s3://b\n")
    (tmp_path / "code.yaml").write_text("root: s3://b\nevaluate: {held_out: 0.02}\n")
    assert described(tmp_path / "law.yaml")["pools"]["evaluate"] == "gpu"
    (tmp_path / "code.yaml").write_text("root: s3://b\nevaluate: {held_out: 0}\n")
    assert described(tmp_path / "law.yaml")["pools"]["evaluate"] == "default_pool"


def test_a_person_is_asked_only_where_a_configuration_says_so(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text("root: s3://b\n")
    (tmp_path / "code.yaml").write_text("root: s3://b\napproval: {before_promotion: true}\n")
    after = described(tmp_path / "law.yaml")["after"]
    assert after["assemble"] == ["finetune"]
    assert (after["evaluate"], after["approve_promotion"], after["promote"]) == (
        ["approve_promotion"], ["promote"], ["report"],
    )  # fmt: skip
    (tmp_path / "code.yaml").write_text("root: s3://b\napproval: {before_finetune: true}\n")
    after = described(tmp_path / "law.yaml")["after"]
    assert (after["assemble"], after["approve"]) == (["approve"], ["finetune"])
    assert after["evaluate"] == ["promote"]


def test_a_pilot_has_tasks_only_where_a_configuration_says_so(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text("root: s3://b\n")
    (tmp_path / "code.yaml").write_text("root: s3://b\ndifference: {allocation: even}\n")
    plain = described(tmp_path / "law.yaml")
    assert not [task for task in plain["after"] if task.startswith("pilot_") or task == "allocate"]
    assert plain["after"]["difference"] == ["parts"]
    (tmp_path / "code.yaml").write_text("root: s3://b\ndifference: {allocation: yield}\n")
    told = described(tmp_path / "law.yaml")
    assert told["after"]["difference"] == ["parts", "pilot_parts"]
    assert told["after"]["pilot_rewrite"] == ["pilot_score"]
    assert told["after"]["pilot_answer"] == ["allocate"]
    assert told["after"]["allocate"] == ["parts"]
    pools = told["pools"]
    assert {task: pools[task] for task in ("pilot_rewrite", "pilot_score", "pilot_answer")} == {
        "pilot_rewrite": "gpu",
        "pilot_score": "gpu",
        "pilot_answer": "gpu",
    }
    assert pools["allocate"] == "default_pool"


def test_one_deployment_offers_all_configurations_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text(
        "root: s3://b\nengine: {endpoint: {url: 'http://127.0.0.1:1'}}\ndifference: {tau: 0.5}\n"
    )
    (tmp_path / "code.yaml").write_text("root: s3://b\ndifference: {seed: 7}\n")
    (tmp_path / "broken.yaml").write_text("root: [")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "notes.txt").write_text("root: s3://b\n")
    told = described(tmp_path / "law.yaml")
    # What is broken is offered: plan says what is wrong with it. What is no configuration is not.
    assert told["params"]["config"]["schema"]["enum"] == ["law", "broken", "code"]
    assert told["params"]["config"]["value"] == "law"
    descriptions = {name: param["description"] for name, param in told["params"].items()}
    assert descriptions["difference__tau"].endswith("Configured: 0.5 in law, 1.0 in code.")
    assert descriptions["difference__seed"].endswith("Configured: 0 in law, 7 in code.")
    assert descriptions["gates__min_quality"].endswith("Configured: 6.")
    # Not all of them have a server of their own.
    assert told["pools"]["rewrite"] == "gpu"


def test_a_unit_whose_process_was_lost_is_told_of_by_the_dag_processor(
    dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the form's "config" names it.
    (tmp_path / "demo.yaml").write_text("messages: {email_to: [a@example.org]}")
    (tells,) = dag.get_task("embed").on_failure_callback
    monkeypatch.setattr(tells, "config", str(tmp_path / "demo.yaml"))
    sent: list[Any] = []
    monkeypatch.setattr("aitp_messages.send", lambda message, _: sent.append(message))
    now, run = datetime.now(UTC), "manual__x"
    ti = {"id": uuid4(), "task_id": "embed", "dag_id": dag.dag_id, "run_id": run, "map_index": 4}
    dag_run = {
        "dag_id": dag.dag_id,
        "run_id": run,
        "run_type": "manual",
        "state": "running",
        "run_after": now,
        "partition_key": "2026-11-23",
        "consumed_asset_events": [],
        **dict.fromkeys(
            ("logical_date", "data_interval_start", "data_interval_end", "start_date", "end_date")
        ),
    }
    request = TaskCallbackRequest(
        filepath="aitp_refresh.py",
        bundle_name="dags-folder",
        bundle_version=None,
        msg="Task did not emit heartbeat within time limit",
        ti={**ti, "try_number": 4, "dag_version_id": uuid4()},
        context_from_server={"dag_run": dag_run, "max_tries": 3},
    )
    processor._execute_task_callbacks(
        SimpleNamespace(dags={dag.dag_id: dag}),  # type: ignore[arg-type]
        request,
        structlog.get_logger(),
    )
    (message,) = sent
    assert message.title == "AITP: embed of 2026-11-23 failed: lost"
    assert "\nunit: map index 4\n" in message.text
    assert "/tasks/embed/mapped/4?try_number=4\n" in message.text


@pytest.mark.operation("broken-configuration")
@pytest.mark.parametrize(
    "content", ["a: [", "- a", "engine: x\nencoder: [1]\ngates: 5\ndifference:\n", "gone: {tau: 1}\n"]
)
def test_a_wrong_configuration_does_not_take_the_dag_away(tmp_path: Path, content: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    assert {task for task, pool in described(config)["pools"].items() if pool == "gpu"} == GPU


@pytest.mark.operation("storage-away")
def test_the_pauses_between_the_tries_of_a_task_last_longer_than_a_minute(dag: Any) -> None:
    for task in dag.tasks:
        pauses = [
            task.retry_delay.total_seconds() * task.retry_exponential_backoff**n for n in range(task.retries)
        ]
        assert sum(pauses) > 60, task.task_id
