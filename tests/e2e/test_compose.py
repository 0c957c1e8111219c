"""The compose files, really started: Postgres, Redis, SeaweedFS, Airflow, two Celery workers.

The services' commands, environment, order and health checks are the files' own (``compose.py``).
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from demo.services import REPOSITORY, STATE, AirflowClient, bucket_client
from tests.e2e.compose import BASE, Topology, interpolated, read
from tests.e2e.nights import stand_in

pytestmark = pytest.mark.slow

VALUES = runpy.run_path(str(REPOSITORY / "docker/env.py"))["VALUES"]
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker", "worker-gpu")
#: Rows of the dump, and of each of its chunks.
ROWS, CHUNK = 3072, 512
#: A worker that is killed is missed after so many seconds, not after five minutes.
SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    # No nightly runs of dumps that are not there.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
}
#: How whole chunks are called.
WHOLE = [f"rows-{row:012}-{row + CHUNK:012}.parquet" for row in range(0, ROWS, CHUNK)]
AGAIN = "Task already running elsewhere, ignoring redelivered message"


class Deployment:
    """The topology, and what the tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values = {name: make() for name, make in VALUES.items()} | {"AITP_GPU_SLOTS": "2"}
        (folder / "test").mkdir()
        configs = folder / "configs"
        configs.mkdir()
        gpu = {"queue": "gpu"}
        mine = {
            "extends": str(REPOSITORY / "configs/demo.yaml"),
            "root": "s3://aitp",
            "dump": "made",
            "sft": "sums",
            "workers": {"encoder": gpu, "engine": gpu, "finetune": gpu},
            "schedule": {"settle_minutes": 0},
        }
        (configs / "demo.yaml").write_text(yaml.safe_dump(mine))
        self.topology = Topology(
            folder / "topology",
            self.values,
            binds={"./configs": configs},
            environment={
                **SOON,
                "AITP_COMMAND": str(stand_in(folder, "compose_worker.py")),
                "AITP_TEST_FOLDER": str(folder / "test"),
                "PYTHONPATH": str(REPOSITORY),
                "AITP_POLL_SECONDS": "2",
                # The compiled encoder is the checkout's, as in the other tests.
                "AITP_CACHE": str(STATE / "cache"),
            },
        )

    def start(self) -> None:
        """Start all services, each when those are well that it depends on."""
        self.topology.start(*AIRFLOW)
        for name in AIRFLOW:
            self.topology.wait_until_healthy(name)
        api = self.topology.port("api-server", 8080)
        self.client = AirflowClient(f"http://127.0.0.1:{api}", "admin", self.values["AITP_ADMIN_PASSWORD"])
        store = f"http://127.0.0.1:{self.topology.port('store', 8333)}"
        keys = (self.values["AITP_STORE_ACCESS_KEY"], self.values["AITP_STORE_SECRET_KEY"])
        self.bucket = bucket_client(store, *keys)

    def begin(self) -> None:
        """Start a run, whose first task waits until the file that is ``held`` is gone."""
        words = "the harbour was rebuilt after the fire of that year by"
        self.put("corpus/made/a.jsonl", [{"text": f"{words} {n} masons."} for n in range(ROWS)])
        sums = [{"instruction": f"{n} + 1?", "input": "", "output": f"{n + 1}"} for n in range(20)]
        self.put("sft/sums/a.jsonl", sums)
        self.held = self.hold("line")
        self.client.wait_for_dag()
        self.client.set_paused(False)
        self.run = self.client.trigger({"dump": "made"})

    def put(self, key: str, rows: list[dict[str, str]]) -> None:
        """Put a file of JSON lines into the bucket."""
        text = "\n".join(json.dumps(row) for row in rows)
        self.bucket.put_object(Bucket="aitp", Key=key, Body=text.encode())

    def chunks(self) -> dict[str, datetime]:
        """Keys of the dump's chunks, with when each was written."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket="aitp", Prefix="embeddings/")
        found = [one for page in pages for one in page.get("Contents", ())]
        named = {one["Key"]: one["LastModified"] for one in found}
        # The SFT set is less than a chunk.
        return {key: at for key, at in named.items() if key.endswith(tuple(WHOLE))}

    def calls(self) -> Counter[str]:
        """How often each command was called."""
        lines = (self.folder / "test/calls").read_text().splitlines()
        return Counter(json.loads(line)[0] for line in lines)

    def hold(self, stage: str) -> Path:
        """Let a stage wait until the file is gone."""
        path = self.folder / f"test/hold-{stage}"
        path.touch()
        return path

    def wait(self, what: Callable[[], Any], seconds: float = 600) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, {n: self.topology.log(n) for n in ("scheduler", "worker-gpu")}
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """Kill a service with all that it has started, as the end of its container does."""
        process = psutil.Process(self.topology.started[name].pid)
        for one in [process, *process.children(recursive=True)]:
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.topology.started[name].wait()

    def states(self, run: str) -> dict[str, Any]:
        """State of each task instance of a run."""
        return {one["task_id"]: one["state"] for one in self.client.task_instances(run)}


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    # Not below pytest's folder, which Postgres' user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="aitp-compose-"))
    folder.chmod(0o755)
    made = Deployment(folder)
    try:
        made.start()
        made.begin()
        yield made
    finally:
        made.topology.stop()
        left = list(made.topology.processes())
        shutil.rmtree(folder)
    assert left == []


def test_each_service_is_well_by_its_own_check_and_listens_on_loopback_only(deployment: Deployment) -> None:
    topology = deployment.topology
    assert topology.services.keys() == {"postgres", "redis", "store", "init", *AIRFLOW}
    listening = {
        connection.laddr.ip
        for process in topology.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    for process in topology.processes():
        shown = " ".join(process.cmdline())
        assert [name for name, value in deployment.values.items() if len(value) > 9 and value in shown] == []


def test_the_database_is_postgres_and_a_worker_does_not_know_its_password(deployment: Deployment) -> None:
    values = deployment.values
    asked = ["psql", "--host=127.0.0.1", f"--port={deployment.topology.port('postgres', 5432)}"]
    asked += ["--username=airflow", "--no-align", "--tuples-only", "--command=SELECT slots FROM slot_pool"]
    asked += ["airflow"]
    environment = {**os.environ, "PGPASSWORD": values["AITP_POSTGRES_PASSWORD"]}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=30)
    assert sorted(done.stdout.split()) == ["128", "2"], done.stderr
    wrong = {**environment, "PGPASSWORD": "airflow"}
    refused = subprocess.run(asked, env=wrong, capture_output=True, text=True, timeout=30)
    assert "password authentication failed" in refused.stderr
    secrets = ("AITP_POSTGRES_PASSWORD", "AITP_FERNET_KEY", "AITP_API_SECRET", "AITP_JWT_SECRET")
    for name in ("worker", "worker-gpu"):
        told = " ".join(deployment.topology.environment(name).values())
        assert [secret for secret in secrets if values[secret] in told] == []


def test_the_broker_refuses_whoever_has_no_password(deployment: Deployment) -> None:
    port = deployment.topology.port("redis", 6379)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"KEYS *\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_init_may_run_again(deployment: Deployment) -> None:
    login = deployment.topology.volume("airflow") / "login.json"
    before = login.read_text()
    assert stat.S_IMODE(login.stat().st_mode) == 0o600
    assert deployment.topology.spawn("init", AITP_GPU_SLOTS="3").wait(timeout=600) == 0
    assert login.read_text() == before
    assert deployment.client._get("/api/v2/pools/gpu")["slots"] == 3
    told = deployment.client._get("/api/v2/connections/aitp_s3")
    assert told["login"] == deployment.values["AITP_STORE_ACCESS_KEY"]


def test_a_task_that_runs_on_is_delivered_once(deployment: Deployment) -> None:
    # The broker looks every ten seconds for messages that nobody has acknowledged for too long.
    calls = deployment.folder / "test/calls"
    deployment.wait(calls.exists)
    deployment.wait(lambda: time.time() - calls.stat().st_mtime > 25)
    assert AGAIN not in (deployment.topology.logs / "worker.log").read_text()
    assert deployment.calls() == {"line": 1}
    deployment.held.unlink()


def test_a_run_goes_on_where_a_worker_was_killed_and_no_task_is_run_twice(deployment: Deployment) -> None:
    topology, client, run = deployment.topology, deployment.client, deployment.run
    rewrite = deployment.hold("rewrite")
    # In the middle of a unit: some chunks are there, others not.
    deployment.wait(deployment.chunks)
    deployment.kill("worker-gpu")
    before = deployment.chunks()
    assert 0 < len(before) < ROWS / CHUNK, "it was killed too late"
    # As `restart: unless-stopped` would; for this one a message is lost after three seconds.
    short = {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "3"}
    topology.spawn("worker-gpu", "worker-gpu-again", **short)
    deployment.wait(lambda: len(deployment.chunks()) == ROWS / CHUNK)
    after = deployment.chunks()
    assert {key: after[key] for key in before} == before

    # What a second delivery does: Airflow refuses to start a task that runs.
    deployment.wait(lambda: deployment.states(run).get("rewrite") == "running")
    again = topology.logs / "worker-gpu-again.log"
    told = again.read_text().count(AGAIN)
    deployment.wait(lambda: again.read_text().count(AGAIN) > told)
    rewrite.unlink()
    assert client.wait(run, seconds=600) == "success"

    calls = deployment.calls()
    once = ("plan", "merge", "index", "difference", "rewrite", "score", "answer", "assemble", "finetune")
    assert {stage: calls[stage] for stage in once} == dict.fromkeys(once, 1)
    instances = client.task_instances(run)
    tries = Counter(one["task_id"] for one in instances if one["try_number"] > 1)
    assert set(tries) == {"embed"}
    queues = {one["task_id"]: one["queue"] for one in instances}
    gpu = {name for name, queue in queues.items() if queue == "gpu"}
    assert gpu == {"embed", "assemble", "rewrite", "score", "answer", "finetune"}
    assert set(queues.values()) == {"gpu", "default"}


def test_without_the_second_file_the_scheduler_runs_the_units_itself(deployment: Deployment) -> None:
    topology, client = deployment.topology, deployment.client
    for name in ("worker", "worker-gpu-again", "scheduler"):
        deployment.kill(name)
    alone = interpolated(read(BASE)["services"]["scheduler"], {**deployment.values, "AITP_PARALLELISM": "2"})
    executor = {name: alone["environment"][f"AIRFLOW__CORE__{name}"] for name in ("EXECUTOR", "PARALLELISM")}
    assert executor == {"EXECUTOR": "LocalExecutor", "PARALLELISM": "2"}
    assert alone["command"] == topology.services["scheduler"]["command"]
    topology.spawn("scheduler", **{f"AIRFLOW__CORE__{name}": value for name, value in executor.items()})
    embedded = deployment.calls()["embed"]
    run = client.trigger({"dump": "made"})
    assert client.wait(run, seconds=600) == "success"
    # What was embedded is not embedded again, whatever executor runs it.
    assert deployment.calls()["embed"] == embedded
    assert deployment.states(run)["rewrite"] == "success"
