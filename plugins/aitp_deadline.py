"""A run's deadline counts from when it was queued.

Airflow has such a reference of its own, but what a run with one has failed at cannot be cleared before its
deadline: the page answers with an internal error (apache/airflow#70368, in 3.3.0 and later). This one is
left alone when a task is cleared, so that the deadline of a run stays what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.definitions.deadline import BaseDeadlineReference

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session


class Queued(BaseDeadlineReference):
    """The time at which a run was queued first: a partitioned run has no logical date."""

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str, **_: Any) -> datetime | None:
        """Called where runs are made, in the scheduler and the API server."""
        from airflow.models import DagRun
        from sqlalchemy import select

        queued: datetime | None = session.scalar(
            select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )
        return queued


class DeadlinePlugin(AirflowPlugin):
    """Makes the reference known to Airflow."""

    name = "aitp_deadline"
    deadline_references = [Queued]  # noqa: RUF012
