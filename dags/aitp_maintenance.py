"""The weekly maintenance: tells what nobody refers to, joins small objects, checks indexes, counts.

What is here: what runs when, and for how long at most. What is not here: what a
command does (``aitp_tasks/tools/``) and how it is run (``plugins/aitp_stage.py``).
It needs no turn on a dataset's line: each command can run beside nights.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, TriggerRule, dag

from aitp_messages import FailureNotifier
from aitp_stage import StageOperator, deployments_config
from aitp_tasks.tools import TOOLS

CONFIG = str(deployments_config())
#: Longest duration of each command.
TIMEOUTS = {
    "gc": timedelta(hours=12),
    "compact": timedelta(hours=12),
    "indexes": timedelta(hours=12),
    "storage": timedelta(hours=4),
}


def command_table() -> str:
    """The DAG's documentation page."""
    does = {tool.name: tool.does for tool in TOOLS}
    rows = [
        f"| `{name}` | {timeout.total_seconds() / 3600:g} h | {does[name]} |"
        for name, timeout in TIMEOUTS.items()
    ]
    return "\n".join(
        [
            "Keeps the storage in order, on Sundays at 12:00 UTC; it can run beside nights.",
            "",
            "| command | at most | does |",
            "|---|---|---|",
            *rows,
            "",
            "Nothing is deleted unless `maintenance.delete` in the configuration says so.",
            "What was found is in each task's log and result.",
        ]
    )


@dag(
    # Once a week, hours after a night has begun: whoever looks on Monday sees it.
    schedule=CronTriggerTimetable("0 12 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    doc_md=command_table(),
    tags=["aitp"],
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(hours=1),
        "on_failure_callback": FailureNotifier(CONFIG),
    },
)
def aitp_maintenance() -> Any:
    """Wire the commands; the run's result is that of the figures."""

    def command(name: str, *further: str, **how: Any) -> StageOperator:
        return StageOperator(
            task_id=name,
            stage=name,
            arguments=["--config", CONFIG, *further],
            execution_timeout=TIMEOUTS[name],
            **how,
        )

    gc = command("gc", "--delete-if-configured")
    storage = command("storage")
    # What is joined is young again, and what was deleted must be missed by no index: both come after gc.
    gc >> command("compact") >> storage
    gc >> command("indexes", trigger_rule=TriggerRule.ALL_DONE)
    return storage.output


aitp_maintenance()
