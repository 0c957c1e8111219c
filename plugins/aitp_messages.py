"""Who is told what: Airflow notifiers that the DAG hangs on its tasks, and its deadline.

What is here: which events become a message, what it says, and that a group of units is
told of once. What is not here: how a message leaves (aitp_senders.py). Nothing is
raised: a run does not fail because nobody could be told.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout
from pydantic import ValidationError

from aitp_deadline import Queued
from aitp_senders import Message, send
from aitp_stage import PILOT, config_path
from aitp_tasks.config import Event, Messages, file
from aitp_tasks.errors import InputError
from aitp_tasks.stages import STAGES

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

#: An error line may quote a document, and be as long.
LINE_CHARACTERS = 1500
TITLE_CHARACTERS = 200
#: Seconds in which units that fail at the same time hear of each other.
PAUSE_SECONDS = 2.0
#: XCom of a unit that has failed.
FAILURE_KEY = "failure"

_KIND = re.compile(r"\w+: (bad input|failure budget exceeded|passing fault): (.*)", re.DOTALL)
_DIED = re.compile(r"\w+ (?:was ended by \w+|crashed with exit code \d+): ")
#: Each kind of failure, and what to do about it.
REMEDIES = {
    "bad input": "correct what the error names, then clear the task",
    "failure budget exceeded": "look at what the error names; repair it, or raise the budget",
    "passing fault": "see that what the error names is up again, then clear the task",
    "crash": "look at the log above its last line; the memory killer leaves a signal and nothing else",
    "time-out": "look at the log for what it waited for, then clear the task: it goes on where it was",
    "lost": "look at the scheduler's log, and at the machine that the task ran on, then clear the task",
}


@dataclass(frozen=True)
class Failure:
    """Why a task has failed for good.

    Attributes:
        kind: one of ``REMEDIES``.
        error: the stage's own last line, or what Airflow says.
    """

    kind: str
    error: str


class Notifier(BaseNotifier):
    """Tells what ``message_of`` makes of a task's context, if anything.

    Args:
        config: path of the deployment's configuration file; the ``messages`` of the run's own say who is
            told what.
        context: of a deadline; a task's comes with the call.
    """

    #: Nothing of a message is a template: it quotes lines that quote documents.
    template_fields = ()

    def __init__(self, config: str, context: Context | None = None) -> None:
        super().__init__(context=context)
        self.config = config

    def notify(self, context: Context) -> None:
        """Tell it, and whatever goes wrong only to the log."""
        try:
            messages = read_messages(config_path(self.config, self.params_of(context)))
            if not (messages.email_to or messages.webhook_connections):
                return
            message = self.message_of(context, messages)
            if message is not None:
                send(message, messages)
        except InputError as error:
            log.error("no message was sent: %s", error)
        except Exception:
            log.exception("no message was sent")

    async def async_notify(self, context: Context) -> None:
        """The same, in the triggerer: what waits there must not hold up its loop."""
        await asyncio.to_thread(self.notify, context)

    def params_of(self, context: Any) -> Mapping[str, Any]:
        """The params of the run, which may name its configuration."""
        return context.get("params") or {}

    def message_of(self, context: Any, messages: Messages) -> Message | None:
        """What is to be told; None where it is nothing."""
        raise NotImplementedError


class FailureNotifier(Notifier):
    """Tells that a task has failed for good; of units whose failure is of one kind, of the first."""

    def message_of(self, context: Any, messages: Messages) -> Message | None:
        """Stage, unit, kind of failure, error, remedy, links."""
        failure = failure_of(context.get("exception"))
        if event_of(failure.kind) not in messages.events:
            return None
        ti, mapped = context["ti"], context["ti"].map_index >= 0
        if mapped and not self._is_first(context, failure):
            log.warning("no message is sent: %s has told of %r in this run", ti.task_id, failure.kind)
            return None
        dump = dump_name(context)
        lines = {
            "error": failure.error,
            "remedy": REMEDIES[failure.kind],
            "class": failure.kind,
            "stage": ti.task_id,
            "unit": _unit(context) if mapped else None,
            "dump": dump,
            "tries": str(ti.try_number),
            "log": ti.log_url,
            "run": run_url(ti.dag_id, ti.run_id),
        }
        title = f"AITP: {ti.task_id}{f' of {dump}' if dump else ''} failed: {failure.kind}"
        more = "Further units of this stage that fail so are told of together, when the run ends."
        return made(title, lines, more if mapped else None)

    def _is_first(self, context: Any, failure: Failure) -> bool:
        """Whether no other unit of the stage has failed so before; a run that was cleared begins anew."""
        own = [time.time(), context["ti"].map_index]
        try:
            told = {"go": context["dag_run"].clear_number, "kind": failure.kind, "order": own}
            context["ti"].xcom_push(key=FAILURE_KEY, value=told | {"unit": _number(context)})
            time.sleep(PAUSE_SECONDS)
            known = failed_units(context, context["ti"].task_id)
        except Exception as error:
            # Where a task's process was lost, the DAG processor calls, which can write no XCom.
            log.info("other units are not known here (%s)", type(error).__name__)
            return True
        return min((one["order"] for one in known if one["kind"] == failure.kind), default=own) >= own


class GroupNotifier(Notifier):
    """Tells, when a run ends, which units have failed alike, where more than one has."""

    def message_of(self, context: Any, messages: Messages) -> Message | None:
        """A line for each stage and kind of failure, with the numbers of the units."""
        groups: dict[str, list[str]] = defaultdict(list)
        for task in _mapped_tasks():
            for told in failed_units(context, task):
                if event_of(told["kind"]) in messages.events:
                    groups[f"{task}, {told['kind']}"].append(told["unit"])
        lines: dict[str, str | None] = {
            name: f"{len(units)} units: {', '.join(sorted(units, key=lambda unit: (len(unit), unit)))}"
            for name, units in groups.items()
            if len(units) > 1
        }
        if not lines:
            return None
        count = sum(len(units) for units in groups.values() if len(units) > 1)
        run = run_url(context["ti"].dag_id, context["ti"].run_id)
        return made(f"AITP: {count} units of {dump_name(context)} failed in all", {**lines, "run": run})


class NotPromotedNotifier(Notifier):
    """Tells that a run ends without a version that is the latest of its dataset."""

    def message_of(self, context: Any, messages: Messages) -> Message | None:
        """Why there is none, and what to do, from the task's own result."""
        ti = context["ti"]
        told = not_promoted(ti.xcom_pull(task_ids=ti.task_id) or {})
        if told is None or Event.NOT_PROMOTED not in messages.events:
            return None
        why, lines = told
        dump = dump_name(context)
        lines = {"dump": dump, **lines, "log": ti.log_url, "run": run_url(ti.dag_id, ti.run_id)}
        return made(f"AITP: not promoted: {why} ({dump})", lines)


