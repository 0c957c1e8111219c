"""Runs that start at once on one dataset, in a real Airflow: by backfill, by hand and by the night.

The worker's stages do next to nothing (``line_worker.py``), so that what is tested is
who waits for whom; the line, its lease and its versions are the real ones.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.services import AIRFLOW_PROGRAM, DAG, POOLS, REPOSITORY, AirflowClient, ServiceError, Services
from tests.sinks import Sinks, free_port

TODAY = datetime.now(UTC).date()
#: The night's own dump is that of the day that has ended.
NIGHT = f"{TODAY - timedelta(days=1)}"
BACKFILLED = [f"{TODAY - timedelta(days=days)}" for days in (5, 4, 3)]
OTHER = "other"
BY_HAND = f"{TODAY - timedelta(days=2)}"
#: Everything that happens here is told to the sinks.
MESSAGES = {"email_to": ["team@example.org"], "webhook_connections": ["chat", "gone"], "late_hours": 0.005}


class Nights:
    """An Airflow whose worker does next to nothing, and its storage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "storage"
        for day in (*BACKFILLED, BY_HAND, NIGHT):
            path = self.root / f"corpus/{day}/_SUCCESS"
            path.parent.mkdir(parents=True)
            path.write_text("")
            path.with_name("part.parquet").write_bytes(b"")
        values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
        values |= {"root": f"file://{self.root}", "schedule": {"lag_hours": 0, "settle_minutes": 0}}
        values |= {"messages": MESSAGES}
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(values))
        worker = folder / "aitp"
        python = REPOSITORY / ".venv/worker/bin/python"
        worker.write_text(f'#!/bin/sh\nexec {python} {Path(__file__).with_name("line_worker.py")} "$@"\n')
        worker.chmod(0o755)
        self.line = str(values["assemble"]["dataset"]) if "assemble" in values else "aitp"
        # A second dataset of the same deployment, whose fine-tunes a person approves.
        other = values | {"assemble": {"dataset": OTHER}, "approval": {"before_finetune": True}}
        (folder / "other.yaml").write_text(yaml.safe_dump(other))
        self.services = Services(
            folder / "services",
            worker=worker,
            config=self.config,
            environment={
                "AITP_POLL_SECONDS": "12",
                "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
                "PYTHONPATH": str(REPOSITORY),
            },
        )
        self.services.start_airflow()
        self.sinks = Sinks()
        self.client: AirflowClient = self.services.client()
        self.client.put_pools(POOLS)
        self.connect("aitp_smtp", self.sinks.mail_connection())
        self.connect("chat", self.sinks.web_connection())
        self.connect("gone", self.sinks.web_connection(port=free_port()))
        self.client.put_note_connection(self.services)
        self.client.wait_for_dag()

    def backfill(self, first: str, last: str, *options: str) -> str:
        """``airflow backfill create``; what it prints."""
        command = ["backfill", "create", "--dag-id", DAG, "--from-date", first, "--to-date", last, *options]
        done = subprocess.run(
            [AIRFLOW_PROGRAM, *command],
            env={
                **os.environ,
                **self.services.airflow_environment(),
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def connect(self, name: str, connection: dict[str, Any]) -> None:
        """Create or replace a connection."""
        self.client._put("/api/v2/connections", name, {"connection_id": name, **connection})

    def stop(self) -> None:
        """End the services and the sinks."""
        self.services.stop()
        self.sinks.stop()

    def wait_for_all(self, count: int, seconds: float = 600) -> list[dict[str, Any]]:
        """All runs, once so many have ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            runs: list[dict[str, Any]] = self.client._get(f"/api/v2/dags/{DAG}/dagRuns", limit=100)[
                "dag_runs"
            ]
            if len(runs) >= count and all(run["state"] in ("success", "failed") for run in runs):
                return runs
            time.sleep(2)
        raise AssertionError([(run["dag_run_id"], run["state"]) for run in runs])

    def wait_for_task(self, run: str, task: str, state: str, seconds: float = 240) -> None:
        """Wait until a task of a run is in a state."""
        deadline = time.monotonic() + seconds
        states: dict[str, str] = {}
        while states.get(task) != state:
            assert time.monotonic() < deadline, states
            time.sleep(1)
            states = {one["task_id"]: one["state"] for one in self.client.task_instances(run)}

    def done(self) -> list[dict[str, Any]]:
        """What the runs' assemble tasks have written down, in the order of their plans."""
        found = [json.loads(path.read_text()) for path in self.root.glob("runs/*/x/done.json")]
        return sorted(found, key=lambda told: float(told["from"]))

    def log(self, run: str, task: str) -> str:
        """The logs of a task's tries."""
        paths = sorted(
            (self.services.logs / "tasks").glob(f"dag_id={DAG}/run_id={run}/task_id={task}/**/*.log")
        )
        return "\n".join(path.read_text() for path in paths)


def test_a_backfill_by_hand_and_the_night_take_turns_from_the_oldest_dump_on(nights: Nights) -> None:
    told = nights.backfill(BACKFILLED[0], BACKFILLED[-1], "--dry-run")
    # Both ends of the range are in it.
    assert all(day in told for day in BACKFILLED)
    assert BY_HAND not in told
    # One of them fails in the middle, and gives its turn back.
    (nights.root / f"runs/{BACKFILLED[1]}/x").mkdir(parents=True)
    (nights.root / f"runs/{BACKFILLED[1]}/x/fail-answer").write_text("")
    nights.backfill(BACKFILLED[0], BACKFILLED[-1])
    by_hand = nights.client.trigger({"dump": BY_HAND})
    # Unpausing starts the latest missed night.
    nights.client.set_paused(False)
    runs = nights.wait_for_all(5)
    states = {run["partition_key"] or "by hand": run["state"] for run in runs}
    failed = BACKFILLED[1]
    assert states == {**dict.fromkeys([*BACKFILLED, NIGHT, "by hand"], "success"), failed: "failed"}
    done = nights.done()
    # What has failed is left to its own run, not taken along by the night.
    expected = [BACKFILLED[0], BACKFILLED[2], BY_HAND, NIGHT]
    assert [told["dump"] for told in done] == expected
    assert [told["base"] and told["base"]["name"] for told in done] == [None, *expected[:-1]]
    assert all(told["is_latest"] for told in done)
    # One at a time: none began before the one before it had ended.
    assert all(before["to"] < after["from"] for before, after in itertools.pairwise(done))
    assert f"/{DAG}/" in nights.log(by_hand, "begin")
    assert "waits for" in nights.log(by_hand, "begin")
    assert nights.client.note(by_hand) == f"estimate: 2.50 GPU-hours for {BY_HAND}"


def test_what_people_have_noted_stays_when_plan_runs_again(nights: Nights) -> None:
    (run,) = (run["dag_run_id"] for run in nights.wait_for_all(5) if run["partition_key"] == NIGHT)
    estimate = f"estimate: 2.50 GPU-hours for {NIGHT}"
    assert nights.client.note(run) == estimate
    nights.client.put_note(run, "estimate: stale\nlooked at by Ada")
    nights.client.clear(run, ["plan"])
    assert nights.client.wait(run, seconds=240) == "success"
    assert nights.client.note(run) == f"looked at by Ada\n{estimate}"
    secret = nights.services.credentials.password
    assert secret not in nights.log(run, "plan")


def test_what_failed_goes_on_when_it_is_cleared_and_waits_for_its_turn_again(nights: Nights) -> None:
    runs = nights.wait_for_all(5)
    (failed,) = (run["dag_run_id"] for run in runs if run["state"] == "failed")
    nights.client.clear(failed, ["answer"], include_downstream=True)
    assert nights.client.wait(failed, seconds=240) == "success"
    tries = {task["task_id"]: task["try_number"] for task in nights.client.task_instances(failed)}
    assert tries["begin"] >= 2
    assert (tries["answer"], tries["end"]) == (2, 2)
    assert (tries["plan"], tries["embed"], tries["rewrite"]) == (1, 1, 1)
    # It was planned on a version that others have built on since: its own is there, and says so.
    told = next(told for told in nights.done() if told["dump"] == BACKFILLED[1])
    assert not told["is_latest"]
    assert (nights.root / f"datasets/{nights.line}/{BACKFILLED[1]}/version.json").exists()
    title = f"AITP: not promoted: another version came in between ({BACKFILLED[1]})"
    assert [mail["Subject"] for mail in nights.sinks.mails].count(title) == 1
    assert json.loads((nights.root / f"datasets/{nights.line}/lease.json").read_text()) == {}


def test_what_became_the_latest_is_told_to_other_dags_with_its_counts_and_report(nights: Nights) -> None:
    found = nights.client._get("/api/v2/assets/events", limit=100, order_by="timestamp")["asset_events"]
    told = [event for event in found if event["name"] == f"aitp dataset {nights.line}"]
    # The run that was finished late has made no event: its version is not the latest.
    expected = [BACKFILLED[0], BACKFILLED[2], BY_HAND, NIGHT]
    assert [event["extra"]["version"] for event in told] == expected
    assert [event["partition_key"] for event in told] == [BACKFILLED[0], BACKFILLED[2], None, NIGHT]
    first = told[0]
    run = f"file://{nights.root}/runs/{BACKFILLED[0]}/x"
    assert first["uri"] == f"file://{nights.root}/datasets/{nights.line}"
    assert first["extra"] == {
        "version": BACKFILLED[0],
        "dataset": f"file://{nights.root}/datasets/{nights.line}/{BACKFILLED[0]}",
        "run": run,
        "report": f"{run}/report/report.html",
        "pairs": 7,
        "earlier_pairs": 0,
        "sft_examples": 70,
        "parts_given_up": 0,
    }
    trained = [event for event in found if event["name"] == "aitp checkpoint line"]
    assert [event["extra"]["version"] for event in trained] == [*expected, BACKFILLED[1]]
    assert trained[0]["extra"]["train_loss_last"] == 1.0


def test_every_task_links_to_its_outputs_the_report_and_the_run(nights: Nights) -> None:
    run = nights.done()[0]["dump"]
    dag_run = next(one["dag_run_id"] for one in nights.wait_for_all(5) if one["partition_key"] == run)
    place = f"file://{nights.root}/runs/{run}/x"
    for task in ("plan", "embed", "merge", "rewrite", "report"):
        index = 0 if task in ("embed", "rewrite") else -1
        links = nights.client._get(
            f"/api/v2/dags/{DAG}/dagRuns/{dag_run}/taskInstances/{task}/links", map_index=index
        )["extra_links"]
        assert links == {
            "Outputs": f"{place}/{task}/",
            "Report": f"{place}/report/report.html",
            "Run": f"{place}/",
        }


@pytest.mark.operation("backfill-without-dumps")
def test_a_day_without_a_dump_ends_green_and_skips_the_rest(nights: Nights) -> None:
    day = f"{TODAY - timedelta(days=9)}"
    before = len(nights.wait_for_all(5))
    nights.backfill(day, day)
    runs = nights.wait_for_all(before + 1)
    run = next(run for run in runs if run["partition_key"] == day)
    assert run["state"] == "success"
    states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run["dag_run_id"])}
    assert states.pop("begin") == "success"
    assert set(states.values()) == {"skipped"}
    assert f"nothing new, all that follows is skipped: {{'{day}': 'there is none'}}" in nights.log(
        run["dag_run_id"], "begin"
    )


