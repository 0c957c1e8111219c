"""What Airflow and the DAG add to the work, where there is next to none.

    make bench-orchestration                    # everything
    make bench-orchestration PARTS="parse"      # some of: parse units celery noop

parse: ``parse_seconds`` of dags/aitp_refresh.py as the DAG processor parses it, which has imported Airflow
before; the median of nine processes.

units: 2,000 shards in 200 groups, planned and listed by the real ``aitp``; ``embed`` alone is a stand-in
that does nothing, so that all the seconds of its 200 units are overhead, ``overhead_seconds_per_unit``.
Beside it, in the same Airflow and pool, a bare DAG of 200 mapped tasks that return their number, before
and after; ``vs_bare_dag`` is the quotient of the two. Each is timed from its first task's start to its
last one's end. A unit is a task and a process, a bare task no more than a task.

celery: see celery_run.py.

noop: the run of the demo once more, in the demo's own Airflow and store (``make demo`` has to have been
run). ``noop_seconds`` are from its trigger to its end, ``noop_tasks_with_a_model`` its tasks whose logs
tell of an encoder, an engine or a training, ``noop_objects_written`` the objects that it has written all
the same.

Airflow on SQLite with LocalExecutor, four tasks at a time, but for celery. The last line of output is one
JSON object.
"""

import json
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from measure import run_parts

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from celery_run import celery  # noqa: E402

from demo.services import DAG, PARALLELISM, STATE, AirflowClient, Services  # noqa: E402

_PASSES = 9
_SHARDS, _GROUPS = 2000, 200
#: What logs say where a model is opened.
_MODELS = ("encoder on=", "engine dtype=", "engine endpoint=", "training dtype=", "training on ")
_BARE = "bare"
_BARE_DAG = f"""\
from airflow.sdk import dag, task


@dag(schedule=None, max_active_tasks=1000)
def {_BARE}():
    @task
    def numbers():
        return list(range({_GROUPS}))

    @task(pool="gpu")
    def one(number):
        return number

    one.expand(number=numbers())


{_BARE}()
"""
#: All but ``embed`` is the real command.
_STAND_IN = """\
#!/bin/sh
if [ "$1" = embed ]; then
    echo '{"stage": "embed", "seconds": 0, "label": "nothing"}'
    exit 0
fi
exec "%s" "$@"
"""
_PARSE = """\
import importlib
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.file import iter_airflow_imports
for name in iter_airflow_imports("dags/aitp_refresh.py"):
    importlib.import_module(name)
found = DagBag("dags/aitp_refresh.py")
assert not found.import_errors, found.import_errors
print(found.dagbag_stats[0].duration.total_seconds())
"""


def parse(folder: Path) -> dict[str, Any]:
    """Seconds of the DAG file's parse."""
    found = [_parsed(folder) for _ in range(_PASSES)]
    return {"parse_seconds": round(statistics.median(found), 3)}


