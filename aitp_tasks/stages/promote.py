"""promote: the version and its checkpoint become the latest, if that follows from what evaluate has measured.

Reads evaluate's manifest; writes what was decided, and moves ``latest`` of the dataset and of the
models. It is decided anew each time that the stage is run (see ``evaluation.promotion``): a second
time changes nothing, unless ``evaluate.promote`` or the tolerance is another one by then. With
``evaluate.promote=always`` assemble and finetune have moved ``latest`` already. A person who was
asked and has not approved is named in the call; that is all that this stage knows of approval.
"""

import logging
from typing import Any

from aitp_tasks.config import Promote
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import promotion
from aitp_tasks.evaluation.promotion import Decision
from aitp_tasks.records import promoted, versions
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)

STAGE = "promote"


def execute(run: Run, refused_by: str | None = None) -> dict[str, Any]:
    """Promote the version, if that follows.

    Args:
        run: the run.
        refused_by: who has not approved the promotion; None where nobody was asked, or somebody has.

    Raises:
        InputError: an earlier stage has not been run, or there is nothing to refuse.
        TransientError: others moved ``latest`` again and again.
    """
    settings = run.config.evaluate
    done = run.require_manifest("evaluate") if settings.held_out else None
    decision = promotion.decide(
        settings.promote, settings.tolerance, promotion.differences(done.figures) if done else {}
    )
    result = {
        "stage": STAGE,
        "run": run.uri,
        "label": done.label if done else "nothing is held out",
        "seconds": 0.0,
    }
    if settings.promote is Promote.WHEN_BETTER:
        heard = _heard(run, decision, refused_by)
        result["refused"] = heard is not decision
        decision, told = _moved(run, heard)
        result |= told
    elif refused_by is not None:
        raise InputError(
            f"--refused-by {refused_by}: with evaluate.promote={settings.promote.value} there is nothing to "
            "refuse; when_better is what a person may be asked about"
        )
    if done is not None:
        promoted.note(run, decision.promoted, decision.why)
    log.info("promote: %s", decision.sentence)
    return promotion.within_bounds(result | {"promoted": decision.promoted, "why": decision.why})


def _heard(run: Run, decision: Decision, refused_by: str | None) -> Decision:
    """The decision, after what a person has said."""
    if refused_by is None or not decision.promoted:
        return decision
    if (before := promoted.noted(run)) and before[0]:
        log.warning("%s has not approved the promotion, but the version was promoted before", refused_by)
        return decision
    return Decision(False, f"{refused_by} has not approved it")


def _moved(run: Run, decision: Decision) -> tuple[Decision, dict[str, Any]]:
    """Let ``latest`` name the version and its checkpoint, if that was decided; what came of it."""
    if not decision.promoted:
        return decision, {"is_latest": False}
    assembled, storage, line = run.require_manifest("assemble"), run.storage, run.config.assemble.dataset
    name, figures = assembled.figures["version"], assembled.figures
    if not versions.add(storage, line, versions.load(storage, line, name)):
        said = versions.pointed(storage, line, versions.seen(storage, line))
        why = "it was rolled back" if said and name in said.rolled_back else "another version came in between"
        return Decision(False, why), {"is_latest": False}
    promoted.point(run, name, run.require_manifest("finetune").output("checkpoint"))
    return decision, {
        "is_latest": True,
        "unchanged": bool(figures.get("unchanged")),
        "dataset": storage.uri(versions.prefix(line, name)),
        **{count: figures[count] for count in ("pairs", "earlier_pairs", "sft_examples")},
        "parts_given_up": len(figures.get("parts_given_up", {})),
    }
