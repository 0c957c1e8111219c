"""A deployment by the compose files, and what tests and a benchmark ask of it."""

from __future__ import annotations

import json
import runpy
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from demo.services import REPOSITORY, STATE, AirflowClient, bucket_client
from tests.e2e.compose import Topology
from tests.e2e.nights import stand_in

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