def _parsed(folder: Path) -> float:
    environment = Services(folder / "services").airflow_environment()
    done = subprocess.run(
        [sys.executable, "-c", _PARSE],
        cwd=REPOSITORY,
        env={**environment, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def units(folder: Path) -> dict[str, Any]:
    """Seconds of 200 units that do nothing, and of 200 tasks that do."""
    services = _light_services(folder)
    try:
        services.start_airflow()
        client = services.client()
        client.put_pools({"gpu": PARALLELISM})
        for dag in (_BARE, DAG):
            client.wait_for_dag(dag)
            client.set_paused(False, dag)
        before = _bare_seconds(client)
        ours = _embed_seconds(client)
        bare = (before + _bare_seconds(client)) / 2
    finally:
        services.stop()
    return {
        "shards": _SHARDS,
        "units": _GROUPS,
        "overhead_seconds_per_unit": round(ours / _GROUPS, 3),
        "bare_seconds_per_task": round(bare / _GROUPS, 3),
        "vs_bare_dag": round(ours / bare, 3),
    }


def _light_services(folder: Path) -> Services:
    """An Airflow with both DAGs, and a storage with the shards."""
    root, dags, worker = folder / "storage", folder / "dags", folder / "aitp"
    text = json.dumps({"text": "Of rivers, ports and grain."}) + "\n"
    _write(root / "sft/one/one.jsonl", json.dumps({"instruction": "Add one.", "output": "Two."}) + "\n")
    for number in range(_SHARDS):
        _write(root / f"corpus/dump/dump-{number:06d}.jsonl", text)
    _write(root / "corpus/dump/_SUCCESS", "")
    _write(dags / f"{_BARE}.py", _BARE_DAG)
    (dags / "aitp_refresh.py").symlink_to(REPOSITORY / "dags/aitp_refresh.py")
    values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
    values |= {"root": f"file://{root}", "dump": "dump", "sft": "one"}
    # One for the SFT set.
    values["plan"] = {"group_bytes": len(text) * _SHARDS // (_GROUPS - 1)}
    for section, name in (
        ("encoder", "model"),
        ("engine", "model"),
        ("finetune", "model"),
        ("prompts", "folder"),
    ):
        values[section][name] = str((REPOSITORY / "configs" / values[section][name]).resolve())
    _write(folder / "config.yaml", yaml.safe_dump(values))
    _write(worker, _STAND_IN % (REPOSITORY / ".venv/worker/bin/aitp"))
    worker.chmod(0o755)
    return Services(
        folder / "services",
        worker=worker,
        config=folder / "config.yaml",
        environment={"AIRFLOW__CORE__DAGS_FOLDER": str(dags)},
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _bare_seconds(client: AirflowClient) -> float:
    run = client.trigger({}, dag=_BARE)
    assert client.wait(run, dag=_BARE) == "success"
    return _seconds_of(client, run, "one", _BARE)


def _embed_seconds(client: AirflowClient) -> float:
    """Of the units; what follows them finds nothing, and fails."""
    run = client.trigger({"dump": "dump"})
    while not (found := _of(client, run, "merge", DAG)) or found[0]["state"] in (None, "scheduled", "queued"):
        assert client.state(run) != "failed", "the run has failed before its units"
        time.sleep(2)
    return _seconds_of(client, run, "embed", DAG)


def _of(client: AirflowClient, run: str, task: str, dag: str) -> list[dict[str, Any]]:
    return [one for one in client.task_instances(run, dag) if one["task_id"] == task]


def _seconds_of(client: AirflowClient, run: str, task: str, dag: str) -> float:
    """From the start of the first instance to the end of the last."""
    instances = _of(client, run, task, dag)
    assert len(instances) == _GROUPS, len(instances)
    assert {one["state"] for one in instances} == {"success"}
    starts, ends = (
        [datetime.fromisoformat(one[name]) for one in instances] for name in ("start_date", "end_date")
    )
    return (max(ends) - min(starts)).total_seconds()


def noop(folder: Path) -> dict[str, Any]:
    """Seconds of the demo's run where all of it is done."""
    services = Services(STATE / "demo")
    values = yaml.safe_load((REPOSITORY / "configs/demo.yaml").read_text())
    bucket, dump = values["root"].removeprefix("s3://"), values["dump"]
    services.start()
    try:
        client = services.client()
        client.set_paused(False)
        before = _objects(services, bucket)
        start = time.monotonic()
        run = client.trigger({"dump": dump})
        assert client.wait(run) == "success"
        seconds = time.monotonic() - start
        after = _objects(services, bucket)
        logs = (services.logs / "tasks" / f"dag_id={DAG}" / f"run_id={run}").rglob("*.log")
        loads = sum(any(said in path.read_text(errors="replace") for said in _MODELS) for path in logs)
    finally:
        services.stop()
    return {
        "noop_seconds": round(seconds, 1),
        "noop_tasks_with_a_model": loads,
        "noop_objects_written": len(after - before),
    }


def _objects(services: Services, bucket: str) -> set[tuple[str, str, str]]:
    pages = services.bucket_client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {
        (entry["Key"], entry["ETag"], str(entry["LastModified"]))
        for page in pages
        for entry in page.get("Contents", [])
    }


if __name__ == "__main__":
    run_parts({"parse": parse, "units": units, "celery": celery, "noop": noop}, sys.argv[1:])
