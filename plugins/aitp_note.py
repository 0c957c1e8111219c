"""A line in the note of a DAG run, as Airflow's grid and run page show it.

A task cannot write there by itself: its token is good for the execution API, which has no
notes of runs that exist. So a deployment that wants the note gives a user of Airflow's
own REST API in the connection ``aitp_airflow``; without it the line is in the task's log and
result only. A note never fails a task.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from aitp_stage import ConfiguredOperator

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

log = logging.getLogger(__name__)

#: An ``http`` connection: login and password of a user who may edit runs; the host where it is not
#: ``[api] base_url``.
CONNECTION = "aitp_airflow"
#: Of a note, by Airflow.
_NOTE_CHARACTERS = 1000
_SECONDS = 20.0


class PlanOperator(ConfiguredOperator):
    """Runs ``aitp plan``; its estimate becomes a line of the run's note."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan; see ``StageOperator.execute``."""
        result = super().execute(context)
        if result.get("estimate"):
            write(context, "estimate", str(result["estimate"]))
        return result


def write(context: Context, name: str, text: str) -> None:
    """Put ``name: text`` into the run's note, in place of what it said under that name before.

    What people have written there stays.
    """
    try:
        connection = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        log.info("the run gets no note: there is no connection %s", CONNECTION)
        return
    run = context["dag_run"]
    path = f"/api/v2/dags/{quote(run.dag_id, safe='')}/dagRuns/{quote(run.run_id, safe='')}"
    try:
        with httpx.Client(base_url=_address(connection), timeout=_SECONDS) as client:
            login = {"username": connection.login, "password": connection.password}
            answer = client.post("/auth/token", json=login).raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            before = client.get(path).raise_for_status().json()["note"] or ""
            note = with_line(before, name, text)
            if note == before:
                return
            client.patch(path, params={"update_mask": "note"}, json={"note": note}).raise_for_status()
    except httpx.HTTPStatusError as error:
        log.warning("the run gets no note: %s answers %s", CONNECTION, error.response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        log.warning("the run gets no note: %s does not answer (%s)", CONNECTION, type(error).__name__)


def with_line(note: str, name: str, text: str) -> str:
    """A note in which one line says ``name: text``; as it was where there is no room for it."""
    kept = [line for line in note.splitlines() if not line.startswith(f"{name}: ")]
    made = "\n".join([*kept, f"{name}: {' '.join(text.split())}"])
    return made if len(made) <= _NOTE_CHARACTERS else note


def _address(connection: Connection) -> str:
    """Where the API is; nobody's name or password in it."""
    if not connection.host:
        return str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    host = (
        connection.host if "://" in connection.host else f"{connection.schema or 'http'}://{connection.host}"
    )
    return host.rstrip("/") + (f":{connection.port}" if connection.port else "")
