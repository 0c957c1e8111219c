"""The service ``init`` with Airflow's own commands: what a person has changed, and what it sets again."""

from __future__ import annotations

import json
import os
import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from demo.services import REPOSITORY

pytestmark = pytest.mark.slow

INIT = runpy.run_path(str(REPOSITORY / "docker/init.py"))
HERE = {
    "AWS_ENDPOINT_URL": "http://store:8333",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "first",
    "AWS_SECRET_ACCESS_KEY": 'quote " backslash \\ dollar $ ü',
}


def test_the_connection_is_the_stores_until_a_person_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "airflow.db"
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def imported(**connection: str) -> None:
        path = tmp_path / "connections.json"
        path.write_text(json.dumps({"aitp_s3": {"conn_type": "aws", "password": "hidden", **connection}}))
        INIT["airflow"]("connections", "import", "--overwrite", str(path))

    def login() -> str:
        with closing(sqlite3.connect(database)) as opened:
            (found,) = opened.execute("SELECT login FROM connection WHERE conn_id = 'aitp_s3'").fetchall()
        return str(found[0])

    INIT["airflow"]("db", "migrate")
    # What .env says anew counts, as long as it is the store here.
    imported(login="before", extra=INIT["connection"](HERE)["extra"])
    INIT["set_connection"](HERE)
    assert login() == "first"
    # Amazon's own, which needs no address.
    imported(login="hers")
    capfd.readouterr()
    INIT["set_connection"](HERE)
    assert login() == "hers"
    shown = capfd.readouterr()
    assert "connection aitp_s3 is to another storage than the one here: it stays" in shown.out
    assert "hidden" not in shown.out + shown.err
