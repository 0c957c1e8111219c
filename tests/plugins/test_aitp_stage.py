"""The stage operator against small real programs that stand in for ``aitp``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowTaskTimeout,
    DownstreamTasksSkipped,
)
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.timeout import timeout
from jinja2 import Template

import aitp_stage
from aitp_tasks.errors import ExitCode
from demo.services import REPOSITORY, WORKER_PROGRAM

Program = Callable[[str], None]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> dict[str, Connection]:
    """The connections that Airflow knows; a task's own way to them needs a running Airflow."""
    known: dict[str, Connection] = {}

    def get(name: str) -> Connection:
        if name not in known:
            raise AirflowNotFoundException(name)
        return known[name]

    monkeypatch.setattr(aitp_stage.BaseHook, "get_connection", get)
    return known


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: dict[str, Connection]
) -> Iterator[Program]:
    """Makes a shell script the worker command; afterwards no process of it may live."""
    monkeypatch.setattr(aitp_stage.StageOperator, "log", logging.getLogger("stage"))

    def write(body: str) -> None:
        path = tmp_path / "aitp"
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("AITP_COMMAND", str(path))

    before = set(psutil.Process().children(recursive=True))
    yield write
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child not in before and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert left == []


def run(operator: aitp_stage.StageOperator, **context: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Result of a run and its context."""
    return aitp_stage.StageOperator.execute.__wrapped__(operator, context), context  # type: ignore[attr-defined]


def stage(**arguments: Any) -> aitp_stage.StageOperator:
    return aitp_stage.StageOperator(task_id="t", **{"stage": "embed", "run": "s3://b/runs/x", **arguments})


def unit(holds: str = "c4 00000", number: int = 3) -> aitp_stage.Unit:
    return {"number": number, "holds": holds}


def test_a_finished_stage_returns_its_result_and_label(program: Program) -> None:
    program("""echo '{"stage": "embed", "label": "c4 00000–00001", "args": "'"$*"'"}'""")
    result, context = run(stage(unit=unit()))
    assert result["args"] == "embed --run s3://b/runs/x --unit 3"
    assert context["label"] == "c4 00000–00001"


@pytest.mark.parametrize(
    ("body", "label"),
    [
        ("""echo '{"label": "c4 part 1 of 2, 24 rows"}'""", "c4 part 1 of 2, 24 rows"),
        ("echo '{\"label\": \"'$(printf '%0300d' 0)'\"}'", "0" * aitp_stage.LABEL_CHARACTERS),
        ("""echo '{"label": 7}'""", "c4 part 1 of 2"),
        ("exit 75", "c4 part 1 of 2"),
    ],
    ids=["told", "too long", "no text", "failed"],
)
def test_an_instance_is_labelled_by_what_its_unit_holds_or_by_what_the_stage_tells_in_the_end(
    program: Program, body: str, label: str
) -> None:
    program(body)
    operator = stage(unit=unit("c4 part 1 of 2"))
    context: dict[str, Any] = {"task": operator}
    with contextlib.suppress(AirflowException):
        aitp_stage.StageOperator.execute.__wrapped__(operator, context)  # type: ignore[attr-defined]
    assert Template(aitp_stage.LABEL_TEMPLATE).render(context) == label


def test_an_instance_keeps_its_label_until_its_next_try(program: Program) -> None:
    program("exit 75")
    for of, label in ((unit("c4 part 1 of 2"), "c4 part 1 of 2"), (None, None)):
        with pytest.raises(AirflowException):
            run(stage(unit=of))
        message = task_runner.RetryTask(end_date=datetime.now(UTC))
        assert message.model_dump()["rendered_map_index"] == label


def test_units_are_listed_with_what_they_hold_and_the_list_may_be_longer_than_a_result(
    program: Program,
) -> None:
    units = [{"number": number, "holds": f"c4 {number:050}"} for number in range(200)]
    program(f"""test "$*" = "units --run s3://b/runs/x embed" && echo '{json.dumps({"units": units})}'""")
    operator = aitp_stage.UnitsOperator(task_id="t", of="embed", run="s3://b/runs/x")
    assert aitp_stage.UnitsOperator.execute.__wrapped__(operator, {}) == units  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "retried", "message"),
    [
        ("echo 'error: no such bucket' >&2; exit 2", False, "embed: bad input: no such bucket"),
        ("echo 'error: 7 of 9 rows' >&2; exit 3", False, "embed: failure budget exceeded: 7 of 9 rows"),
        ("echo 'error: slow down' >&2; exit 75", True, "embed: passing fault: slow down"),
        ("echo Traceback >&2; exit 1", True, "embed crashed with exit code 1: it left no error line"),
        ("kill -SEGV $$", True, "embed was ended by SIGSEGV"),
        ("kill -KILL $$", True, "embed was ended by SIGKILL"),
        ("true", False, "embed: its output '' is not one JSON object"),
        ("echo '[1]'", False, "is not one JSON object"),
        ("echo '{}'; echo '{}'", False, "is not one JSON object"),
        ('printf \'{"a": "%01100d"}\' 0', False, "has more than 1024 bytes"),
        ("yes | head -c 10000000", False, "has more than 1024 bytes"),
    ],
)
def test_exit_codes_become_outcomes(program: Program, body: str, retried: bool, message: str) -> None:
    program(body)
    with pytest.raises(AirflowException, match=re.escape(message)) as raised:
        run(stage())
    assert isinstance(raised.value, AirflowFailException) is not retried


def test_every_exit_code_of_the_contract_is_known() -> None:
    assert {code.value for code in ExitCode} == {0, 2, 3, 75}


def test_output_is_streamed_while_the_stage_runs(
    program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = tmp_path / "go"
    program(f"echo first >&2; until [ -e {go} ]; do sleep 0.05; done; echo '{{}}'")
    handler = _Once("first", go.touch)
    logging.getLogger("stage").addHandler(handler)
    with caplog.at_level(logging.DEBUG):
        # The stage waits for the file that its own first line makes: this ends only when lines stream.
        run(stage())
    logging.getLogger("stage").removeHandler(handler)


class _Once(logging.Handler):
    def __init__(self, text: str, then: Callable[[], None]) -> None:
        super().__init__()
        self.text, self.then = text, then

    def emit(self, record: logging.LogRecord) -> None:
        if self.text == record.getMessage():
            self.then()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r"printf 'bad \xff\xfe byte\n' >&2", ["bad �� byte"]),
        (r"printf '10%%\r20%%\rdone\n' >&2", ["10%", "20%", "done"]),
        (r"printf 'no end' >&2", ["no end"]),
        (r"printf '100%% {} %%s\n' >&2", ["100% {} %s"]),
        (r"printf '\n\na\n' >&2", ["a"]),
        ("head -c 20000 /dev/zero | tr '\\0' a >&2", ["a" * 8192, "a" * 8192, "a" * 3616]),
    ],
)
def test_any_bytes_become_log_lines(
    program: Program, caplog: pytest.LogCaptureFixture, body: str, expected: list[str]
) -> None:
    program(f"{body}; echo '{{}}'")
    with caplog.at_level(logging.DEBUG):
        run(stage())
    lines = [record.getMessage() for record in caplog.records if "command=" not in record.getMessage()]
    if "/dev/zero" in body:
        assert "".join(lines) == "".join(expected)
        assert max(map(len, lines)) <= 8192
    else:
        assert lines == expected


def test_a_timeout_ends_the_whole_tree(program: Program, tmp_path: Path) -> None:
    # The grandchild has a session of its own, ignores SIGTERM, and its parent is gone.
    program(
        f"""(setsid bash -c 'trap "" TERM; echo $$ > {tmp_path}/orphan; while :; do sleep 0.1; done' &)
        bash -c 'echo $$ > {tmp_path}/child; sleep 100' &
        sleep 100"""
    )
    started = time.monotonic()
    with pytest.raises(AirflowTaskTimeout), timeout(1):
        run(stage())
    assert time.monotonic() - started < 1 + 5
    for name in ("orphan", "child"):
        assert not _lives(int((tmp_path / name).read_text()))


def test_being_killed_ends_the_tree_and_the_task(program: Program, tmp_path: Path) -> None:
    program(f"sleep 100 & echo $! > {tmp_path}/child; wait")
    operator = stage()
    previous = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(AirflowException, match="embed was ended by SIGTERM"):
            run(operator)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert not _lives(int((tmp_path / "child").read_text()))


#: A task's process: the operator, as Airflow runs it.
_TASK = """
import logging
import aitp_stage
aitp_stage.storage_credentials = dict
aitp_stage.StageOperator.log = logging.getLogger("stage")
logging.basicConfig(level=logging.INFO)
unit = {"number": 0, "holds": "c4"}
operator = aitp_stage.StageOperator(task_id="t", stage="embed", run="s3://b/runs/x", unit=unit)
aitp_stage.StageOperator.execute.__wrapped__(operator, {})
"""
#: The real command line, with a stage that waits: it has a child, and one in a session of its own.
_STAGE = """
import subprocess, sys, time
from aitp_tasks import cli
def work(arguments):
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["setsid", "bash", "-c", "trap : TERM; while :; do sleep 600; done"])
    time.sleep(0.5)
    print("INFO aitp_tasks.stage label=ready", file=sys.stderr, flush=True)
    time.sleep(600)