@pytest.mark.operation("dump-twice")
def test_a_typo_by_hand_is_an_error(nights: Nights) -> None:
    run = nights.client.trigger({"dump": "typo"}, partition_key="2020-01-01")
    assert nights.client.wait(run, seconds=120) == "failed"
    assert "names two dumps" in nights.log(run, "begin")


@pytest.mark.operation("give-up-part")
def test_a_part_that_is_marked_as_success_is_given_up_and_the_run_goes_on(nights: Nights) -> None:
    dump = "given-up"
    place = nights.root / f"runs/{dump}/x"
    place.mkdir(parents=True)
    (place / "fail-rewrite").write_text("")
    run = nights.client.trigger({"dump": dump})
    assert nights.client.wait(run, seconds=240) == "failed"
    nights.client.mark(run, "rewrite", 0, "success")
    assert nights.client.wait(run, seconds=240) == "success"
    states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run)}
    assert (states["score"], states["answer"], states["assemble"]) == ("success",) * 3
    told = [json.loads(line) for line in (place / "skipped").read_text().splitlines()]
    why = "its task rewrite was marked as success by hand"
    assert told == [["--run", f"file://{place}", "--unit", "0", "--stage", "rewrite", "--why", why]]


def test_another_dataset_is_chosen_by_name_and_its_fine_tune_waits_for_a_person(nights: Nights) -> None:
    runs = [nights.client.trigger({"dump": dump, "config": OTHER}) for dump in ("approved", "rejected")]
    for run, answer, expected in zip(runs, ("Approve", "Reject"), ("success", "skipped"), strict=True):
        nights.wait_for_task(run, "approve", "awaiting_input")
        asked = nights.client.asked(run, "approve")
        assert asked["subject"] == "Fine-tune on assemble?"
        assert "- new pairs: 7" in asked["body"]
        nights.client.answer(run, "approve", answer)
        assert nights.client.wait(run, seconds=240) == "success"
        states = {task["task_id"]: task["state"] for task in nights.client.task_instances(run)}
        assert (states["approve"], states["finetune"], states["report"]) == ("success", expected, expected)
        assert states["end"] == "success"
    lines = {told["line"] for told in nights.done() if told["dump"] in ("approved", "rejected")}
    assert lines == {OTHER}
    # Nobody is asked where the configuration does not say so.
    others = [run for run in nights.wait_for_all(1) if run["dag_run_id"] not in runs]
    assert any(
        task["task_id"] == "approve" and task["state"] == "success"
        for run in others
        for task in nights.client.task_instances(run["dag_run_id"])
    )


def test_a_configuration_that_is_not_there_is_refused_before_a_run_exists(nights: Nights) -> None:
    with pytest.raises(ServiceError, match="config"):
        nights.client.trigger({"dump": "x", "config": "../services/airflow"})
