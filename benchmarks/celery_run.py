"""A whole run, all of it real, across two Celery workers of which one is killed in the middle of rewrite.

The services are those of docker-compose.yaml and docker-compose.gpu.yaml, started without Docker as the tests
do: Postgres, Redis, SeaweedFS, Airflow and a worker for each queue. The input is a small one of real
documents, the models are the demo's.

celery_seconds: of the run, with the kill. celery_requests, celery_reused: of rewrite, all, and those whose
responses the killed try had stored. celery_rewritten_objects: what was there when the worker was killed
and was written again. celery_tasks_tried_again: their names. celery_tasks: how many each queue had.
"""

import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from demo.services import REPOSITORY
from tests.e2e.deployment import Deployment

_BUCKET, _DUMP = "aitp", "mini"
_WORKER = REPOSITORY / ".venv/worker/bin"
_SETTINGS: dict[str, Any] = {
    "dump": _DUMP,
    "sft": "alpaca",
    # All documents, whatever their densities.
    "difference": {"tau": 1e9, "documents_per_part": 100},
    "finetune": {"max_steps": 4},
}


class _Real(Deployment):
    """The topology with the real ``aitp`` and real input."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.topology.extra["AITP_COMMAND"] = str(_WORKER / "aitp")
        path = folder / "configs/demo.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | _SETTINGS))

    def objects(self, prefix: str) -> dict[str, str]:
        """Keys below a prefix, with when each was written."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET, Prefix=prefix)
        return {one["Key"]: str(one["LastModified"]) for page in pages for one in page.get("Contents", [])}

    def rewritten(self, run: str) -> dict[str, Any]:
        """The figures of rewrite, of all parts."""
        prefix = f"{run.removeprefix(f's3://{_BUCKET}/')}/rewrite/"
        found = [key for key in self.objects(prefix) if key.endswith(".json")]
        read = [json.loads(self.bucket.get_object(Bucket=_BUCKET, Key=key)["Body"].read()) for key in found]
        return {name: sum(one["figures"][name] for one in read) for name in ("requests", "reused")}


def celery(folder: Path) -> dict[str, Any]:
    """Run it."""
    data = folder / "data"
    subprocess.run(
        [_WORKER / "python", REPOSITORY / "tests/e2e/in_worker.py", "data", str(data)],
        check=True,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    # Not below a folder that Postgres' user may not enter.
    place = Path(tempfile.mkdtemp(prefix="aitp-celery-"))
    place.chmod(0o755)
    deployment = _Real(place)
    try:
        deployment.start()
        return _run(deployment, data)
    finally:
        deployment.topology.stop()
        shutil.rmtree(place)


def _run(deployment: _Real, data: Path) -> dict[str, Any]:
    for path in sorted(data.rglob("*.parquet")):
        deployment.bucket.upload_file(str(path), _BUCKET, path.relative_to(data).as_posix())
    client = deployment.client
    client.wait_for_dag()
    client.set_paused(False)
    start = time.monotonic()
    run = client.trigger({"dump": _DUMP})
    # Some responses are stored, others are not.
    deployment.wait(lambda: deployment.objects("generations/"), seconds=1200)
    deployment.kill("worker-gpu")
    before = deployment.objects("")
    deployment.topology.spawn("worker-gpu", "worker-gpu-again")
    state = client.wait(run)
    assert state == "success", {n: s for n, s in deployment.states(run).items() if s != "success"}
    seconds = time.monotonic() - start
    after = deployment.objects("")
    instances = client.task_instances(run)
    figures = deployment.rewritten(client.result(run, "plan")["run"])
    return {
        "celery_seconds": round(seconds),
        "celery_requests": figures["requests"],
        "celery_reused": figures["reused"],
        "celery_rewritten_objects": sorted(
            key for key in before if after.get(key, before[key]) != before[key]
        ),
        "celery_tasks_tried_again": sorted({one["task_id"] for one in instances if one["try_number"] > 1}),
        "celery_tasks": dict(Counter(one["queue"] for one in instances if one["state"] == "success")),
    }