cli._run_stage = work
cli.main()
"""


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "behind a wrapper"])
def test_a_killed_task_leaves_no_process(program: Program, tmp_path: Path, wrapped: bool) -> None:
    (tmp_path / "stage.py").write_text(_STAGE)
    command = f'{WORKER_PROGRAM.with_name("python")} {tmp_path}/stage.py "$@"'
    program(f"{command}; exit $?" if wrapped else f"exec {command}")
    task = subprocess.Popen(
        [sys.executable, "-c", _TASK],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/plugins"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert task.stdout is not None
    seen: list[str] = []
    for line in task.stdout:
        seen.append(line)
        if "label=ready" in line:
            break
    below = psutil.Process(task.pid).children(recursive=True)
    assert len(below) >= 4 + wrapped, seen
    task.kill()
    task.wait()
    task.stdout.close()
    _, alive = psutil.wait_procs(below, timeout=10)
    left = [one for one in alive if _lives(one.pid)]
    for one in left:
        one.kill()
    assert left == []


@pytest.mark.parametrize("body", ["sleep 100 &", "(while :; do echo still here >&2; sleep 0.01; done) &"])
def test_a_grandchild_that_stays_does_not_hold_the_task_up(program: Program, body: str) -> None:
    program(f"{body} echo '{{}}'")
    started = time.monotonic()
    run(stage())
    assert time.monotonic() - started < 5


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_missing_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AITP_COMMAND", "/nowhere/aitp")
    with pytest.raises(
        AirflowFailException, match=re.escape("'/nowhere/aitp' was not found: set AITP_COMMAND")
    ):
        run(stage())


def test_a_stage_gets_the_connection_and_none_of_airflows_secrets(
    program: Program,
    connections: dict[str, Connection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    connections["aitp_s3"] = Connection(
        conn_id="aitp_s3",
        conn_type="aws",
        login="key",
        password="opensesame",
        extra=json.dumps({"endpoint_url": "http://127.0.0.1:1", "region_name": "us-east-1"}),
    )
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "hidden")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "hidden")
    monkeypatch.setenv("PYTHONPATH", "/airflow/only")
    monkeypatch.setenv("AITP_EMBEDDINGS_API_KEY", "embeddings-opensesame")
    monkeypatch.setenv("AITP_ENGINE_API_KEY", "engine-opensesame")
    program(f"env > {tmp_path}/environment; echo '{{}}'")
    with caplog.at_level(logging.DEBUG):
        run(stage())
    environment = (tmp_path / "environment").read_text()
    for line in (
        "AWS_ACCESS_KEY_ID=key",
        "AWS_SECRET_ACCESS_KEY=opensesame",
        "AWS_ENDPOINT_URL=http://127.0.0.1:1",
        "AWS_DEFAULT_REGION=us-east-1",
        "AITP_EMBEDDINGS_API_KEY=embeddings-opensesame",
        "AITP_ENGINE_API_KEY=engine-opensesame",
    ):
        assert f"{line}\n" in environment
    assert "hidden" not in environment
    assert "PYTHONPATH" not in environment
    assert "opensesame" not in caplog.text


def test_without_a_connection_the_process_environment_counts(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    program(f"env > {tmp_path}/environment; echo '{{}}'")
    run(stage())
    assert "AWS_ACCESS_KEY_ID=mine\n" in (tmp_path / "environment").read_text()


@pytest.mark.parametrize(
    ("key", "params", "expected"),
    [
        ("2026-11-20", {}, ["dump=2026-11-20"]),
        ("2026-11-20", {"dump": "2026-11-20"}, ["dump=2026-11-20"]),
        (None, {"dump": "c4+wikipedia", "tau": 0.5}, ["dump=c4+wikipedia", "difference.tau=0.5"]),
        (None, {"dump": "true", "tau": None}, ["dump=true"]),
        (None, {"dump": "c4", "tau": "as configured (1.0)"}, ["dump=c4"]),
    ],
)
def test_plan_is_told_the_dump_and_the_params_that_are_set(
    key: str | None, params: dict[str, Any], expected: list[str]
) -> None:
    import yaml

    operator = aitp_stage.ConfiguredOperator(
        task_id="plan",
        stage="plan",
        config="/c.yaml",
        settings={"dump": "dump", "tau": "difference.tau"},
    )
    context: Any = {"params": params, "dag_run": SimpleNamespace(partition_key=key)}
    arguments = operator.command_arguments(context)
    assert arguments[:2] == ["--config", "/c.yaml"]
    assert set(arguments[2::2]) == {"--set"}
    # As the data plane reads them: values are YAML, and a dump is a string whatever it looks like.
    read = [
        f"{key}={yaml.safe_load(value)}" for key, value in (item.split("=", 1) for item in arguments[3::2])
    ]
    assert read == expected
    assert isinstance(yaml.safe_load(arguments[3].split("=", 1)[1]), str)


@pytest.mark.parametrize(
    ("params", "expected"),
    [({}, "/etc/law.yaml"), ({"config": "law"}, "/etc/law.yaml"), ({"config": "code"}, "/etc/code.yaml")],
)
def test_a_run_may_name_another_configuration(params: dict[str, str], expected: str) -> None:
    operator = aitp_stage.ConfiguredOperator(
        task_id="plan", stage="plan", config="/etc/law.yaml", settings={"dump": "dump"}
    )
    context: Any = {"params": {"dump": "c4", **params}, "dag_run": SimpleNamespace(partition_key=None)}
    assert operator.command_arguments(context)[:2] == ["--config", expected]


def test_a_run_that_names_no_dump_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="this run names no dump: fill in the param 'dump'"):
        aitp_stage.dump_of(None, None)


@pytest.mark.operation("unknown-param")
def test_a_param_that_does_not_exist_is_refused_with_those_that_are_near() -> None:
    settings = {"dump": "dump", "difference__tau": "difference.tau", "gates__keep_best": "gates.keep_best"}
    aitp_stage.require_known({"dump": "c4", "difference__tau": None}, settings)
    with pytest.raises(
        AirflowFailException, match=r"with 'difference.tau', which is no .*: .* difference__tau$"
    ):
        aitp_stage.require_known({"dump": "c4", "difference.tau": 1}, settings)
    with pytest.raises(AirflowFailException, match="'x', .*one of difference__tau, dump, gates__keep_best$"):
        aitp_stage.require_known({"x": 1}, settings)


@pytest.mark.operation("mark-task-success")
@pytest.mark.parametrize("result", [None, [], "x"])
def test_a_task_that_has_left_no_result_is_named(result: Any) -> None:
    assert aitp_stage.required({"parts": 0}, "difference") == {"parts": 0}
    ti = SimpleNamespace(xcom_pull=lambda task_ids: result)
    with pytest.raises(AirflowFailException, match="plan has left no result: .* clear it with Downstream"):
        aitp_stage.result_of(ti, "plan")


def test_a_key_and_a_dump_that_disagree_are_refused() -> None:
    with pytest.raises(AirflowFailException, match="names two dumps: its partition key is '2026-11-20'"):
        aitp_stage.dump_of("2026-11-20", "c4")


class Runs:
    """What a task knows of DAG runs."""

    def __init__(self, states: dict[str, str]) -> None:
        self.states = states
        self.pushed: dict[str, Any] = {}

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        return sum(state in states for state in self.states.values())

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        if run_id not in self.states:
            raise RuntimeError("API_SERVER_ERROR 404: DagRun not_found")
        return self.states[run_id]

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def begin(
    tmp_path: Path, runs: Runs, *, run_type: str = "manual", key: str | None = None, schedule: str = "{}"
) -> dict[str, Any]:
    config = tmp_path / "config.yaml"
    config.write_text(f"schedule: {schedule}")
    operator = aitp_stage.BeginOperator(
        task_id="begin", stage="line", config=str(config), settings={"dump": "dump"}
    )
    context: Any = {
        "params": {} if key else {"dump": "c4"},
        "ti": runs,
        "task": SimpleNamespace(get_flat_relative_ids=lambda upstream: {"plan", "embed", "end"}),
        "dag_run": SimpleNamespace(
            dag_id="aitp_refresh", run_id="mine", run_type=run_type, partition_key=key
        ),
    }
    result: dict[str, Any] = operator.execute(context)
    return result


ANSWERS = """
echo "$@" >> $CALLS
case "$*" in
    *--gone*) echo '{"taken": true, "dump": "c4", "left": {}, "waits_for": null}';;
    *) echo "$ANSWER";;
