"""The demo's main job: start the services, bring the data, run the DAG, show how it goes.

What is here: what a person sees of ``make demo``. What is not here: the services
(demo/services.py), the models and data (demo/prepare.py), and the pipeline.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import AitpError
from aitp_tasks.stages import STAGES
from demo.services import CONFIG, DAG, POOLS, STATE, USER, AirflowClient, ServiceError, Services

POLL_SECONDS = 1.0
#: Without a terminal, a stage that runs is mentioned this often.
MENTION_SECONDS = 30.0
FIGURES = ("documents", "selected", "questions", "kept", "pairs", "train_loss_first", "train_loss_last")
FINISHED = ("success", "skipped", "failed", "upstream_failed", "removed")


class DemoError(Exception):
    """The demo did not work; the message names the failed task and its log."""


@dataclass(frozen=True)
class StageProgress:
    """How far one stage is.

    Attributes:
        name: the stage.
        total: its units, or None while that is not known.
        done: units that are finished.
        failed: of these, the ones that failed.
        running: units that run now.
        retrying: units that wait for their next try.
        seconds: since its first unit started, until now or its end.
        skipped: whether there was nothing to do.
    """

    name: str
    total: int | None
    done: int
    failed: int
    running: int
    retrying: int
    seconds: float
    skipped: bool

    @classmethod
    def of(cls, name: str, instances: Iterable[dict[str, Any]], now: datetime) -> StageProgress:
        """From the task instances of one stage."""
        rows = list(instances)
        states = [row["state"] for row in rows]
        starts = [datetime.fromisoformat(row["start_date"]) for row in rows if row["start_date"]]
        finished = bool(rows) and all(state in FINISHED for state in states)
        ends = [datetime.fromisoformat(row["end_date"]) for row in rows if row["end_date"]]
        end = max(ends, default=now) if finished else now
        # Before Airflow knows the units there is one row that stands for all.
        unknown = all(row["map_index"] == -1 and row["state"] is None for row in rows)
        return cls(
            name=name,
            total=None if unknown else len(rows),
            done=sum(state in FINISHED for state in states),
            failed=sum(state in ("failed", "upstream_failed") for state in states),
            running=sum(state == "running" for state in states),
            retrying=sum(state == "up_for_retry" for state in states),
            seconds=(end - min(starts)).total_seconds() if starts else 0.0,
            skipped=finished and all(state in ("skipped", "removed") for state in states),
        )

    @property
    def complete(self) -> bool:
        """Whether all units are finished."""
        return self.total is not None and self.done == self.total

    @property
    def rate(self) -> float | None:
        """Finished units a second."""
        return self.done / self.seconds if self.done and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None while no unit of several is finished."""
        if self.total is None or self.complete or self.rate is None:
            return None
        return (self.total - self.done) / self.rate

    def units(self) -> str:
        """Units done of all."""
        return f"{self.done}/{'?' if self.total is None else self.total}"

    def state(self) -> str:
        """One word."""
        if self.failed:
            return "failed"
        if self.skipped:
            return "skipped"
        if self.complete:
            return "done"
        if self.running:
            return "running"
        return "retry" if self.retrying else "waiting"

    def columns(self) -> tuple[str, str, str, str, str]:
        """State, units, rate, time so far and time left, as text."""
        rate = f"{self.rate * 60:.1f}/min" if self.rate and (self.total or 0) > 1 else ""
        left = f"{self.seconds_left:.0f} s left" if self.seconds_left is not None else ""
        return self.state(), self.units(), rate, f"{self.seconds:.0f} s" if self.seconds else "", left


def stages_of(instances: list[dict[str, Any]]) -> list[StageProgress]:
    """Progress of every stage, in their order."""
    now = datetime.now(UTC)
    return [
        StageProgress.of(stage.name, [row for row in instances if row["task_id"] == stage.name], now)
        for stage in STAGES
    ]


class PlainDisplay:
    """A line whenever a stage gets further, for a log file."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, str]] = {}
        self._when: dict[str, float] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, stages: list[StageProgress]) -> None:
        """Print what changed, and now and then what still runs."""
        now = time.monotonic()
        for stage in stages:
            state, units, rate, spent, left = stage.columns()
            due = state == "running" and now - self._when.get(stage.name, now) > MENTION_SECONDS
            if state == "waiting" or (self._shown.get(stage.name) == (state, units) and not due):
                continue
            self._shown[stage.name] = (state, units)
            self._when[stage.name] = now
            print(
                "  ".join(text for text in (f"{stage.name:<10}", state, units, rate, spent, left) if text),
                flush=True,
            )


class TerminalDisplay:
    """A table of all stages that is drawn again and again."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> TerminalDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def show(self, stages: list[StageProgress]) -> None:
        """Draw the table."""
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "", "", "units", "rate", "time", "left"):
            table.add_column(title, justify="left" if title in ("stage", "") else "right")
        colours = {"failed": "red", "retry": "yellow", "running": "cyan", "done": "green"}
        for stage in stages:
            state, units, rate, spent, left = stage.columns()
            bar = ProgressBar(total=stage.total or 1, completed=stage.done, width=24)
            table.add_row(stage.name, bar, Text(state, colours.get(state, "dim")), units, rate, spent, left)
        self._live.update(Group(table))


