"""An Airflow whose worker does next to nothing (``line_worker.py``): what is tested is the control plane.

Its database is the Postgres of docker-compose.yaml, as in a deployment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from demo.services import AIRFLOW_PROGRAM, DAG, POOLS, REPOSITORY, AirflowClient, Services
from tests.docker.values import VALUES
from tests.e2e.compose import BASE, Topology
from tests.sinks import Sinks, free_port

TODAY = datetime.now(UTC).date()
#: The night's own dump is that of the day that has ended.
NIGHT = f"{TODAY - timedelta(days=1)}"
BACKFILLED = [f"{TODAY - timedelta(days=days)}" for days in (5, 4, 3)]
BY_HAND = f"{TODAY - timedelta(days=2)}"
#: A second dataset of the same deployment.
OTHER = "other"
#: Everything that happens here is told to the sinks.
MESSAGES = {"email_to": ["team@example.org"], "webhook_connections": ["chat", "gone"], "late_hours": 0.005}


def stand_in(folder: Path, script: str) -> Path:
    """A command in the place of ``aitp``: one of the scripts here, in the worker's environment."""
    worker = folder / "aitp"
    python = REPOSITORY / ".venv/worker/bin/python"
    worker.write_text(f'#!/bin/sh\nexec {python} {Path(__file__).with_name(script)} "$@"\n')
    worker.chmod(0o755)
    return worker


class Nights:
    """An Airflow whose worker does next to nothing, and its storage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "storage"
        for day in (*BACKFILLED, BY_HAND, NIGHT):
            self.add_dump(day, ["part"])
        values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
        values |= {"root": f"file://{self.root}", "schedule": {"lag_hours": 0, "settle_minutes": 0}}
        values |= {"messages": MESSAGES}
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(values))
        # Its fine-tunes and promotions a person approves.
        other = values | {"assemble": {"dataset": OTHER}}
        other |= {"approval": {"before_finetune": True, "before_promotion": True}}
        other |= {"evaluate": {"held_out": 0.1, "promote": "when_better"}}
        (folder / f"{OTHER}.yaml").write_text(yaml.safe_dump(other))
        self.line = str(values["assemble"]["dataset"]) if "assemble" in values else "aitp"
        # Not below pytest's folder, which Postgres' user may not enter.
        self.database = Topology(Path(tempfile.mkdtemp(prefix="aitp-postgres-")), VALUES, files=(BASE,))
        self.database.folder.chmod(0o755)
        connection = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
        self.database_variable = {connection: self.database.environment("scheduler")[connection]}
        self.services = Services(
            folder / "services",
            worker=stand_in(folder, "line_worker.py"),
            config=self.config,
            environment={
                **self.database_variable,
                "AITP_POLL_SECONDS": "12",
                "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",
                "PYTHONPATH": str(REPOSITORY),
            },
        )
        self.sinks = Sinks()

    def start(self) -> None:
        """Start it, the DAG still paused."""
        self.database.start("postgres")
        self.database.wait_until_healthy("postgres")
        self.services.start_airflow()
        self.client: AirflowClient = self.services.client()
        self.client.put_pools(POOLS)
        self.connect("aitp_smtp", self.sinks.mail_connection())
        self.connect("chat", self.sinks.web_connection())
        self.connect("gone", self.sinks.web_connection(port=free_port()))
        self.client.put_note_connection(self.services)
        self.client.wait_for_dag()

    def stop(self) -> None:
        """End the services, their database and the sinks."""
        self.services.stop()
        self.database.stop()
        shutil.rmtree(self.database.folder)
        self.sinks.stop()

    def connect(self, name: str, connection: dict[str, Any]) -> None:
        """Create or replace a connection."""
        self.client._put("/api/v2/connections", name, {"connection_id": name, **connection})

    def add_dump(self, name: str, shards: list[str]) -> None:
        """A dump that is whole."""
        folder = self.root / f"corpus/{name}"
        folder.mkdir(parents=True)
        for shard in shards:
            (folder / f"{shard}.parquet").write_bytes(b"")
        (folder / "_SUCCESS").write_text("")

    def folder(self, dump: str) -> Path:
        """Folder of the run on a dump."""
        return self.root / f"runs/{dump}/x"

    def tell(self, dump: str, what: str, text: str) -> Path:
        """Tell the stand-in what to do on a dump (``line_worker.py``)."""
        path = self.folder(dump) / what
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def planned(self, dump: str) -> dict[str, Any]:
        """What the run on a dump was planned with."""
        deadline = time.monotonic() + 120
        while not (path := self.folder(dump) / "plan.json").exists():
            assert time.monotonic() < deadline, f"{dump} was not planned"
            time.sleep(0.2)
        return dict(json.loads(path.read_text()))

    def backfill(self, first: str, last: str, *options: str) -> str:
        """``airflow backfill create``; what it prints."""
        command = ["backfill", "create", "--dag-id", DAG, "--from-date", first, "--to-date", last, *options]
        done = subprocess.run(
            [AIRFLOW_PROGRAM, *command],
            env={
                **os.environ,
                **self.services.airflow_environment(),
                **self.database_variable,
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

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

    def wait_for_question(self, run: str, task: str = "approve", seconds: float = 240) -> None:
        """Wait until a task asks a person, and the scheduler knows that the process that asks has ended.

        Airflow fails a task that is answered before that (``ApproveOperator`` asks again then).
        """
        self.wait_for_task(run, task, "awaiting_input", seconds)
        told = f"TaskInstance Finished: dag_id={DAG}, task_id={task}, run_id={run},"
        deadline = time.monotonic() + seconds
        while told not in (self.services.logs / "scheduler.log").read_text():
            assert time.monotonic() < deadline, "the process that asks has not ended"
            time.sleep(0.5)

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