esac
"""
TAKEN = {"taken": True, "dump": "c4", "left": {}, "waits_for": None}


@pytest.fixture
def asked(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any]], Path]:
    """Sets what the worker answers; the file of its calls."""

    def answer(value: dict[str, Any]) -> Path:
        monkeypatch.setenv("ANSWER", json.dumps(value))
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
        program(ANSWERS)
        return tmp_path / "calls"

    return answer


def test_a_run_that_is_alone_begins_at_once(asked: Any, tmp_path: Path) -> None:
    calls = asked(TAKEN)
    assert begin(tmp_path, Runs({"mine": "running", "old": "success"})) == TAKEN
    assert "--kind manual --alone --config" in calls.read_text()


def test_a_run_that_is_not_alone_lets_others_come_first(asked: Any, tmp_path: Path) -> None:
    calls = asked(TAKEN)
    begin(tmp_path, Runs({"mine": "running", "other": "queued"}))
    assert "--alone" not in calls.read_text()


@pytest.mark.parametrize(("state", "taken_over"), [("running", False), ("queued", False), ("failed", True),
                                                   ("success", True), (None, True)])  # fmt: skip
def test_a_lease_is_taken_over_from_a_run_that_has_ended(
    asked: Any, tmp_path: Path, state: str | None, taken_over: bool
) -> None:
    holder = f"{aitp_stage._deployment()}/aitp_refresh/other"
    asked({"taken": False, "dump": "c4", "left": {}, "waits_for": holder})
    runs = Runs({"mine": "running"} | ({"other": state} if state else {}))
    if taken_over:
        assert begin(tmp_path, runs) == TAKEN
    else:
        with pytest.raises(AirflowRescheduleException):
            begin(tmp_path, runs)


@pytest.mark.parametrize("holder", ["someone", "00000000/aitp_refresh/other", "a/b"])
def test_a_lease_of_who_is_not_known_here_is_waited_for(asked: Any, tmp_path: Path, holder: str) -> None:
    calls = asked({"taken": False, "dump": "c4", "left": {}, "waits_for": holder})
    with pytest.raises(AirflowRescheduleException):
        begin(tmp_path, Runs({"mine": "running"}))
    assert "--gone" not in calls.read_text()


def test_nothing_new_ends_green(asked: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answer = {"taken": False, "dump": None, "left": {"2020-01-01": "there is none"}, "waits_for": None}
    asked(answer)
    runs = Runs({"mine": "running"})
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        begin(tmp_path, runs, run_type="scheduled", key="2020-01-01")
    assert skipped.value.tasks == ["embed", "end", "plan"]
    assert runs.pushed == {"return_value": answer}
    assert "nothing new, all that follows is skipped: {'2020-01-01': 'there is none'}" in caplog.text


def test_a_night_waits_for_its_hour_and_for_its_dump(asked: Any, tmp_path: Path) -> None:
    calls = asked({"taken": False, "dump": None, "left": {}, "waits_for": None})
    today, runs = f"{aitp_stage.utcnow():%Y-%m-%d}", Runs({"mine": "running"})
    with pytest.raises(AirflowRescheduleException) as back:
        begin(tmp_path, runs, run_type="scheduled", key=today, schedule="{lag_hours: 3}")
    assert not calls.exists()
    midnight = aitp_stage.utcnow().replace(hour=0, minute=0, second=0, microsecond=0)
    wanted = midnight + timedelta(days=1, hours=3)
    assert abs((back.value.reschedule_date - wanted).total_seconds()) < 5
    yesterday = f"{aitp_stage.utcnow() - timedelta(days=1):%Y-%m-%d}"
    schedule = "{lag_hours: 0, wait_hours: 24}"
    with pytest.raises(AirflowRescheduleException):
        begin(tmp_path, runs, run_type="scheduled", key=yesterday, schedule=schedule)
    with pytest.raises(DownstreamTasksSkipped):
        begin(tmp_path, runs, run_type="backfill", key=yesterday, schedule=schedule)


def test_a_wrong_schedule_is_told(asked: Any, tmp_path: Path) -> None:
    asked(TAKEN)
    with pytest.raises(AirflowFailException, match="schedule of .*lag_hours"):
        begin(tmp_path, Runs({}), run_type="scheduled", key="2020-01-01", schedule="{lag_hours: -1}")


def test_the_products_lines_keep_their_level_and_those_of_libraries_are_shown_on_failure(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    said = """
    echo 'WARNING aitp_tasks.stages.difference no document is below tau' >&2
    echo 'INFO aitp_tasks.cli at work seconds=30' >&2
    echo 'INFO 11-25 22:00:00 [core.py:58] Initializing a V1 LLM engine' >&2
    echo 'UserWarning: something of a library' >&2
    """
    program(said + "echo '{}'")
    with caplog.at_level(logging.DEBUG):
        run(stage())
    levels = {record.getMessage().split()[1]: record.levelname for record in caplog.records}
    assert levels["aitp_tasks.stages.difference"] == "WARNING"
    assert levels["aitp_tasks.cli"] == "INFO"
    assert levels["11-25"] == levels["something"] == "DEBUG"
    caplog.clear()
    program(said + "exit 9")
    with caplog.at_level(logging.INFO), pytest.raises(AirflowException, match="crashed with exit code 9"):
        run(stage())
    shown = [record.getMessage() for record in caplog.records]
    assert shown.index("INFO 11-25 22:00:00 [core.py:58] Initializing a V1 LLM engine") > shown.index(
        "INFO aitp_tasks.cli at work seconds=30"
    )


class Results:
    """The results that the tasks of a run have left, by task and map index."""

    def __init__(self, left: dict[tuple[str, int], dict[str, Any]]) -> None:
        self._left = left

    def xcom_pull(self, task_ids: str, map_indexes: list[int]) -> list[Any]:
        return [self._left.get((task_ids, index)) for index in map_indexes]


@pytest.mark.parametrize(
    ("arguments", "left", "given_up"),
    [
        ({"stage": "score", "unit": unit(number=1), "after": "rewrite"}, {("rewrite", 1): {}}, []),
        ({"stage": "score", "unit": unit(number=1), "after": "rewrite"}, {("rewrite", 0): {}}, [1]),
        ({"stage": "assemble", "parts": "3", "after": "answer"}, {("answer", 1): {}}, [0, 2]),
        ({"stage": "assemble", "parts": "0", "after": "answer"}, {}, []),
        # The parts of a pilot come first, and are mapped over by themselves.
        ({"stage": "allocate", "parts": "2", "after": "pilot_answer"}, {("pilot_answer", 0): {}}, [1]),
        ({"stage": "assemble", "parts": "5", "first": "2", "after": "answer"}, {("answer", 1): {}}, [2, 4]),
        (
            {"stage": "score", "unit": unit(number=4), "first": "2", "after": "rewrite"},
            {("rewrite", 2): {}},
            [],
        ),
    ],
)
def test_a_part_without_a_result_was_marked_by_hand_and_is_given_up(
    program: Program,
    tmp_path: Path,
    arguments: dict[str, Any],
    left: dict[tuple[str, int], dict[str, Any]],
    given_up: list[int],
) -> None:
    program(f"""echo "$@" >> {tmp_path / "calls"}; echo '{{"stage": "x"}}'""")
    operator = aitp_stage.AfterPartsOperator(task_id="t", run="s3://b/runs/x", **arguments)
    aitp_stage.AfterPartsOperator.execute.__wrapped__(operator, {"ti": Results(left)})  # type: ignore[attr-defined]
    *skipped, own = (tmp_path / "calls").read_text().splitlines()
    after = arguments["after"]
    stage = after.removeprefix("pilot_")
    assert skipped == [
        f"skip --run s3://b/runs/x --unit {unit} --stage {stage} --why its task {after} was marked as "
        "success by hand"
        for unit in given_up
    ]
    assert own.startswith(f"{arguments['stage']} --run s3://b/runs/x")