class LateNotifier(Notifier):
    """Tells that a run has not succeeded by its deadline."""

    def params_of(self, context: Any) -> Mapping[str, Any]:
        """What the run was started with: a deadline has no more of it."""
        return context["dag_run"]["conf"] or {}

    def message_of(self, context: Any, messages: Messages) -> Message | None:
        """Since when it is queued, and its state; a deadline knows no tasks."""
        run = context["dag_run"]
        dump = run["partition_key"] or (run["conf"] or {}).get("dump") or "no dump"
        lines = {
            "dump": dump,
            "state": run["state"],
            "queued": _moment(run["queued_at"]),
            "deadline": _moment(context["deadline"]["deadline_time"]),
            "remedy": "look at what it waits for, or at what has failed",
            "run": run_url(run["dag_id"], run["dag_run_id"]),
        }
        return made(f"AITP: the run of {dump} is late: {run['state']} at its deadline", lines)


def deadline(config: str) -> DeadlineAlert | None:
    """The DAG's deadline, from ``messages.late_hours``; none where that is not set, or the file is wrong.

    It is called in the triggerer, which every executor has beside it; not all executors
    run callbacks.
    """
    try:
        hours = read_messages(config).late_hours
    except InputError:
        # Plan says what is wrong with it.
        return None
    if hours is None:
        return None
    return DeadlineAlert(
        reference=Queued(),
        interval=timedelta(hours=hours),
        callback=AsyncCallback(LateNotifier, kwargs={"config": config}),
        name="late",
    )


def read_messages(config: str) -> Messages:
    """The ``messages`` section of a configuration file.

    Raises:
        InputError: it is wrong, or the file is.
    """
    try:
        return Messages.model_validate(file.read(Path(config), ()).get("messages") or {})
    except ValidationError as error:
        raise InputError(f"messages of {config}: {file.described(error, Messages)}")


