"""The compose files, really started: Postgres, Redis, SeaweedFS, Airflow, two Celery workers.

The services' commands, environment, order and health checks are the files' own (``compose.py``).
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.compose import BASE, interpolated, read
from tests.e2e.deployment import AIRFLOW, CHUNK, ROWS, Deployment

pytestmark = pytest.mark.slow

#: What Celery says of a second delivery.
AGAIN = "Task already running elsewhere, ignoring redelivered message"


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
