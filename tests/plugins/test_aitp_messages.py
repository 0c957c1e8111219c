"""What messages say, of what the real operator raises and what ``begin`` and ``assemble`` return."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

import aitp_messages
import aitp_stage
from aitp_messages import (
    FailureNotifier,
    GroupNotifier,
    LateNotifier,
    NotPromotedNotifier,
    failure_of,
    made,
    not_promoted,
)
from aitp_senders import Message
from aitp_tasks.config import Event, Messages

TOLD = {"email_to": ["team@example.org"]}
Sent = list[Message]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What would have been sent."""
    kept: Sent = []
    monkeypatch.setattr(aitp_messages, "send", lambda message, _: kept.append(message))
    monkeypatch.setattr(aitp_messages, "PAUSE_SECONDS", 0.0)
    return kept


@pytest.fixture
def config(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    def write(messages: dict[str, Any]) -> str:
        (tmp_path / "config.yaml").write_text(json.dumps({"messages": messages}))
        return str(tmp_path / "config.yaml")

    return write


class Run:
    """The task instances of a run, as far as a notifier asks them; all see the same XComs."""

    def __init__(self, **facts: Any) -> None:
        self.xcoms: dict[int, Any] = {}
        self.clear_number = 0
        self.facts = facts

    def context(self, error: BaseException | None = None, map_index: int = -1) -> dict[str, Any]:
        def push(key: str, value: Any) -> None:
            assert key == aitp_messages.FAILURE_KEY
            self.xcoms[map_index] = value

        def pull(task_ids: str, key: str = "return_value") -> Any:
            failures = list(self.xcoms.values()) if task_ids == "embed" else []
            values = failures if key == aitp_messages.FAILURE_KEY else [self.facts["result"]]
            # As Airflow has it: one is no list.
            return values[0] if len(values) == 1 else values

        ti = SimpleNamespace(
            task_id="embed",
            dag_id="aitp_refresh",
            run_id="manual__2026-11-26T01:25:04+00:00",
            map_index=map_index,
            try_number=2,
            log_url="http://airflow/log",
            task=SimpleNamespace(unit={"number": map_index + 10, "holds": "c4 00004–00007"}),
            xcom_push=push,
            xcom_pull=pull,
        )
        run = SimpleNamespace(partition_key="2026-11-23", clear_number=self.clear_number)
        return {"ti": ti, "dag_run": run, "params": {"dump": None}, "exception": error}


def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> BaseException:
    """What the stage operator raises when its program does that."""
    program = tmp_path / "aitp"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("AITP_COMMAND", str(program))
    monkeypatch.setattr(aitp_stage, "storage_credentials", dict)
    operator = aitp_stage.StageOperator(task_id="t", stage="embed", run="s3://b/runs/x")
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it raises is what is asked for
        aitp_stage.StageOperator.execute.__wrapped__(operator, {})  # type: ignore[attr-defined]
    return caught.value


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        ("echo 'error: bad input: a: b' >&2; exit 2", "bad input", "bad input: a: b"),
        ("echo 'error: 7 of 9 rows' >&2; exit 3", "failure budget exceeded", "7 of 9 rows"),
        ("echo 'error: slow down' >&2; exit 75", "passing fault", "slow down"),
        ("exit 1", "crash", "embed crashed with exit code 1: it left no error line"),
        ("kill -KILL $$", "crash", "embed was ended by SIGKILL"),
        ("true", "bad input", "its output '' is not one JSON object"),
        (
            "echo 'error: failure budget exceeded: no' >&2; exit 75",
            "passing fault",
            "failure budget exceeded",
        ),
    ],
)
def test_what_the_operator_raises_has_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, kind: str, error: str
) -> None:
    failure = failure_of(raised(tmp_path, monkeypatch, body))
    assert failure.kind == kind
    assert error in failure.error
    assert aitp_messages.event_of(failure.kind) == (
        Event.BUDGET if kind == "failure budget exceeded" else Event.FAILURE
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AirflowTaskTimeout("Timeout, PID: 7"), "time-out"),
        (AirflowFailException("this run names two dumps"), "bad input"),
        (KeyError("run"), "crash"),
        (None, "lost"),
    ],
)
def test_what_else_ends_a_task_has_its_kind_too(error: BaseException | None, kind: str) -> None:
    failure = failure_of(error)
    assert failure.kind == kind
    assert failure.kind in aitp_messages.REMEDIES
    assert failure.error