def upload(services: Services, data: Path, bucket: str) -> int:
    """Bring the data into the bucket under the same keys; how many files were missing or different."""
    client = services.bucket_client()
    if bucket not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    there = {entry["Key"]: entry["ETag"].strip('"') for page in pages for entry in page.get("Contents", [])}
    count = 0
    for path in sorted(data.rglob("*.parquet")):
        key = path.relative_to(data).as_posix()
        # One put of a few megabytes: its ETag is the content's MD5.
        content = path.read_bytes()
        if there.get(key) != hashlib.md5(content, usedforsecurity=False).hexdigest():
            client.put_object(Bucket=bucket, Key=key, Body=content)
            count += 1
    return count


def follow(client: AirflowClient, run: str, display: PlainDisplay | TerminalDisplay) -> str:
    """Show a run's progress until its end; its final state."""
    with display:
        while True:
            state = client.state(run)
            display.show(stages_of(client.task_instances(run)))
            if state in ("success", "failed"):
                return state
            time.sleep(POLL_SECONDS)


def failures(services: Services, client: AirflowClient, run: str) -> str:
    """What failed, why, and where it is logged; for a person."""
    lines = []
    for row in client.task_instances(run):
        if row["state"] != "failed":
            continue
        unit = "" if row["map_index"] < 0 else f" [{row['rendered_map_index'] or row['map_index']}]"
        log = task_log(services.logs / "tasks", run, row)
        lines += [f"task {row['task_id']}{unit} failed: {error_line(log)}", f"  its log: {log}"]
    return (
        "\n".join(lines) or f"run {run} failed without a failed task: see {services.logs / 'scheduler.log'}"
    )


def task_log(folder: Path, run: str, row: dict[str, Any]) -> Path:
    """Log file of a task instance's last try."""
    path = folder / f"dag_id={DAG}" / f"run_id={run}" / f"task_id={row['task_id']}"
    if row["map_index"] >= 0:
        path /= f"map_index={row['map_index']}"
    return path / f"attempt={row['try_number']}.log"


def error_line(log: Path) -> str:
    """The last ``error:`` line of a task log, else the last exception's message."""
    found = last_exception = ""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it left no log"
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if str(entry.get("event", "")).startswith("error:"):
            found = str(entry["event"])
        for detail in entry.get("error_detail") or []:
            last_exception = f"{detail.get('exc_type')}: {detail.get('exc_value')}"
    return found or last_exception or "no reason in its log"


def run_demo(services: Services, console: Console) -> dict[str, Any]:
    """Everything from the first service to the report's result.

    Raises:
        DemoError: the run failed.
        ServiceError: a service does not work.
    """
    config = RunConfig.load(CONFIG)
    bucket = config.root.removeprefix("s3://").partition("/")[0]
    say(f"starting the object store and Airflow (logs: {services.logs})")
    services.start()
    say(f"uploaded {upload(services, STATE / 'data', bucket)} files to s3://{bucket}")
    client = services.client()
    client.put_pools(POOLS)
    client.put_s3_connection(services)
    client.put_note_connection(services)
    client.wait_for_dag()
    client.set_paused(False)
    # A demo that was interrupted left its run behind; Airflow takes it up again by itself.
    run = client.active_run() or client.trigger({"dump": config.dump})
    say(f"run {run} of {DAG}: {services.ui}/dags/{DAG}/runs/{run}")
    display = TerminalDisplay(console) if console.is_terminal else PlainDisplay()
    if follow(client, run, display) != "success":
        raise DemoError(failures(services, client, run))
    result: dict[str, Any] = client.result(run, "report")
    return result


def show_end(services: Services, result: dict[str, Any], seconds: float) -> None:
    """The figures, where everything lies, and the one line for machines."""
    say("")
    for name in FIGURES:
        say(f"  {name.replace('_', ' '):<18}{result[name]}")
    say("")
    for name in ("dataset", "report", "checkpoint"):
        say(f"  {name:<18}{result[name]}")
    say(f"  {'object store':<18}{services.endpoint} (keys: {services.state_dir / 'credentials.json'})")
    say(f"  {'Airflow':<18}{services.ui} (user {USER}, password: {services.login_file})")
    say("  Airflow and the object store go on running; `make demo-down` stops them.")
    say("")
    figures = " ".join(f"{name}={result[name]}" for name in FIGURES)
    say(f"AITP demo: {figures} seconds={seconds:.0f}")


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def main() -> int:
    """Run the demo; 0 when it worked."""
    started = time.monotonic()
    services = Services(STATE / "demo")
    try:
        result = run_demo(services, Console())
    except httpx.HTTPError as error:
        print(
            f"AITP demo failed: Airflow does not answer: {error}\nservice logs: {services.logs}",
            file=sys.stderr,
        )
        return 1
    except (AitpError, BotoCoreError, ClientError, DemoError, ServiceError) as error:
        print(f"AITP demo failed: {error}\nservice logs: {services.logs}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("AITP demo: interrupted; `make demo-down` stops what runs", file=sys.stderr)
        return 130
    show_end(services, result, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
