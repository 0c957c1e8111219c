"""What a person sees of the demo: progress, reasons of failure, and the upload to a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.run import PlainDisplay, StageProgress, error_line, stages_of, task_log, upload
from demo.services import OWNER_VARIABLE, Services

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def row(
    state: str | None, index: int, started: float | None = None, ended: float | None = None
) -> dict[str, Any]:
    """A task instance as the API tells it; times in seconds before now."""
    return {
        "task_id": "embed",
        "state": state,
        "map_index": index,
        "start_date": None if started is None else (NOW - timedelta(seconds=started)).isoformat(),
        "end_date": None if ended is None else (NOW - timedelta(seconds=ended)).isoformat(),
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ("waiting", "0/?", "", "", "")),
        ([row(None, -1)], ("waiting", "0/?", "", "", "")),
        ([row("running", 0, 5), row(None, 1)], ("running", "0/2", "", "5 s", "")),
        (
            [row("success", 0, 20, 10), row("running", 1, 10), row("scheduled", 2)],
            ("running", "1/3", "3.0/min", "20 s", "40 s left"),
        ),
        ([row("success", 0, 30, 20), row("success", 1, 20, 10)], ("done", "2/2", "6.0/min", "20 s", "")),
        ([row("success", -1, 3, 1)], ("done", "1/1", "", "2 s", "")),
        ([row("skipped", -1, 1, 1)], ("skipped", "1/1", "", "", "")),
        (
            [row("success", 0, 9, 8), row("up_for_retry", 1, 8, 7)],
            ("retry", "1/2", "6.7/min", "9 s", "9 s left"),
        ),
        ([row("success", 0, 9, 8), row("failed", 1, 8, 7)], ("failed", "2/2", "60.0/min", "2 s", "")),
    ],
)
def test_progress_of_a_stage(rows: list[dict[str, Any]], expected: tuple[str, ...]) -> None:
    assert StageProgress.of("embed", rows, NOW).columns() == expected


def test_plain_display_prints_a_line_when_something_changed(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay()
    done = row("success", 0, 2, 1)
    for rows in ([], [done, row(None, 1)], [done, row(None, 1)], [done, row("success", 1, 1, 0)]):
        display.show([StageProgress.of("embed", rows, NOW)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["embed", "done", "2/2"]]


def test_all_stages_are_shown_in_order() -> None:
    assert [stage.name for stage in stages_of([])][:3] == ["plan", "embed", "merge"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"event": "error: one"}, {"event": "error: shard a: two"}], "error: shard a: two"),
        ([{"event": "x", "error_detail": [{"exc_type": "OSError", "exc_value": "full"}]}], "OSError: full"),
        ([{"event": "error: is data"}, "not json"], "error: is data"),
        ([], "no reason in its log"),
    ],
)
def test_the_reason_is_found_in_a_task_log(tmp_path: Path, lines: list[Any], expected: str) -> None:
    log = task_log(tmp_path, "r", {"task_id": "embed", "map_index": 3, "try_number": 2})
    assert log.as_posix().endswith("dag_id=aitp_refresh/run_id=r/task_id=embed/map_index=3/attempt=2.log")
    assert error_line(log) == "it left no log"
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    assert error_line(log) == expected


def test_upload_brings_what_is_missing_or_different(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for key in ("corpus/a/a-0.parquet", "corpus/a/a-1.parquet", "sft/b/b-0.parquet"):
        path = data / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode() * 1000)
    (data / "corpus" / ".a.made-from").write_text("not data")
    services = Services(tmp_path / "services")
    services.start_store()
    try:
        assert upload(services, data, "aitp-test") == 3
        assert upload(services, data, "aitp-test") == 0
        (data / "sft/b/b-0.parquet").write_bytes(b"new")
        assert upload(services, data, "aitp-test") == 1
        listed = services.bucket_client().list_objects_v2(Bucket="aitp-test")["Contents"]
        assert [entry["Key"] for entry in listed] == [
            "corpus/a/a-0.parquet",
            "corpus/a/a-1.parquet",
            "sft/b/b-0.parquet",
        ]
    finally:
        services.stop()


def test_stop_finds_an_orphan_in_a_session_of_its_own(tmp_path: Path) -> None:
    services = Services(tmp_path)
    code = "import subprocess; subprocess.Popen(['sleep', '100'], start_new_session=True)"
    environment = {**os.environ, OWNER_VARIABLE: str(services.state_dir)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [process.name() for process in services.processes()] == ["sleep"]
    services.stop()
    assert not services.running()