def test_a_failure_of_the_maintenance_names_no_dump(sent: Sent, config: Any) -> None:
    context = Run().context(AirflowFailException("indexes: bad input: index x is damaged"))
    context["dag_run"].partition_key, context["params"] = None, {}
    context["ti"].task_id = "indexes"
    FailureNotifier(config(TOLD))(context)
    (message,) = sent
    assert message.title == "AITP: indexes failed: bad input"
    assert "dump" not in message.text


def test_a_failure_names_all_that_is_needed(sent: Sent, config: Any) -> None:
    FailureNotifier(config(TOLD))(Run().context(AirflowFailException("embed: bad input: no such key")))
    (message,) = sent
    assert message.title == "AITP: embed of 2026-11-23 failed: bad input"
    assert message.text.splitlines() == [
        "error: no such key",
        "remedy: correct what the error names, then clear the task",
        "class: bad input",
        "stage: embed",
        "dump: 2026-11-23",
        "tries: 2",
        "log: http://airflow/log",
        f"run: {aitp_messages.run_url('aitp_refresh', 'manual__2026-11-26T01:25:04+00:00')}",
    ]
    assert message.text.rstrip().endswith("/runs/manual__2026-11-26T01%3A25%3A04%2B00%3A00")


def test_units_that_fail_alike_are_one_message_and_a_cleared_run_begins_anew(sent: Sent, config: Any) -> None:
    run, notifier = Run(), FailureNotifier(config(TOLD))
    bad, slow = AirflowFailException("embed: bad input: a"), RuntimeError("embed: passing fault: b")
    for index, error in ((2, bad), (0, bad), (1, slow), (3, bad)):
        notifier(run.context(error, index))
    kinds = [
        (message.title.rpartition(": ")[2], "unit: 12 (c4 00004–00007)" in message.text) for message in sent
    ]
    assert kinds == [("bad input", True), ("passing fault", False)]
    assert "Further units of this stage" in sent[0].text
    ends = GroupNotifier(config(TOLD))
    ends(run.context())
    assert sent[2].title == "AITP: 3 units of 2026-11-23 failed in all"
    assert sent[2].text.startswith("embed, bad input: 3 units: 10, 12, 13\nrun: http")
    run.clear_number = 1
    notifier(run.context(bad, 3))
    assert len(sent) == 4
    ends(run.context())
    assert len(sent) == 4


def test_a_run_in_which_nothing_failed_has_no_more_to_tell(sent: Sent, config: Any) -> None:
    GroupNotifier(config(TOLD))(Run().context())
    assert sent == []


def test_units_that_fail_at_the_same_moment_are_one_message(
    sent: Sent, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, notifier = Run(), FailureNotifier(config(TOLD))
    error = AirflowFailException("embed: bad input: a")
    monkeypatch.setattr(aitp_messages.time, "time", lambda: 1.0)
    # While the first waits for others to fail, they do.
    later = iter((1, 0))

    def another(_seconds: float) -> None:
        if (index := next(later, None)) is not None:
            notifier(run.context(error, index))

    monkeypatch.setattr(aitp_messages.time, "sleep", another)
    notifier(run.context(error, 2))
    assert [message.text.splitlines()[4] for message in sent] == ["unit: 10 (c4 00004–00007)"]


def test_where_no_xcom_can_be_written_the_message_is_sent(sent: Sent, config: Any) -> None:
    context = Run().context(None, 4)
    context["ti"].xcom_push = context["ti"].xcom_pull = None
    FailureNotifier(config(TOLD))(context)
    assert sent[0].title.endswith("failed: lost")


@pytest.mark.parametrize(
    ("messages", "error", "count"),
    [
        ({}, "embed: bad input: a", 0),
        ({**TOLD, "events": []}, "embed: bad input: a", 0),
        ({**TOLD, "events": ["budget"]}, "embed: bad input: a", 0),
        ({**TOLD, "events": ["budget"]}, "embed: failure budget exceeded: a", 1),
        ({**TOLD, "events": ["failure"]}, "embed: failure budget exceeded: a", 0),
        ({**TOLD, "events": ["failure"]}, "embed: bad input: a", 1),
        ({**TOLD, "nobody": 1}, "embed: bad input: a", 0),
    ],
)
def test_only_what_is_asked_for_is_told(
    sent: Sent, config: Any, messages: dict[str, Any], error: str, count: int
) -> None:
    FailureNotifier(config(messages))(Run().context(AirflowFailException(error)))
    assert len(sent) == count


@pytest.mark.parametrize("path", ["missing.yaml", "wrong.yaml"])
def test_a_file_that_is_wrong_is_told_to_the_log_and_no_further(
    sent: Sent, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    (tmp_path / "wrong.yaml").write_text("messages: {email_to: ['https://me:pw@host']}")
    FailureNotifier(str(tmp_path / path))(Run().context(KeyError("a")))
    assert sent == []
    assert "no message was sent: " in caplog.text
    assert path in caplog.text
    assert "pw" not in caplog.text


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"taken": True, "left": {"a": "there is none"}}, None),
        ({"taken": False, "left": {"a": "there is none", "b": "it is young"}}, "nothing new"),
        ({"unchanged": False, "is_latest": True}, None),
        ({"unchanged": True, "is_latest": True}, "nothing has changed"),
        ({"unchanged": False, "is_latest": False}, "another version came in between"),
        # Not decided yet, or by nobody.
        ({"unchanged": False, "is_latest": False, "promote": "when_better"}, None),
        ({"evaluated": False, "promoted": False, "why": "evaluate.promote is never"}, None),
        ({"evaluated": True, "promoted": True, "is_latest": True, "why": "it is better"}, None),
        ({"promoted": False, "is_latest": False, "why": "it is worse"}, "it was evaluated"),
        (
            {"promoted": False, "is_latest": False, "refused": True, "why": "Ada has not approved it"},
            "it was not approved",
        ),
        ({}, None),
    ],
)
def test_no_new_version_that_is_the_latest_is_told_of(
    sent: Sent, config: Any, result: dict[str, Any], why: str | None
) -> None:
    NotPromotedNotifier(config(TOLD))(Run(result=result).context())
    assert [message.title for message in sent] == (
        [f"AITP: not promoted: {why} (2026-11-23)"] if why is not None else []
    )


