"""The operator that runs one stage of the data plane as one process.

What is here: the command line of a stage, its credentials, its output in the
task log, its exit code as an Airflow outcome, the end of its whole process tree, and
how a run waits for its dump and its turn. What is not here: anything a stage does
(aitp_tasks/), and what runs when (dags/). The file is a top-level module to Airflow,
hence its unique name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypedDict, TypeVar

import psutil
from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    DownstreamTasksSkipped,
)
from airflow.sdk.execution_time import comms, task_runner
from pydantic import BaseModel, ValidationError

from aitp_links import LINKS, ReportLink, RunLink
from aitp_tasks.config import Schedule, file
from aitp_tasks.errors import ExitCode, InputError
from aitp_tasks.machine import processes
from aitp_tasks.machine.processes import LIFELINE, lifeline

if TYPE_CHECKING:
    from airflow.sdk import Context

AnySection = TypeVar("AnySection", bound=BaseModel)
#: Names the configuration file; without it, that of the demo.
CONFIG_VARIABLE = "AITP_CONFIG"
#: Names the worker environment's command; by default it is looked up on PATH.
COMMAND_VARIABLE = "AITP_COMMAND"
#: An ``aws`` connection with the storage's credentials; without it the process's own environment counts.
CONNECTION = "aitp_s3"
#: Seconds that a run which waits for its turn leaves its slot to others.
POLL_VARIABLE = "AITP_POLL_SECONDS"
#: How a choice of the form begins that leaves a setting as the configuration file has it.
AS_CONFIGURED = "as configured"
#: How the tasks of a pilot's parts are called: so, and then as the stage.
PILOT = "pilot_"
#: Shows what a unit holds, and what its stage has told of it in the end.
LABEL_TEMPLATE = "{{ label | default(task.unit.holds) }}"
#: That many fit into a label's column.
LABEL_CHARACTERS = 250

RESULT_BYTES = 1024
#: Of the list of units, which Airflow maps over.
UNITS_BYTES = 256 * 1024
LINE_CHARACTERS = 8192
#: Together less than the 5 s that Airflow leaves between SIGTERM and SIGKILL.
TERMINATE_SECONDS = 3.0
KILL_SECONDS = 1.0
POLL_SECONDS = 0.2
TREE_POLL_SECONDS = 0.05

#: Lines of libraries, the last ones, that are shown when a stage fails.
LIBRARY_LINES = 200
#: The product's own lines, as ``aitp`` writes them.
_OWN_LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) aitp_tasks[. ]")
_NO_RETRY = {ExitCode.BAD_INPUT: "bad input", ExitCode.BUDGET_EXCEEDED: "failure budget exceeded"}


class Unit(TypedDict):
    """One unit of a stage that fans out; what it ``holds`` is for people."""

    number: int
    holds: str


class StageOperator(BaseOperator):
    """Runs ``aitp STAGE --run URI [--unit N]`` and returns its JSON result.

    The process runs in the task's own process group, so that Airflow's own kill
    reaches it. Its standard error is streamed into the task log line by line;
    its standard output carries the result. When the stage ends, in whatever
    way, no process that it started is left. When this process is killed, the
    stage ends itself and all that it has started: it watches a pipe from here.

    Not done here: resuming and caching. A second try runs the same command, and
    the stage itself finds what is already there.

    Args:
        stage: name of the stage.
        run: URI of the run, from the plan's result.
        unit: the unit of a stage that fans out.
        arguments: further arguments of the command.
    """

    template_fields: Sequence[str] = ("run", "unit", "arguments")
    operator_extra_links = LINKS
    result_bytes = RESULT_BYTES
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        stage: str,
        run: str | None = None,
        unit: Unit | None = None,
        arguments: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.run = run
        self.unit = unit
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._others: set[int] = set()
        self._of_libraries: deque[str] = deque(maxlen=LIBRARY_LINES)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stage to its end.

        Raises:
            AirflowFailException: wrong input, or too many failed rows, or a worker
                that does not keep the contract; a retry cannot help.
            AirflowException: a passing fault, a crash or a signal; Airflow may retry.
        """
        return self._call([self.stage, *self._location(), *self.command_arguments(context)], context)

    def _call(self, arguments: list[str], context: Context) -> dict[str, Any]:
        """Run one command of the worker environment to its end."""
        keep_on_retry(self.unit and self.unit["holds"])
        command = [worker_command(), *arguments]
        self.log.info("command=%s", " ".join(command))
        lines: queue.Queue[str | None] = queue.Queue(maxsize=1000)
        output: list[bytes] = []
        processes.adopt_orphans()
        self._others = {child.pid for child in processes.below(os.getpid())}
        with lifeline() as pipe:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(pipe,),
                    env={**stage_environment(), LIFELINE: str(pipe)},
                )
                assert self._process.stdout is not None
                assert self._process.stderr is not None
                _start_thread(_read_lines, self._process.stderr, lines)
                reader = _start_thread(_read_result, self._process.stdout, output, self.result_bytes)
                last_error = self._stream(lines)
                code = self._process.wait()
                reader.join()
            finally:
                self._end_tree()
        return self._outcome(code, b"".join(output), last_error, context)

    def command_arguments(self, context: Context) -> list[str]:
        """Arguments after the run and the unit."""
        return self.arguments

    def on_kill(self) -> None:
        """End the stage's whole process tree; called on clear, on timeout and on shut-down."""
        self._end_tree()

    def _location(self) -> list[str]:
        arguments = ["--run", self.run] if self.run else []
        return arguments if self.unit is None else [*arguments, "--unit", str(self.unit["number"])]

    def _stream(self, lines: queue.Queue[str | None]) -> str:
        """Log lines until the process and its output have ended; the last ``error:`` line."""
        assert self._process is not None
        last_error = ""
        ended = False
        while True:
            if not ended and self._process.poll() is not None:
                # A grandchild that outlives the stage would keep the pipe open for ever.
                self._end_tree()
                ended = True
            try:
                line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                return last_error
            if line.startswith("error:"):
                last_error = line.removeprefix("error:").strip()
                self.log.error("%s", line)
            elif level := level_of(line):
                self.log.log(level, "%s", line)
            else:
                # Of a library: shown when the stage fails.
                self._of_libraries.append(line)
                self.log.debug("%s", line)

    def _end_tree(self) -> None:
        """Terminate, then kill, every process below this one that was not there before the stage.

        Nothing is reaped here: whoever reaps the stage's process first takes its
        exit code away from ``Popen``.
        """
        started = time.monotonic()
        terminated: set[psutil.Process] = set()
        while tree := self._tree():
            waited = time.monotonic() - started
            if waited > TERMINATE_SECONDS + KILL_SECONDS:
                self.log.error("processes %s could not be killed", [process.pid for process in tree])
                return
            if waited > TERMINATE_SECONDS:
                _signal_all(tree, signal.SIGKILL)
            else:
                # Again and again, because a process that ends may leave children to this one.
                _signal_all([process for process in tree if process not in terminated], signal.SIGTERM)
                terminated.update(tree)
            time.sleep(TREE_POLL_SECONDS)

    def _tree(self) -> list[psutil.Process]:
        return [child for child in processes.below(os.getpid()) if child.pid not in self._others]

    def _outcome(self, code: int, output: bytes, last_error: str, context: Context) -> dict[str, Any]:
        if code == ExitCode.DONE:
            result = parse_result(self.stage, output, self.result_bytes)
            # Plan's own links lead into the run that it has made.
            self.run = self.run or result.get("run")
            if self.unit is not None and isinstance(result.get("label"), str):
                context["label"] = result["label"][:LABEL_CHARACTERS]  # type: ignore[typeddict-unknown-key]
            return result
        for line in self._of_libraries:
            self.log.info("%s", line)
        told = last_error or "it left no error line; the lines above are all it said"
        if code in _NO_RETRY:
            raise AirflowFailException(f"{self.stage}: {_NO_RETRY[ExitCode(code)]}: {told}")
        if code == ExitCode.TRANSIENT:
            raise AirflowException(f"{self.stage}: passing fault: {told}")
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"crashed with exit code {code}"
        raise AirflowException(f"{self.stage} {ended}: {told}")


