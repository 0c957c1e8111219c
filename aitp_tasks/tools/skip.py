"""skip: a run goes on without a part that cannot be done, or is not worth it.

Writes ``runs/<dump>/<digest>/given-up/<part>.json``. What the part's documents are is
told in the ledger of assemble, in the report and in the card. As long as no version is
made, the part can be done after all: clear its instances.
"""

import logging
from typing import Any

from aitp_tasks.errors import InputError
from aitp_tasks.records import generated, selected
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)


def execute(run: Run, unit: int, stage: str, why: str) -> dict[str, Any]:
    """Give up a part, unless a stage has done it.

    Args:
        run: that goes on without it.
        unit: number of the part.
        stage: that has not done it; by default the last, answer.
        why: for those who read of it.

    Raises:
        InputError: there is no such part, or the run's version is made.
    """
    part = run.part(unit)
    documents = selected.table(run, part, ["doc_id"]).num_rows
    done = run.find_manifest(stage, part) is not None
    if not done:
        if run.find_manifest("assemble") is not None:
            raise InputError(f"the version of {run.uri} is made: {part} cannot be given up any more")
        generated.give_up(run, part, why)
    if done:
        log.info("%s of %s is done: nothing is given up", stage, part)
    else:
        log.warning("the run goes on without %s, %d documents: %s", part, documents, why)
    return {
        "stage": "skip",
        "run": run.uri,
        "label": f"{run.config.dump} part {unit + 1} of {run.part_count}",
        "given_up": not done,
        "documents": documents,
    }
