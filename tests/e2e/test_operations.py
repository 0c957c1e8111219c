"""What happens when people do things, in a real Airflow: each test is a row of docs/operations.md.

The worker's stages do next to nothing (``operations_worker.py``), so that what is tested is what
Airflow and the operator make of it; the line, its lease and its versions are the real ones.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from demo.services import DAG, POOLS, REPOSITORY, AirflowClient, ServiceError, Services
from tests.e2e.nights import stand_in

DUMP = "2026-11-20"


class Operations:
    """An Airflow, its stand-in worker, and what the tests do to both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.config = folder, folder / "storage", folder / "config.yaml"
        (self.root / f"corpus/{DUMP}").mkdir(parents=True)
        (self.root / f"corpus/{DUMP}/part.parquet").write_bytes(b"")
        self.values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
        self.values |= {"root": f"file://{self.root}", "assemble": {"dataset": "aitp"}}
        # What is cleared here has a deadline that is hours away.
        self.values["messages"] = {"webhook_connections": ["nobody"], "events": [], "late_hours": 9}
        self.config.write_text(yaml.safe_dump(self.values))
        self.services = Services(
            folder / "services",
            worker=stand_in(folder, "operations_worker.py"),
            config=self.config,
            environment={
                "AITP_POLL_SECONDS": "4",
                "OPERATIONS": str(folder),
                "PYTHONPATH": str(REPOSITORY),
                # So that what has vanished is missed in half a minute, not in five.
                "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
                "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            },
        )
        self.services.start_airflow()
        self.client: AirflowClient = self.services.client()
        self.client.put_pools(POOLS)
        self.client.wait_for_dag()
        self.client.set_paused(False)

    def worked(self) -> Counter[tuple[str, str]]:
        """How often each stage of each run has done its work."""
        path = self.folder / "worked.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter((run.removeprefix(f"{self.root}/"), stage) for run, stage in map(json.loads, lines))

    def tries(self, run: str) -> dict[str, int]:
        """How often each task of a run was tried."""
        return {task["task_id"]: task["try_number"] for task in self.client.task_instances(run)}

    def log(self, run: str, task: str) -> str:
        """The logs of a task's tries."""
        folder = self.services.logs / "tasks"
        paths = sorted(folder.glob(f"dag_id={DAG}/run_id={run}/task_id={task}/**/*.log"))
        return "\n".join(path.read_text() for path in paths)

    def objects(self) -> dict[str, bytes]:
        """What the storage holds."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and ".unfinished" not in path.name
        }

    def forget(self, run: str, stage: str) -> None:
        """Remove a stage's manifest, so that there is work again."""
        folder = self.client.result(run, "report")["run"].removeprefix("file://")
        Path(folder, f"{stage}.json").unlink(missing_ok=True)

    def state(self, run: str, task: str) -> str:
        """The state of a task."""
        tasks = self.client.task_instances(run)
        return str(next(one["state"] for one in tasks if one["task_id"] == task))

    def hold(self, run: str, stage: str, *others: str) -> psutil.Process:
        """Clear a stage, and others with it, forget what it has done, and keep it at work; its process."""
        self.forget(run, stage)
        (self.folder / f"hold-{stage}").touch()
        (self.folder / f"at-{stage}").unlink(missing_ok=True)
        self.client.clear(run, [stage, *others])
        return self.process_of(stage)

    def release(self, stage: str) -> None:
        """Let a stage go on."""
        (self.folder / f"hold-{stage}").unlink(missing_ok=True)

    def process_of(self, stage: str, but: int = 0) -> psutil.Process:
        """The process of a stage that is at work."""
        path = self.folder / f"at-{stage}"
        until(lambda: path.exists() and path.read_text() not in ("", str(but)))
        return psutil.Process(int(path.read_text()))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request to Airflow that its client has no word for."""
        answer = self.client._http.request(method, f"/api/v2/{path}", json=body)
        self.client._check(answer)
        return answer.json() if answer.content else None

    def mark(self, run: str, task: str, state: str) -> None:
        """Mark a task as a person does."""
        self.ask("PATCH", f"dags/{DAG}/dagRuns/{run}/taskInstances/{task}", {"new_state": state})

    def ended(self, run: str) -> str:
        """The final state of a run, and that it holds no turn."""
        state = self.client.wait(run, seconds=240)
        assert self.lease() == {}
        return state

    def lease(self) -> dict[str, Any]:
        """Who holds the turn on the dataset."""
        held: dict[str, Any] = json.loads((self.root / "datasets/aitp/lease.json").read_text())
        return held


def until(holds: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for something to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operations]:
    made = Operations(tmp_path_factory.mktemp("operations"))
    try:
        yield made
    finally:
        made.services.stop()


@pytest.fixture(scope="module")
def runs(airflow: Operations) -> dict[str, str]:
    """Three runs of one dump, started at once, two with the same configuration; one of them failed first."""
    (airflow.folder / "fail-difference").touch()
    params = {"first": {}, "same": {}, "other": {"difference__seed": 7}}
    started = {name: airflow.client.trigger({"dump": DUMP} | param) for name, param in params.items()}
    states = {run: airflow.client.wait(run, seconds=300) for run in started.values()}
    assert sorted(states.values()) == ["failed", "success", "success"]
    # Of a run that has succeeded, Airflow drops the deadline; this one still has it, hours away.
    failed = next(run for run, state in states.items() if state == "failed")
    airflow.client.clear(failed, ["difference"], include_downstream=True)
    assert airflow.client.wait(failed, seconds=300) == "success"
    return started


@pytest.fixture(autouse=True)
def nothing_is_held(airflow: Operations) -> Iterator[None]:
    yield
    for path in airflow.folder.glob("hold-*"):
        path.unlink()


def again(before: dict[str, int], *tasks: str) -> dict[str, int]:
    """Numbers of tries after some tasks, and the first and the last with them, have run once more."""
    return before | {task: before[task] + 1 for task in ("begin", *tasks, "end")}


@pytest.mark.operation("same-run-twice")
def test_the_same_run_at_the_same_time_does_nothing_twice(airflow: Operations, runs: dict[str, str]) -> None:
    first, same = (airflow.client.result(runs[name], "plan")["run"] for name in ("first", "same"))
    assert first == same
    assert set(airflow.worked().values()) == {1}


@pytest.mark.operation("two-configurations")
def test_two_configurations_of_a_dump_take_turns_and_both_are_kept(
    airflow: Operations, runs: dict[str, str]
) -> None:
    folders = {airflow.client.result(run, "report")["run"].rpartition("/")[2] for run in runs.values()}
    assert len(folders) == 2
    assert {path.parent.name for path in airflow.root.glob(f"runs/{DUMP}/*/report.json")} == folders
    built = [json.loads(path.read_text()) for path in airflow.root.glob("datasets/aitp/*/version.json")]
    assert sorted(len(version["ancestors"]) for version in built) == [0, 1]


@pytest.mark.operation("clear-task")
@pytest.mark.parametrize("task", ["embed", "difference"])
def test_a_task_that_is_cleared_finds_its_results(
    airflow: Operations, runs: dict[str, str], task: str
) -> None:
    run = runs["first"]
    tries, objects = airflow.tries(run), airflow.objects()
    airflow.client.clear(run, [(task, 0) if task == "embed" else task])
    assert airflow.ended(run) == "success"
    assert airflow.tries(run) == again(tries, task)
    assert airflow.objects() == objects


@pytest.mark.operation("clear-downstream")
def test_what_is_cleared_with_all_after_it_makes_no_second_version(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run = runs["first"]
    tries, objects = airflow.tries(run), airflow.objects()
    airflow.client.clear(run, ["assemble"], include_downstream=True)
    assert airflow.ended(run) == "success"
    assert airflow.tries(run) == again(tries, "assemble", "finetune", "evaluate", "promote", "report")
    assert airflow.objects() == objects


@pytest.mark.operation("clear-running")
def test_a_task_that_is_cleared_at_work_is_ended_and_begun_again(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run, before = runs["first"], airflow.worked()
    process = airflow.hold(run, "rewrite")
    airflow.client.clear(run, ["rewrite"])
    airflow.process_of("rewrite", but=process.pid)
    assert not process.is_running()
    airflow.release("rewrite")
    assert airflow.ended(run) == "success"
    assert sum((airflow.worked() - before).values()) == 1


@pytest.mark.operation("clear-task")
@pytest.mark.operation("mark-task-success")
def test_what_needs_a_task_that_was_only_marked_fails_at_once_and_names_it(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run = runs["first"]
    (airflow.folder / "fail-difference").touch()
    airflow.forget(run, "difference")
    airflow.client.clear(run, ["difference"])
    # Airflow judges a run by its last tasks, and these have not run again.
    assert (airflow.ended(run), airflow.state(run, "difference")) == ("success", "failed")
    airflow.mark(run, "difference", "success")
    tries = airflow.tries(run)
    airflow.client.clear(run, ["parts"])
    assert (airflow.ended(run), airflow.state(run, "parts")) == ("success", "failed")
    assert airflow.tries(run) == again(tries, "parts")
    assert "difference has left no result: it was marked as success" in airflow.log(run, "parts")
    airflow.client.clear(run, ["difference", "parts"])
    assert (airflow.ended(run), airflow.state(run, "parts")) == ("success", "success")


@pytest.mark.operation("mark-run")
def test_a_run_that_is_marked_at_work_is_ended_and_gives_its_turn_away(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run = runs["first"]
    process = airflow.hold(run, "rewrite")
    airflow.client.clear(runs["other"], ["report"])
    airflow.ask("PATCH", f"dags/{DAG}/dagRuns/{run}", {"state": "failed"})
    until(lambda: not process.is_running())
    assert airflow.ended(runs["other"]) == "success"
    airflow.client.clear(run, ["rewrite"])
    process = airflow.process_of("rewrite", but=process.pid)
    airflow.ask("PATCH", f"dags/{DAG}/dagRuns/{run}", {"state": "success"})
    until(lambda: not process.is_running())
    until(lambda: airflow.lease() == {})
    airflow.release("rewrite")
    airflow.client.clear(run, ["rewrite"])
    assert airflow.ended(run) == "success"


@pytest.mark.operation("pause")
def test_a_pause_lets_the_task_at_work_end_and_begins_no_other(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run = runs["first"]
    airflow.hold(run, "rewrite", "score")
    tries = airflow.tries(run)
    airflow.client.set_paused(True)
    airflow.release("rewrite")

    until(lambda: airflow.state(run, "rewrite") == "success")
    time.sleep(5)
    assert (airflow.state(run, "score"), airflow.tries(run)) == ("None", tries)
    assert airflow.lease()["dump"] == DUMP
    airflow.client.set_paused(False)
    assert airflow.ended(run) == "success"
    assert airflow.tries(run) == again({**tries, "begin": tries["begin"] - 1}, "score")


@pytest.mark.operation("param-out-of-bounds")
def test_a_param_out_of_bounds_starts_no_run(airflow: Operations, runs: dict[str, str]) -> None:
    with pytest.raises(ServiceError, match=r"-1 is less than or equal to the minimum of 0"):
        airflow.client.trigger({"dump": DUMP, "difference__tau": -1})
    assert airflow.client.active_run() is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param(
            {"dump": DUMP, "difference.tau": 1},
            "'difference.tau', which is no param of this DAG",
            marks=pytest.mark.operation("unknown-param"),
        ),
        pytest.param(
            {"dump": f"{DUMP}+{DUMP}"}, "names one dump twice", marks=pytest.mark.operation("dump-twice")
        ),
    ],
)
def test_a_run_that_cannot_be_meant_ends_at_once(
    airflow: Operations, params: dict[str, str], message: str
) -> None:
    run = airflow.client.trigger(params)
    assert airflow.client.wait(run, seconds=120) == "failed"
    assert message in airflow.log(run, "begin")
    assert airflow.tries(run)["begin"] == 1


@pytest.mark.operation("backfill-in-the-future")
def test_a_backfill_of_days_to_come_is_refused_or_waits_for_them(airflow: Operations) -> None:
    today = datetime.now(UTC).date()
    first, last = (f"{today + timedelta(days=days)}" for days in (1, 2))
    body = {"dag_id": DAG, "from_date": f"{last}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
    with pytest.raises(ServiceError, match="Backfill cannot be executed for future dates"):
        airflow.ask("POST", "backfills", body)
    # One that begins today is taken, days to come included.
    made = airflow.ask("POST", "backfills", body | {"from_date": f"{today}T00:00:00Z"})

    def runs() -> dict[str, dict[str, Any]]:
        found = airflow.client._get(f"/api/v2/dags/{DAG}/dagRuns", run_type="backfill")["dag_runs"]
        return {run["partition_key"]: run for run in found}

    until(lambda: runs().get(f"{today}", {}).get("state") == "success")
    assert [runs()[day]["state"] for day in (first, last)] == ["queued", "queued"]
    airflow.ask("PUT", f"backfills/{made['id']}/cancel")
    until(lambda: airflow.client.active_run() is None)


@pytest.mark.operation("old-setting")
def test_a_wrong_configuration_fails_begin_until_it_is_corrected(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run, right, tries = runs["first"], airflow.config.read_text(), airflow.tries(runs["first"])
    try:
        airflow.config.write_text(f"{right}difference: {{taw: 1}}\n")
        airflow.client.clear(run, ["report"])
        assert airflow.client.wait(run, seconds=240) == "failed"
    finally:
        airflow.config.write_text(right)
    assert "difference.taw=1: there is no such setting: the nearest is difference.tau" in airflow.log(
        run, "begin"
    )
    assert airflow.tries(run) == tries | {"begin": tries["begin"] + 1}
    airflow.client.clear(run, ["begin", "report"])
    assert airflow.ended(run) == "success"


@pytest.mark.operation("delete-run")
def test_a_run_that_is_deleted_leaves_its_results(airflow: Operations, runs: dict[str, str]) -> None:
    run, objects = runs["same"], airflow.objects()
    airflow.hold(run, "rewrite")
    with pytest.raises(ServiceError, match="cannot be deleted in running state"):
        airflow.ask("DELETE", f"dags/{DAG}/dagRuns/{run}")
    airflow.release("rewrite")
    assert airflow.ended(run) == "success"
    airflow.ask("DELETE", f"dags/{DAG}/dagRuns/{run}")
    assert airflow.objects() == objects


@pytest.mark.operation("worker-vanishes")
def test_a_task_whose_worker_vanishes_is_tried_again(airflow: Operations, runs: dict[str, str]) -> None:
    run, before = runs["first"], airflow.worked()
    # Not one that was cleared often: the pause before the next try grows with all tries there were.
    process = airflow.hold(run, "index")
    # The stage, its task, and the executor's worker that looks after it.
    for one in [process, *process.parents()[:2]]:
        one.kill()
    airflow.process_of("index", but=process.pid)
    airflow.release("index")
    assert airflow.ended(run) == "success"
    assert sum((airflow.worked() - before).values()) == 1


@pytest.mark.operation("scheduler-killed")
def test_a_scheduler_that_is_killed_and_started_again_goes_on(
    airflow: Operations, runs: dict[str, str]
) -> None:
    run, before = runs["first"], airflow.worked()
    process = airflow.hold(run, "rewrite", "score")
    scheduler = next(
        one
        for one in airflow.services.processes()
        if "scheduler" in one.cmdline() and one.ppid() == os.getpid()
    )
    scheduler.kill()
    airflow.services.start_scheduler()
    airflow.release("rewrite")
    assert airflow.ended(run) == "success"
    until(lambda: not process.is_running())
    assert sum((airflow.worked() - before).values()) == 1