def test_what_is_left_is_named() -> None:
    told = not_promoted({"taken": False, "left": {"a": "there is none", "b": "it is young"}})
    assert told == ("nothing new", {"why": "a: there is none; b: it is young"})


def test_a_late_run_is_told_of_by_what_a_deadline_knows(sent: Sent, config: Any) -> None:
    run = {"dag_id": "aitp_refresh", "dag_run_id": "r", "partition_key": None, "conf": {"dump": "wiki"}}
    run |= {"state": "running", "queued_at": "2026-11-24T00:00:00.123Z"}
    context = {
        "dag_run": run,
        "deadline": {"id": "1", "deadline_time": datetime(2026, 11, 24, 8, tzinfo=UTC)},
    }
    LateNotifier(config(TOLD))(context)
    assert sent[0].title == "AITP: the run of wiki is late: running at its deadline"
    assert "queued: 2026-11-24 00:00 UTC\ndeadline: 2026-11-24 08:00 UTC\n" in sent[0].text


def test_a_deadline_is_there_when_hours_are_set(config: Any) -> None:
    alert = aitp_messages.deadline(config({**TOLD, "late_hours": 8}))
    assert alert is not None
    assert alert.interval == timedelta(hours=8)
    assert alert.callback.path == "aitp_messages.LateNotifier"
    assert aitp_messages.deadline(config(TOLD)) is None
    assert aitp_messages.deadline(config({"late_hours": 8})) is None
    assert aitp_messages.deadline("missing.yaml") is None


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("\u202eright to left\u2066 \x1b[31mred\x00", "right to left [31mred"),
        ("{{ ti.task }} %s {} <b>", "{{ ti.task }} %s {} <b>"),
        ("s3://key:secret@host/a", "s3://…@host/a"),
        ("größer 東京", "größer 東京"),
        (
            "x" * 1499 + "https://u:" + "p" * 500 + "@host",
            "x" * 1499 + "h… (13 more characters: see the log)",
        ),
    ],
)
def test_a_line_is_plain_bounded_and_names_no_user(value: str, line: str) -> None:
    assert made("t", {"error": value}).text == f"error: {line}\n"


def test_a_title_is_one_bounded_line() -> None:
    title = made("dump\n" + "x" * 1000, {}).title
    assert "\n" not in title
    assert len(title) < aitp_messages.TITLE_CHARACTERS + 50


def test_nobody_to_tell_of_a_late_run_is_refused() -> None:
    with pytest.raises(ValueError, match="late_hours is set, but nobody is told"):
        Messages(late_hours=1)
