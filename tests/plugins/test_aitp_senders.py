"""Sending, against a real SMTP server and a real HTTP server."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

import aitp_senders
from aitp_senders import Message, inert, send
from aitp_tasks.config import Messages
from tests.sinks import HOST, Sinks, free_port

MESSAGE = Message("AITP: embed failed: bad input", "error: größer als <!channel> @all\n.\nlog: http://a/b\n")
BOTH = Messages(email_to=("a@example.org", "b@example.org"), webhook_connections=("chat",))


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    made = Sinks()
    yield made
    made.stop()


@pytest.fixture
def connections(sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The connections that Airflow knows, all pointing at the sinks."""
    known = {"aitp_smtp": sinks.mail_connection(), "chat": sinks.web_connection()}

    def get(name: str) -> Connection:
        if name not in known:
            raise AirflowNotFoundException(f"The conn_id `{name}` isn't defined")
        return Connection(conn_id=name, **known[name])

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))
    return known


def test_a_message_is_one_plain_mail_to_all_and_one_post(sinks: Sinks, connections: Any) -> None:
    send(MESSAGE, BOTH)
    (mail,) = sinks.mails
    assert mail.get_content_type() == "text/plain"
    assert (mail["Subject"], mail["From"]) == (MESSAGE.title, "airflow@example.org")
    assert mail["X-Envelope-To"] == "a@example.org, b@example.org"
    # Word for word, also a line that SMTP would take for the end.
    assert mail.get_content().splitlines() == str(MESSAGE).splitlines()
    ((path, headers, body),) = sinks.posts
    assert path == "/services/T0/B0/secret-path"
    assert "Authorization" not in headers
    assert body == {"text": inert(str(MESSAGE))}
    assert "‹!channel›" in body["text"]
    assert "@all" not in body["text"]


def test_a_connection_with_a_login_keeps_its_password(sinks: Sinks, connections: Any) -> None:
    connections["chat"] |= {"login": "me", "password": "mine", "extra": json.dumps({"X-Team": "a"})}
    send(MESSAGE, Messages(webhook_connections=("chat",)))
    ((path, headers, _),) = sinks.posts
    assert (path, headers["Authorization"], headers["X-Team"]) == ("/", "Basic bWU6bWluZQ==", "a")
    assert sinks.mails == []


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "aitp_senders"]


@pytest.mark.parametrize(
    ("mend", "error"),
    [
        (lambda known: known["aitp_smtp"].update(port=free_port()), "ConnectionRefusedError"),
        (lambda known: known.pop("aitp_smtp"), "SMTP connection is not found"),
        (
            lambda known: known["aitp_smtp"].update(extra='{"disable_ssl": true, "disable_tls": true}'),
            "from_email",
        ),
        (lambda known: known["aitp_smtp"].update(host="http://u:pw@nowhere.invalid"), "gaierror"),
    ],
)
def test_one_way_that_fails_is_named_and_holds_up_no_other(
    sinks: Sinks, connections: Any, caplog: pytest.LogCaptureFixture, mend: Any, error: str
) -> None:
    mend(connections)
    with caplog.at_level(logging.INFO):
        send(MESSAGE, BOTH)
    assert (len(sinks.mails), len(sinks.posts)) == (0, 1)
    (failed,) = (line for line in told(caplog) if "was not sent" in line)
    assert "through mail connection aitp_smtp: " in failed
    assert error in failed
    assert "pw" not in failed


def test_a_webhook_that_refuses_is_named(
    sinks: Sinks, connections: Any, caplog: pytest.LogCaptureFixture
) -> None:
    connections["chat"]["port"] = free_port()
    with caplog.at_level(logging.INFO):
        send(MESSAGE, BOTH)
    assert len(sinks.mails) == 1
    assert any(
        "was not sent through webhook connection chat: ConnectionError" in line for line in told(caplog)
    )


def test_a_server_that_never_answers_costs_bounded_time(
    sinks: Sinks, connections: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aitp_senders, "SECONDS", 1.0)
    with socket.create_server((HOST, 0)) as silent, caplog.at_level(logging.INFO):
        connections["aitp_smtp"]["port"] = silent.getsockname()[1]
        send(MESSAGE, BOTH)
    assert any("mail connection aitp_smtp: no answer within 1 seconds" in line for line in told(caplog))
    assert len(sinks.posts) == 1


def test_nobody_to_tell_is_no_error() -> None:
    send(MESSAGE, Messages())
