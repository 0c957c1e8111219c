"""One object store for all of these tests, and one finished run of the whole pipeline, really started."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from demo.services import POOLS, AirflowClient, Services

if TYPE_CHECKING:
    from tests.e2e.nights import Nights

BUCKET = "e2e"
ROOT = f"s3://{BUCKET}"


#: Last: what they do there, earlier tests on the same services do not expect.
LAST = ("test_browser.py", "test_documented_commands.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share services come in an order in which none is in another's way."""
    items.sort(key=lambda item: item.path.name in LAST)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """SeaweedFS alone."""
    services = Services(tmp_path_factory.mktemp("store"))
    services.start_store()
    yield services
    services.stop()


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Nights]":
    """An Airflow with a real line, and stages that do next to nothing."""
    from tests.e2e.nights import Nights

    made = Nights(tmp_path_factory.mktemp("line"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[2]


class Pipeline:
    """The services, and what the tests ask of them."""

    def __init__(self, services: Services, repository: Path, config: Path) -> None:
        self.services = services
        self.config = config
        self.client: AirflowClient = services.client()
        self.bucket = services.bucket_client()
        self._repository = repository

    def refresh(self, dump: str, seconds: float = 1200) -> tuple[str, str]:
        """Run the DAG on a dump; the run's id and final state."""
        run = self.client.trigger({"dump": dump})
        return run, self.client.wait(run, seconds=seconds)

    def etags(self, prefix: str = "") -> dict[str, str]:
        """Key and ETag of every object."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}

    def sizes(self) -> dict[str, int]:
        """Key and bytes of every object."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        """One object."""
        data: bytes = self.bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def manifests(self, run_uri: str, stage: str) -> list[dict[str, Any]]:
        """All manifests of one stage of a run."""
        prefix = f"{run_uri.removeprefix(ROOT + '/')}/{stage}/"
        # A manifest lies in the stage's own folder; below it lies what a try has made.
        names = [key for key in self.etags(prefix) if "/" not in key.removeprefix(prefix)]
        return [json.loads(self.read(key)) for key in names if key.endswith(".json")]

    def in_worker(self, *arguments: str) -> dict[str, Any]:
        """Run ``in_worker.py`` in the worker environment."""
        return self._run("python", str(Path(__file__).with_name("in_worker.py")), *arguments)

    def estimate(self, dump: str, *settings: str) -> dict[str, Any]:
        """What ``aitp estimate`` says of a run."""
        given = [word for setting in (f"dump={dump}", *settings) for word in ("--set", setting)]
        return self.aitp("estimate", "--config", str(self.config), *given)

    def refusal(self, command: str, *settings: str) -> str:
        """The last line of a command that refuses its configuration."""
        given = [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            [self._repository / ".venv/worker/bin/aitp", command, "--config", str(self.config), *given],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, **self.services.storage_environment()},
        )
        assert done.returncode == 2, done.stderr[-3000:]
        return done.stderr.splitlines()[-1]

    def aitp(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the worker environment against the store."""
        return self._run("aitp", *arguments)

    def _run(self, program: str, *arguments: str) -> dict[str, Any]:
        """Run a program of the worker environment; its last line is JSON."""
        done = subprocess.run(
            [self._repository / ".venv/worker/bin" / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={**os.environ, **self.services.storage_environment()},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("e2e")
    values = yaml.safe_load((repository / "configs/demo.yaml").read_text())
    values |= {"root": ROOT, "dump": "hostile+mini", "failure_budget": 0.6}
    for section in ("encoder", "engine", "finetune"):
        values[section]["model"] = str((repository / "configs" / values[section]["model"]).resolve())
    values["prompts"] = {
        "folder": str(repository / "prompts"),
        "sampling": {"max_tokens": 160, "repetition_penalty": 1.1},
        "second_attempt": False,
        "failure_budget": 0.95,
    }
    values["plan"] = {"group_bytes": 20_000}
    # Every document is below this threshold: all of them go through every stage.
    values["difference"] = {"tau": 1e9, "max_documents": 100, "documents_per_part": 9}
    values["gates"] = {"min_quality": 1, "min_difficulty": 1, "allow_additional_information": True}
    values["assemble"] = {"dataset": "e2e", "max_rewritten_share": 0.5}
    values["finetune"] |= {"max_steps": 4, "max_length": 256}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    services = Services(folder / "services", config=config)
    try:
        services.start()
        made = Pipeline(services, repository, config)
        made.bucket.create_bucket(Bucket=BUCKET)
        made.client.put_pools(POOLS)
        made.client.put_s3_connection(services)
        made.client.wait_for_dag()
        made.client.set_paused(False)
        yield made
    finally:
        services.stop()
        assert not services.running()


@pytest.fixture(scope="session")
def data(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    facts = pipeline.in_worker("data", str(folder))
    for path in folder.rglob("*.parquet"):
        pipeline.bucket.put_object(
            Bucket=BUCKET, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes()
        )
    return facts


class Watch(threading.Thread):
    """Collects the addresses beyond loopback that the services' processes listen on."""

    def __init__(self, services: Services) -> None:
        super().__init__(daemon=True)
        self._services = services
        self._ended = threading.Event()
        self.looked = 0
        self.beyond: set[str] = set()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            for process in self._services.processes():
                self._look_at(process)

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _look_at(self, process: psutil.Process) -> None:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    self.looked += 1
                    if connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
                        self.beyond.add(f"{process.name()} {connection.laddr.ip}:{connection.laddr.port}")
        except psutil.Error:
            return


@pytest.fixture(scope="session")
def first(pipeline: Pipeline, data: dict[str, Any]) -> dict[str, Any]:
    """The first run of the two dumps, watched."""
    watch = Watch(pipeline.services)
    watch.start()
    run, state = pipeline.refresh("mini+hostile")
    watch.end()
    logs = pipeline.services.logs / "tasks"
    failed = [path for path in sorted(logs.rglob("attempt=*.log")) if "error:" in path.read_text()]
    assert state == "success", [path.read_text()[-3000:] for path in failed]
    return {"dag_run": run, "watch": watch, "keys": pipeline.etags(), **pipeline.client.result(run, "report")}