class AfterPartsOperator(StageOperator):
    """Runs a stage that follows a prompt stage; a part that was marked as success by hand is given up.

    A stage that has ended leaves a result; a task that somebody has set to success has
    none. Then the run goes on without what that part would have given.

    Args:
        after: task of the prompt stage before; its instance of the same part, or all where this
            stage has no unit.
        parts: where those end that the task is mapped over, from difference's result.
        first: where they begin.
    """

    template_fields: Sequence[str] = (*StageOperator.template_fields, "parts", "first")

    def __init__(self, *, after: str, parts: int | str = 0, first: int | str = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after
        self.parts = parts
        self.first = first

    def execute(self, context: Context) -> dict[str, Any]:
        """Give up the parts that were marked, then run the stage to its end."""
        for unit in self._marked(context):
            why = f"its task {self.after} was marked as success by hand"
            place = ["--run", str(self.run), "--unit", str(unit)]
            stage = self.after.removeprefix(PILOT)
            self._call(["skip", *place, "--stage", stage, "--why", why], context)
        return super().execute(context)

    def _marked(self, context: Context) -> list[int]:
        first = int(self.first)
        units = list(range(first, int(self.parts))) if self.unit is None else [self.unit["number"]]
        indexes = [unit - first for unit in units]
        found = context["ti"].xcom_pull(task_ids=self.after, map_indexes=indexes)
        return [unit for unit, result in zip(units, found, strict=True) if result is None]


class UnitsOperator(StageOperator):
    """Lists the units that a stage has left, each with what it holds; Airflow maps the stage over them.

    Args:
        of: name of the stage.
    """

    result_bytes = UNITS_BYTES
    # It writes nothing.
    operator_extra_links = (ReportLink(), RunLink())

    def __init__(self, *, of: str, **kwargs: Any) -> None:
        super().__init__(stage="units", arguments=[of], **kwargs)

    def execute(self, context: Context) -> Any:
        """The list: each unit, as ``StageOperator`` takes it."""
        return super().execute(context)["units"]


class ConfiguredOperator(StageOperator):
    """Runs a command that takes a configuration, with the params that have a value.

    Args:
        config: path of the configuration file; the run's param ``config`` names another one beside it.
        settings: DAG param to dotted path of the setting that it overrides; a param
            without a value leaves the setting as the file has it.
        dump: that is meant; by default the one that the DAG run stands for.
    """

    template_fields: Sequence[str] = ("config", "dump")

    def __init__(
        self, *, config: str, settings: Mapping[str, str], dump: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.settings = dict(settings)
        self.dump = dump

    def command_arguments(self, context: Context) -> list[str]:
        """The configuration file, the dump and the params that have a value.

        Raises:
            AirflowFailException: the run names no dump, or two, or a param that does not exist.
        """
        params = context["params"]
        require_known(params, [*self.settings, "config"])
        dump = self.dump or dump_of(context["dag_run"].partition_key, params.get("dump"))
        values: dict[str, Any] = {"dump": dump}
        for param, setting in self.settings.items():
            value = params.get(param)
            if value is not None and not str(value).startswith(AS_CONFIGURED):
                values.setdefault(setting, value)
        arguments = ["--config", self.config_of(context)]
        for setting, value in values.items():
            # JSON is YAML that cannot be misread: a dump named by a date stays a string.
            arguments += ["--set", f"{setting}={json.dumps(value)}"]
        return [*self.arguments, *arguments]

    def config_of(self, context: Context) -> str:
        """Path of the run's configuration file."""
        return config_path(self.config, context["params"])


class BeginOperator(ConfiguredOperator):
    """Begins a run on its dataset's line: one at a time, whatever has started it.

    Waits without a worker slot: until the day of the run's partition is over for as long
    as ``schedule.lag_hours`` says, for a dump that is not there yet, and for its turn.
    Where there is nothing new, all tasks after it are skipped, and the run succeeds.
    """

    # Before plan there is no run, and after it nothing is written.
    operator_extra_links = ()

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin, or come back later.

        Raises:
            AirflowRescheduleException: it is not yet time, or another run's turn.
            DownstreamTasksSkipped: there is nothing new.
        """
        day, kind = context["dag_run"].partition_key, kind_of(context["dag_run"].run_type)
        schedule = (
            read_section(self.config_of(context), "schedule", Schedule) if kind == "nightly" else Schedule()
        )
        begins = begins_at(day, schedule) if kind == "nightly" else None
        if begins is not None and (wait := (begins - utcnow()).total_seconds()) > 0:
            self._come_back(f"the run of {day} begins at {begins:%Y-%m-%d %H:%M} UTC", wait)
        result = self._ask(context, kind)
        holder = result["waits_for"]
        if holder is not None and _has_ended(context, holder):
            self.log.warning("%s has ended without saying so: its lease is taken over", holder)
            result = self._ask(context, kind, "--gone", holder)
        if result["taken"]:
            return result
        if result["dump"] is not None:
            self._come_back(f"waits for {result['waits_for'] or 'others that may come'}", poll_seconds())
        if begins is not None and utcnow() < begins + timedelta(hours=schedule.wait_hours):
            self._come_back(f"nothing is there yet: {result['left']}", poll_seconds())
        self.log.warning("nothing new, all that follows is skipped: %s", result["left"])
        context["ti"].xcom_push(key="return_value", value=result)
        after = sorted(context["task"].get_flat_relative_ids(upstream=False))
        raise DownstreamTasksSkipped(tasks=after)  # type: ignore[no-untyped-call]

    def _ask(self, context: Context, kind: str, *further: str) -> dict[str, Any]:
        states = ["queued", "running"]
        count = context["ti"].get_dr_count(dag_id=context["dag_run"].dag_id, states=states)
        alone = ["--alone"] if count <= 1 else []
        self.arguments = ["begin", "--holder", holder_name(context), "--kind", kind, *alone, *further]
        return super().execute(context)

    def _come_back(self, why: str, seconds: float) -> NoReturn:
        self.log.info("%s; looks again in %.0f seconds", why, seconds)
        back = utcnow() + timedelta(seconds=seconds)
        raise AirflowRescheduleException(back)  # type: ignore[no-untyped-call]


class EndOperator(ConfiguredOperator):
    """Gives the line back, whatever became of the run."""

    # Before plan there is no run, and after it nothing is written.
    operator_extra_links = ()

    def command_arguments(self, context: Context) -> list[str]:
        """The action, the holder and the configuration."""
        self.arguments = ["end", "--holder", holder_name(context)]
        return super().command_arguments(context)


def level_of(line: str) -> int:
    """The level of one of the product's own lines; 0 of any other."""
    match = _OWN_LINE.match(line)
    return logging.getLevelNamesMapping()[match[1]] if match else 0


def holder_name(context: Context) -> str:
    """How a run is called where a line is held: this Airflow, the DAG and the run."""
    return f"{_deployment()}/{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


def _deployment() -> str:
    """Tells this Airflow from others that use the same storage, without naming its address."""
    return hashlib.sha256(str(conf.get("api", "base_url", fallback="")).encode()).hexdigest()[:8]


def _has_ended(context: Context, holder: str) -> bool:
    """Whether a holder is a run of this Airflow that is not under way any more."""
    deployment, _, rest = holder.partition("/")
    dag_id, _, run_id = rest.partition("/")
    if deployment != _deployment() or not run_id or holder == holder_name(context):
        return False
    try:
        state = context["ti"].get_dagrun_state(dag_id, run_id)
    except Exception as error:
        # Whatever cannot be known is no reason to take a lease away, but for a run that was deleted.
        return "not_found" in str(error).lower()
    return state not in ("queued", "running")


def kind_of(run_type: str) -> str:
    """What ``aitp line`` calls a run of that type."""
    kinds = {"scheduled": "nightly", "backfill": "backfill"}
    return kinds.get(str(getattr(run_type, "value", run_type)), "manual")


def deployments_config() -> Path:
    """The configuration file that the nights and the maintenance of this Airflow go by."""
    demo = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
    return Path(os.environ.get(CONFIG_VARIABLE) or demo)


def config_path(config: str, params: Mapping[str, Any]) -> str:
    """Path of a run's configuration file: the deployment's own, or another one beside it, by its name."""
    path = Path(config)
    return str(path.with_stem(params.get("config") or path.stem))


def read_section(config: str, name: str, kind: type[AnySection]) -> AnySection:
    """One section of a configuration file.

    Raises:
        AirflowFailException: it is wrong, or the file is.
    """
    try:
        return kind.model_validate(file.read(Path(config), ()).get(name) or {})
    except ValidationError as error:
        raise AirflowFailException(f"bad input: {name} of {config}: {file.described(error, kind)}") from None
    except InputError as error:
        raise AirflowFailException(f"bad input: {error}") from None


def begins_at(day: str | None, schedule: Schedule) -> datetime | None:
    """When the run of a day may begin; None where its key is no day."""
    try:
        midnight = datetime.strptime(day or "", "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return midnight + timedelta(days=1, hours=schedule.lag_hours)


def poll_seconds() -> float:
    """How long a run that waits leaves its slot to others."""
    return float(os.environ.get(POLL_VARIABLE, "30"))


def utcnow() -> datetime:
    """The time."""
    return datetime.now(UTC)


def dump_of(partition_key: str | None, param: str | None) -> str:
    """The dump that a run refreshes: its partition, or what its trigger form says.

    Raises:
        AirflowFailException: neither names one, or they name different ones.
    """
    if partition_key and param and partition_key != param:
        raise AirflowFailException(
            f"this run names two dumps: its partition key is {partition_key!r}, its param 'dump' is "
            f"{param!r}: leave one of them empty"
        )
    dump = partition_key or param
    if not dump:
        raise AirflowFailException(
            "this run names no dump: fill in the param 'dump' (a folder below corpus/), "
            "or give a partition key"
        )
    return dump


def require_known(params: Mapping[str, Any], settings: Collection[str]) -> None:
    """Airflow hands on whatever a run was started with; what is no param would have no effect.

    Raises:
        AirflowFailException: such a name is among them.
    """
    unknown = sorted(set(params) - set(settings))
    if unknown:
        near = [name for word in unknown for name in difflib.get_close_matches(word, settings, cutoff=0.4)]
        raise AirflowFailException(
            f"this run was started with {', '.join(map(repr, unknown))}, which is no param of this DAG: "
            f"start it with one of {', '.join(dict.fromkeys(near or sorted(settings)))}"
        )


def result_of(ti: Any, task: str) -> dict[str, Any]:
    """What another task of the run has returned.

    Raises:
        AirflowFailException: nothing.
    """
    return required(ti.xcom_pull(task_ids=task), task)


def required(result: Any, task: str) -> dict[str, Any]:
    """A task's result, for one that cannot do without.

    Raises:
        AirflowFailException: there is none, as of a task that was marked as success.
    """
    if not isinstance(result, dict):
        raise AirflowFailException(
            f"{task} has left no result: it was marked as success, or skipped; clear it with Downstream"
        )
    return result


def keep_on_retry(label: str | None) -> None:
    """Let this process's instance keep its label while it waits for its next try.

    Airflow 3.3.2 builds that message without the label, which the API server takes for
    none. A task has its process to itself, so that no other one's message is touched.
    """
    vars(task_runner)["RetryTask"] = partial(comms.RetryTask, rendered_map_index=label)


def worker_command() -> str:
    """Path of the worker environment's ``aitp``.

    Raises:
        AirflowFailException: there is no such program.
    """
    name = os.environ.get(COMMAND_VARIABLE, "aitp")
    path = shutil.which(name)
    if path is None:
        raise AirflowFailException(
            f"worker command {name!r} was not found: set {COMMAND_VARIABLE} to the worker environment's aitp"
        )
    return path


def stage_environment() -> dict[str, str]:
    """A stage's environment: this one without Airflow's secrets and paths, with the storage's credentials."""
    hidden = re.compile(
        r"AIRFLOW__|AIRFLOW_CONN_|AIRFLOW_VAR_|_AIRFLOW_|PYTHONPATH$|PYTHONHOME$|VIRTUAL_ENV$"
    )
    environment = {name: value for name, value in os.environ.items() if not hidden.match(name)}
    return {**environment, "PYTHONUNBUFFERED": "1", **storage_credentials()}


def storage_credentials() -> dict[str, str]:
    """Standard ``AWS_*`` variables from the connection, or nothing when it does not exist."""
    try:
        connection = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return {}
    extra = connection.extra_dejson
    values = {
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        "AWS_ENDPOINT_URL": extra.get("endpoint_url"),
        "AWS_DEFAULT_REGION": extra.get("region_name"),
    }
    return {name: value for name, value in values.items() if value}


def parse_result(stage: str, output: bytes, limit: int = RESULT_BYTES) -> dict[str, Any]:
    """The one JSON object on a finished stage's standard output.

    Raises:
        AirflowFailException: there is none, or it is too large for an XCom.
    """
    text = output.decode(errors="replace").strip()
    if len(output) > limit:
        raise AirflowFailException(f"{stage}: its result has more than {limit} bytes: {text[:200]!r}…")
    try:
        result = json.loads(text)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise AirflowFailException(
            f"{stage}: its output {text[:200]!r} is not one JSON object: mend the stage"
        )
    return result


def _read_lines(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    """Decoded lines in pieces of bounded length, then None; a progress bar's \\r ends a line as well."""
    pending = b""
    while chunk := os.read(stream.fileno(), 65536):
        *complete, pending = re.split(rb"\r\n|\n|\r", pending + chunk)
        if len(pending) > LINE_CHARACTERS:
            complete, pending = [*complete, pending], b""
        for line in complete:
            _put_line(line, lines)
    _put_line(pending, lines)
    lines.put(None)


def _put_line(line: bytes, lines: queue.Queue[str | None]) -> None:
    text = line.decode(errors="replace").rstrip()
    for start in range(0, len(text), LINE_CHARACTERS):
        lines.put(text[start : start + LINE_CHARACTERS])


def _read_result(stream: IO[bytes], output: list[bytes], limit: int) -> None:
    """Keep a little more than a result may have, and read the rest so that the stage cannot block."""
    kept = 0
    while chunk := os.read(stream.fileno(), 65536):
        if kept <= limit:
            output.append(chunk)
            kept += len(chunk)


def _start_thread(target: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
