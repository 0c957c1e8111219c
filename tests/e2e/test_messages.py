"""Who is told what, in a real Airflow: by a real SMTP server and a real HTTP server."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from demo.services import DAG
from tests.e2e.nights import TODAY, Nights
from tests.sinks import free_port

FAILS, WAITS, EMPTY = (f"{TODAY - timedelta(days=days)}" for days in (31, 32, 33))
#: What a document could make a stage say: a template, a call to all, a link with another face, a password.
HOSTILE = (
    "group 3, row 7: {{ 7 * 7 }} {% raw %} <!channel> @all <b>bold</b> \u202eesrever "
    "https://user:secret@host/x größer: repair the shard" + " and" * 1000
)


def about(nights: Nights, run: str) -> tuple[list[Any], list[Any]]:
    """Mails and posts that name a run, but that it is late."""
    link = f"/runs/{run.replace('+', '%2B').replace(':', '%3A')}"
    mails = [
        mail for mail in nights.sinks.mails if link in mail.get_content() and not is_late(mail["Subject"])
    ]
    texts = [body["text"] for _, _, body in nights.sinks.posts if link in body["text"]]
    return mails, [text for text in texts if not is_late(text)]


def is_late(text: str) -> bool:
    return " is late: " in text.partition("\n")[0]


def wait_until(true: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.fixture
def unpaused(nights: Nights) -> Nights:
    nights.client.set_paused(False)
    return nights


def test_units_that_fail_alike_are_told_of_once_with_links_that_answer(unpaused: Nights) -> None:
    nights = unpaused
    nights.tell(FAILS, "embed-left", "3 4 5")
    for unit in (3, 4, 5):
        nights.tell(FAILS, f"fail-embed-{unit}", HOSTILE)
    run = nights.client.trigger({"dump": FAILS})
    assert nights.client.wait(run, seconds=300) == "failed"
    failed = [task for task in nights.client.task_instances(run) if task["state"] == "failed"]
    assert {task["task_id"] for task in failed} == {"embed"}
    assert len(failed) == 3
    # `end` tells after it has ended, and the run with it.
    wait_until(lambda: [len(sent) for sent in about(nights, run)] == [2, 2])
    (mail, end), (text, _) = about(nights, run)
    print(mail, end)
    assert end["Subject"] == f"AITP: 3 units of {FAILS} failed in all"
    assert "embed, bad input: 3 units: 3, 4, 5" in end.get_content().splitlines()
    assert mail["Subject"] == f"AITP: embed of {FAILS} failed: bad input"
    assert mail.get_content_type() == "text/plain"
    lines = dict(line.split(": ", 1) for line in mail.get_content().splitlines()[2:] if ": " in line)
    assert lines["stage"] == "embed"
    number, holds = lines["unit"].split(" ", 1)
    assert number in ("3", "4", "5")
    assert holds == f"({FAILS} part-{number})"
    assert (lines["dump"], lines["class"], lines["tries"]) == (FAILS, "bad input", "1")
    assert lines["remedy"] == "correct what the error names, then clear the task"
    assert lines["error"].startswith(
        "group 3, row 7: {{ 7 * 7 }} {% raw %} <!channel> @all <b>bold</b> esrever "
    )
    assert "repair the shard" in lines["error"]
    assert len(lines["error"]) < 1600
    for sent in (mail.as_string(), text):
        assert "secret" not in sent
    # A chat finds nobody to call in the same.
    assert text.startswith(f"AITP: embed of {FAILS} failed: bad input\n")
    assert "<" not in text
    assert "@all" not in text
    for name in ("log", "run"):
        assert lines[name] in text
        assert_answers(nights, lines[name])
    # What is cleared, and fails again, is told of again.
    again = f"shard corpus/{FAILS}/part.parquet has no column text: correct text_columns"
    nights.tell(FAILS, "fail-embed-4", again)
    nights.client.clear(run, [("embed", int(failed[1]["map_index"]))], only_failed=False)
    assert nights.client.wait(run, seconds=300) == "failed"
    mails, _ = about(nights, run)
    assert len(mails) == 3
    print(mails[2])
    assert f"error: {again}" in mails[2].get_content().splitlines()


def assert_answers(nights: Nights, link: str) -> None:
    """The page is there, and what it shows is known to the API."""
    client = nights.client._http
    assert link.startswith(f"{nights.services.ui}/dags/{DAG}/runs/")
    assert client.get(link).status_code == 200
    path = urlsplit(link).path.replace("/runs/", "/dagRuns/").replace("/tasks/", "/taskInstances/")
    answer = client.get(f"/api/v2{path.replace('/mapped/', '/')}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["dag_id"] == DAG


def test_a_run_that_waits_beyond_its_deadline_is_told_of_once(unpaused: Nights) -> None:
    nights = unpaused
    line(nights, "begin", "--alone")
    try:
        run = nights.client.trigger({"dump": WAITS})
        title = f"AITP: the run of {WAITS} is late: running at its deadline"
        wait_until(lambda: any(mail["Subject"] == title for mail in nights.sinks.mails))
    finally:
        line(nights, "end")
    assert nights.client.wait(run, seconds=300) == "success"
    (mail,) = (mail for mail in nights.sinks.mails if mail["Subject"] == title)
    print(mail)
    (text,) = (body["text"] for _, _, body in nights.sinks.posts if body["text"].startswith(title))
    (link,) = re.findall(r"^run: (.+)$", text, re.MULTILINE)
    assert_answers(nights, link)
    # It made a version in the end, which was the latest: there is no more to tell.
    assert about(nights, run) == ([], [])


def line(nights: Nights, action: str, *options: str) -> None:
    """Take the line by hand, as another run would, or give it back."""
    config = ["--config", str(nights.config), "--set", "dump=by-hand"]
    command = [nights.config.with_name("aitp"), "line", *config, action, "--holder", "by hand", *options]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dead_mail_server_harms_neither_run_nor_webhook(unpaused: Nights) -> None:
    nights = unpaused
    before = len(nights.client._get(f"/api/v2/dags/{DAG}/dagRuns", limit=100)["dag_runs"])
    nights.connect("aitp_smtp", nights.sinks.mail_connection(port=free_port()))
    failed = "was not sent through mail connection aitp_smtp: ConnectionRefusedError"
    try:
        nights.backfill(EMPTY, EMPTY)
        runs = nights.wait_for_all(before + 1)
        (run,) = (run for run in runs if run["partition_key"] == EMPTY)
        # `begin` tells after it has ended, and the run with it.
        wait_until(lambda: failed in nights.log(run["dag_run_id"], "begin"))
    finally:
        nights.connect("aitp_smtp", nights.sinks.mail_connection())
    assert run["state"] == "success"
    mails, (text,) = about(nights, run["dag_run_id"])
    print(text)
    assert mails == []
    assert text.startswith(f"AITP: not promoted: nothing new ({EMPTY})\n")
    assert f"why: {EMPTY}: there is none\n" in text
    log = nights.log(run["dag_run_id"], "begin")
    assert "was sent through webhook connection chat" in log
    # The webhook's address is its secret; that of one that is gone stands in the error.
    assert re.search(r"was not sent through webhook connection gone: .*ConnectionPool.*url: \*\*\*", log)
    assert "secret-path" not in log
