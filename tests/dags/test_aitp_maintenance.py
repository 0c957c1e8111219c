"""The weekly maintenance: what Airflow sees of it, and its wiring with a stand-in for the worker."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.timetables.trigger import CronTriggerTimetable

from aitp_tasks.tools import TOOLS

REPOSITORY = Path(__file__).resolve().parents[2]
ORDER = ["gc", "compact", "storage"]


@pytest.fixture(scope="module")
def dag() -> Any:
    bag = DagBag(str(REPOSITORY / "dags"))
    assert bag.import_errors == {}
    return bag.dags["aitp_maintenance"]


def test_each_task_is_a_command_and_none_fans_out(dag: Any) -> None:
    assert set(dag.task_ids) == {"gc", "compact", "indexes", "storage"}
    assert set(dag.task_ids) <= {tool.name for tool in TOOLS}
    assert not any(task.is_mapped for task in dag.tasks)
    assert all(f"`{name}`" in dag.doc_md for name in dag.task_ids)


def test_what_deletes_comes_first_and_the_figures_last(dag: Any) -> None:
    assert dag.get_task("gc").downstream_task_ids == {"compact", "indexes"}
    assert dag.get_task("compact").downstream_task_ids == {"storage"}
    # Both are leaves, so that neither hides how the other has ended.
    assert {task.task_id for task in dag.leaves} == {"indexes", "storage"}
    assert [task.task_id for task in dag.tasks if task.returns_dag_result] == ["storage"]


def test_it_deletes_only_what_the_configuration_says(dag: Any) -> None:
    arguments = {task.task_id: task.arguments for task in dag.tasks}
    assert arguments["gc"][2:] == ["--delete-if-configured"]
    assert all("--delete" not in some for some in arguments.values())
    assert all(some[0] == "--config" for some in arguments.values())


def test_it_runs_on_sundays_one_at_a_time_and_catches_nothing_up(dag: Any) -> None:
    assert type(dag.timetable).__name__ == "CronTriggerTimetable"
    timetable = CronTriggerTimetable(dag.timetable.expression, timezone=dag.timetable.timezone)
    # Any Thursday; the next two runs.
    found, starts = datetime(2026, 11, 26, tzinfo=UTC), list[datetime]()
    for _ in range(2):
        found = timetable._get_next(found)
        starts.append(found)
    assert [start.isoformat() for start in starts] == [
        "2026-11-29T12:00:00+00:00",
        "2026-12-06T12:00:00+00:00",
    ]
    assert {start.strftime("%A") for start in starts} == {"Sunday"}
    assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_whoever_is_to_know_is_told_of_a_command_that_fails(dag: Any) -> None:
    for task in dag.tasks:
        (tells,) = task.on_failure_callback
        assert type(tells).__name__ == "FailureNotifier"


def test_every_task_has_a_timeout_and_retries_and_takes_no_device(dag: Any) -> None:
    for task in dag.tasks:
        assert timedelta(0) < task.execution_timeout <= timedelta(hours=12)
        assert task.retries >= 2
        assert task.pool == "default_pool"


WORKER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if sys.argv[1] == os.environ["FAILS"]:
    print("error: index x is damaged: delete it", file=sys.stderr)
    sys.exit(2)
print(json.dumps({"stage": sys.argv[1]}))
"""
RUN = """
import json
from airflow.dag_processing.dagbag import DagBag
run = DagBag(%r).dags["aitp_maintenance"].test()
print(json.dumps([run.state, {ti.task_id: ti.state for ti in run.get_task_instances()}]))
"""


@pytest.mark.parametrize(("fails", "missing"), [("indexes", set()), ("gc", {"compact", "storage"})])
def test_a_command_that_fails_fails_the_run_and_what_does_not_need_it_still_runs(
    airflow: dict[str, str], tmp_path: Path, fails: str, missing: set[str]
) -> None:
    worker, calls = tmp_path / "aitp", tmp_path / "calls"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", RUN % str(REPOSITORY / "dags")],
        env={
            **airflow,
            "AITP_COMMAND": str(worker),
            "AITP_CONFIG": "/etc/aitp.yaml",
            "CALLS": str(calls),
            "FAILS": fails,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state, states = json.loads(done.stdout.splitlines()[-1])
    assert state == "failed"
    called = [json.loads(line) for line in calls.read_text().splitlines()]
    assert {call[0] for call in called} == {"gc", "compact", "indexes", "storage"} - missing
    assert all(call[1:3] == ["--config", "/etc/aitp.yaml"] for call in called)
    assert {task for task, its in states.items() if its == "upstream_failed"} == missing
    order = [call[0] for call in called if call[0] in ORDER]
    assert order == [name for name in ORDER if name not in missing]
