"""What happens when people do things, in a real Airflow: each test is a row of docs/operations.md.

The worker's stages do next to nothing (``operations_worker.py``), so that what is tested is what
Airflow and the operator make of it; the line, its lease and its versions are the real ones.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from demo.services import DAG, POOLS, REPOSITORY, AirflowClient, ServiceError, Services

DUMP = "2026-11-20"
TASK_OF_ONE = ("embed", 0)


class Operations:
    """An Airflow, its stand-in worker, and what the tests do to both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.config = folder, folder / "storage", folder / "config.yaml"
        (self.root / f"corpus/{DUMP}").mkdir(parents=True)
        (self.root / f"corpus/{DUMP}/part.parquet").write_bytes(b"")
        self.values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
        self.values |= {"root": f"file://{self.root}", "assemble": {"dataset": "aitp"}}
        self.config.write_text(yaml.safe_dump(self.values))
        worker = folder / "aitp"
        python, script = REPOSITORY / ".venv/worker/bin/python", Path(__file__).with_name("operations_worker.py")
        worker.write_text(f'#!/bin/sh\nexec {python} {script} "$@"\n')
        worker.chmod(0o755)
        self.services = Services(
            folder / "services",
            worker=worker,
            config=self.config,
            environment={
                "AITP_POLL_SECONDS": "2",
                "OPERATIONS": str(folder),
                "PYTHONPATH": str(REPOSITORY),
                # So that what has vanished is missed in seconds, not minutes.
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
                "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
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

    def forget(self, stage: str) -> None:
        """Remove a stage's manifests, so that there is work again."""
        for path in self.root.glob(f"runs/*/*/{stage}.json"):
            path.unlink()

    @contextmanager
    def at_work(self, run: str, stage: str, *others: str) -> Iterator[psutil.Process]:
        """Clear a stage and keep it at work; its process. Afterwards it may go on."""
        self.forget(stage)
        (self.folder / f"hold-{stage}").touch()
        (self.folder / f"at-{stage}").unlink(missing_ok=True)
        try:
            self.client.clear(run, [stage, *others])
            yield self.process_of(stage)
        finally:
            (self.folder / f"hold-{stage}").unlink(missing_ok=True)

    def process_of(self, stage: str, but: int = 0, seconds: float = 90) -> psutil.Process:
        """The process of a stage that is at work."""
        path = self.folder / f"at-{stage}"
        until(lambda: path.exists() and path.read_text() not in ("", str(but)), seconds)
        return psutil.Process(int(path.read_text()))


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
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
    """Three runs of one dump that were started at once, two of them with the same configuration."""
    params = {"first": {}, "same": {}, "other": {"difference__tau": 0.5}}
    started = {name: airflow.client.trigger({"dump": DUMP} | param) for name, param in params.items()}
    assert {airflow.client.wait(run, seconds=300) for run in started.values()} == {"success"}
    return started
