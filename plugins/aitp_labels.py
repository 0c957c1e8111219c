"""Labels of mapped instances that have not begun: what a unit holds, not its number.

Airflow renders ``map_index_template`` when an instance begins. Until then the scheduler
knows no more than the number, hence this policy: it looks the unit up in the list that
the instance is mapped over. What is not here: the labels from the beginning on
(``aitp_stage``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

DAG = "aitp_refresh"
#: Which task lists the units of each mapped stage.
LISTED_BY = {
    "embed": "embed_units",
    "density": "density_units",
    "rewrite": "parts",
    "score": "parts",
    "answer": "parts",
    "pilot_rewrite": "pilot_parts",
    "pilot_score": "pilot_parts",
    "pilot_answer": "pilot_parts",
}


def task_instance_mutation_hook(task_instance: TaskInstance, dag_run: DagRun | None = None) -> None:
    """Label an instance when the scheduler makes it, or when it is cleared.

    One that cannot be labelled keeps its number: a label is no reason to hold a run up.
    """
    if task_instance.dag_id != DAG or task_instance.map_index < 0 or dag_run is None:
        return
    units = listed(dag_run, LISTED_BY.get(task_instance.task_id, ""))
    unit = dict(enumerate(units)).get(task_instance.map_index) if isinstance(units, list) else None
    if isinstance(unit, dict):
        task_instance._rendered_map_index = unit.get("holds")


def listed(dag_run: DagRun, task: str) -> Any:
    """What a task of the run has listed, read with the scheduler's own session, which has to stay open."""
    from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None or not task:
        return None
    query = XComModel.get_many(
        run_id=dag_run.run_id, dag_ids=dag_run.dag_id, task_ids=task, key=XCOM_RETURN_KEY, limit=1
    )
    with session.no_autoflush:
        found = session.scalar(query)
    return XComModel.deserialize_value(found) if found is not None else None