def failure_of(error: object) -> Failure:
    """Why a task has failed, from what it raised; None where its process was lost."""
    text = str(error)
    if error is None:
        return Failure("lost", "the task's process ended without a word")
    if isinstance(error, AirflowTaskTimeout):
        return Failure("time-out", f"it took longer than it may take at most ({text})")
    if match := _KIND.fullmatch(text):
        return Failure(match[1], match[2])
    if isinstance(error, AirflowFailException):
        return Failure("bad input", text)
    return Failure("crash", text if _DIED.match(text) else f"{type(error).__name__}: {text}")


def event_of(kind: str) -> Event:
    """What has to be asked for to be told of a kind of failure."""
    return Event.BUDGET if kind == "failure budget exceeded" else Event.FAILURE


def _mapped_tasks() -> list[str]:
    """The tasks that have units, whether or not the DAG has those of a pilot."""
    mapped = [stage for stage in STAGES if stage.fans_out]
    return [stage.name for stage in mapped] + [
        f"{PILOT}{stage.name}" for stage in mapped if stage.fans_out == "parts"
    ]


def failed_units(context: Any, task: str) -> list[dict[str, Any]]:
    """What units of a task have left when they failed, since the run was last cleared."""
    told = context["ti"].xcom_pull(task_ids=task, key=FAILURE_KEY)
    # One alone is no list, and none may be either.
    known = told if isinstance(told, list) else [told]
    return [one for one in known if one and one["go"] == context["dag_run"].clear_number]


def not_promoted(result: dict[str, Any]) -> tuple[str, dict[str, str | None]] | None:
    """Why a result of ``begin``, ``assemble`` or ``promote`` stands for no new latest version, if so."""
    if "left" in result and not result.get("taken"):
        return "nothing new", {"why": "; ".join(f"{dump}: {why}" for dump, why in result["left"].items())}
    if result.get("unchanged"):
        return "nothing has changed", {"why": "the version would be the one before, so none was made"}
    if result.get("promoted") is False and "is_latest" in result:
        return "it was not approved" if result.get("refused") else "it was evaluated", {"why": result["why"]}
    if result.get("is_latest") is False and result.get("promote", "always") == "always":
        return "another version came in between", {
            "version": result.get("dataset"),
            "remedy": "clear plan of this run, to build on the newest",
        }
    return None


def made(title: str, lines: dict[str, str | None], more: str | None = None) -> Message:
    """A message of bounded length, on one line each, without credentials."""
    # Cut last: half a URL shows a user that a whole one hides.
    told = [f"{name}: {cut(plain(value), LINE_CHARACTERS)}" for name, value in lines.items() if value]
    text = "\n".join([*told, *filter(None, ["", more] if more else [])])
    return Message(cut(plain(title), TITLE_CHARACTERS), text + "\n")


def plain(text: str) -> str:
    """A text as one line of printable characters, without secrets that Airflow knows and users of URLs."""
    line = "".join(letter if letter.isprintable() else " " for letter in file.masked(str(redact(text))))
    return " ".join(line.split())


def cut(text: str, characters: int) -> str:
    """A text of bounded length; what is left out is counted."""
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]}… ({left:,} more characters: see the log)"


def dump_name(context: Any) -> str:
    """The dump that a run stands for, as far as it says so; empty for one of the maintenance."""
    return context["dag_run"].partition_key or (context.get("params") or {}).get("dump") or ""


def run_url(dag: str, run: str) -> str:
    """Where a run is shown."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080/")
    return f"{base.rstrip('/')}/dags/{quote(dag)}/runs/{quote(run)}"


def _moment(time: object) -> str:
    """A time as the API or a deadline gives it, to the minute."""
    return f"{datetime.fromisoformat(str(time)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _unit(context: Any) -> str:
    """The number that ``--unit`` takes, and what the unit holds; a lost process leaves its place only."""
    unit = getattr(context["ti"].task, "unit", None)
    return f"{unit['number']} ({unit['holds']})" if isinstance(unit, Mapping) else _number(context)


def _number(context: Any) -> str:
    unit = getattr(context["ti"].task, "unit", None)
    return str(unit["number"]) if isinstance(unit, Mapping) else f"map index {context['ti'].map_index}"
