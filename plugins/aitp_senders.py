"""How a message leaves: by mail and by webhook, through Airflow's own connections.

What is here: the two ways, their bounds in time, and what is told in the log when one
fails. What is not here: what a message says (aitp_messages.py). Airflow's ready
notifiers are not used: they take their texts for Jinja templates and send HTML, and a
message quotes lines that quote documents.
"""

from __future__ import annotations

import logging
import smtplib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from functools import partial

from airflow.sdk import BaseHook

from aitp_tasks.config import Messages, file
from aitp_tasks.errors import InputError

log = logging.getLogger(__name__)

#: How long all ways together may take; Airflow leaves a task that has ended 20 s (``task_success_overtime``).
SECONDS = 15.0


@dataclass(frozen=True)
class Message:
    """A text whose first line says all.

    Attributes:
        title: the first line; a mail's subject.
        text: the lines below it.
    """

    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title}\n\n{self.text}"


def send(message: Message, messages: Messages) -> None:
    """Send a message by all ways at once; what cannot be sent is told in the log, and nothing is raised."""
    ways: dict[str, Callable[[], None]] = {
        f"webhook connection {name}": partial(post, message, name) for name in messages.webhook_connections
    }
    if messages.email_to:
        ways[f"mail connection {messages.email_connection}"] = partial(mail, message, messages)
    errors: dict[str, str] = {}
    threads = {name: _start(name, way, errors) for name, way in ways.items()}
    for thread in threads.values():
        # Together no longer than that, since all have begun at the same time.
        thread.join(SECONDS)
    for name, thread in threads.items():
        if thread.is_alive():
            errors[name] = f"no answer within {SECONDS:.0f} seconds"
        if name in errors:
            log.error("message %r was not sent through %s: %s", message.title, name, errors[name])
        else:
            log.info("message %r was sent through %s", message.title, name)


def mail(message: Message, messages: Messages) -> None:
    """Send one mail to all recipients, as plain text.

    Raises:
        InputError: the connection names no sender.
    """
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    with SmtpHook(smtp_conn_id=messages.email_connection) as hook:
        if not hook.from_email:
            raise InputError('its extra field has no "from_email": add the address that sends')
        made = EmailMessage(policy=SMTP)
        made["Subject"] = message.title
        made["From"] = hook.from_email
        made["To"] = ", ".join(messages.email_to)
        made["Date"] = formatdate()
        # Not answered by an absent person's autoresponder.
        made["Auto-Submitted"] = "auto-generated"
        made.set_content(str(message), cte="quoted-printable")
        client = hook._smtp_client
        # The hook has another kind of client where it is awaited.
        assert isinstance(client, smtplib.SMTP)
        refused = client.send_message(made)
    if refused:
        raise InputError(f"the server refused {', '.join(refused)}: correct messages.email_to")


def post(message: Message, connection: str) -> None:
    """Post a message as JSON with the field ``text``.

    A webhook's address often is its secret. So the part of it that is one may stand in the
    connection's password, which Airflow encrypts and masks: without a login, it is the path.
    """
    from airflow.providers.http.hooks.http import HttpHook

    known = BaseHook.get_connection(connection)
    path = None if known.login else known.password
    hook = HttpHook(method="POST", http_conn_id=connection)
    hook.run(endpoint=path, json={"text": inert(str(message))}, extra_options={"timeout": SECONDS})


def inert(text: str) -> str:
    """A text in which a chat finds nobody to call and no link with another face.

    Slack reads ``<!channel>`` and ``<https://a|b>``, others ``@all``.
    """
    return text.replace("<", "‹").replace(">", "›").replace("@", "@\u200b")


def _start(name: str, way: Callable[[], None], errors: dict[str, str]) -> threading.Thread:
    def run() -> None:
        try:
            way()
        except Exception as error:
            # Whatever it is: a message is no reason for a run to fail.
            errors[name] = file.masked(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=True, name=f"message through {name}")
    thread.start()
    return thread
