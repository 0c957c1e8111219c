"""units: which units of a stage a run has left to do, and what each one holds."""

import logging
from typing import Any

from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)

#: Of what one unit holds; and of all units together, because Airflow hands each its own from one list.
_CHARACTERS = 100
_CHARACTERS_IN_ALL = 32_000


def execute(run: Run, stage: str) -> dict[str, Any]:
    """Tell the units without a manifest.

    Args:
        run: the run.
        stage: ``embed`` or ``density``.

    Returns:
        The result; in ``units``, ``number`` and content (``holds``: source and shard
        range, shortened in the middle where it is long) of each.
    """
    watch = Stopwatch()
    groups = run.plan.groups
    done = {info.key for info in run.storage.list(run.key(stage, ""))}
    left = [
        number for number, group in enumerate(groups) if run.manifest_key(stage, group.digest) not in done
    ]
    log.info("units of=%s left=%d done=%d", stage, len(left), len(groups) - len(left))
    room = min(_CHARACTERS, _CHARACTERS_IN_ALL // max(len(left), 1))
    units = [{"number": number, "holds": shortened(groups[number].label, room)} for number in left]
    return {"stage": "units", "run": run.uri, "of": stage, "units": units, "seconds": watch.seconds()}


def shortened(text: str, room: int) -> str:
    """The text in so many characters: its end tells as much as its beginning, its middle the least."""
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[-end:]}"
