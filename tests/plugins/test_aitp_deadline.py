"""The deadline's reference, as Airflow itself writes it down and finds it again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow import plugins_manager, settings
from airflow.models import DagRun
from airflow.serialization.decoders import decode_deadline_reference
from airflow.serialization.encoders import encode_deadline_reference
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from aitp_deadline import Queued

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
QUEUED = datetime(2026, 11, 24, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The reference as the scheduler has it, which finds it among the plugins."""
    monkeypatch.setattr(settings, "PLUGINS_FOLDER", str(PLUGINS))
    for found in (plugins_manager._get_plugins, plugins_manager.get_deadline_references_plugins):
        found.cache_clear()
    yield decode_deadline_reference(encode_deadline_reference(Queued()))
    for found in (plugins_manager._get_plugins, plugins_manager.get_deadline_references_plugins):
        found.cache_clear()


def test_a_deadline_counts_from_when_the_run_was_queued(read: Any) -> None:
    engine = create_engine("sqlite://")
    DagRun.__table__.create(engine)
    with Session(engine) as session:
        rows = [("a", "x", QUEUED), ("a", "y", QUEUED + timedelta(days=1)), ("b", "x", None)]
        for dag, run, at in rows:
            values = {"dag_id": dag, "run_id": run, "queued_at": at, "run_type": "manual", "state": "queued"}
            # What Airflow would fill in from its other tables.
            filled = {"run_after": QUEUED, "log_template_id": None}
            session.execute(insert(DagRun.__table__).values({**values, **filled}))
        told = [
            read.evaluate_with(session=session, interval=timedelta(hours=9), dag_id=dag, run_id=run)
            for dag, run in [("a", "x"), ("a", "y"), ("b", "x"), ("c", "x")]
        ]
    assert told == [QUEUED + timedelta(hours=9), QUEUED + timedelta(days=1, hours=9), None, None]


def test_it_is_not_the_one_that_airflow_reckons_anew_when_a_task_is_cleared(read: Any) -> None:
    assert read.serialize_reference() == {"reference_type": "Queued"}
    assert read.reference_name != "DagRunQueuedAtDeadline"
