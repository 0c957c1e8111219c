"""finetune: train the base model on the new dataset version, under DeepSpeed.

Reads the version's shards that assemble has left, and the base model.
Writes the checkpoint (the base's twin, with a card) and the log history; the checkpoint
gets its place once it is committed (see ``records.published``). Where the same dataset
version was trained on with the same settings before, that checkpoint is named, and
nothing is trained. A killed training goes on from the last state that it has left. In
``training``, session.py is one training, template.py chooses the chat template, making.py makes the
examples, launcher.py runs the ranks, train.py is one of them, kept.py keeps their states.

Of several machines (``finetune.nodes``) each runs the stage, and trains with its own ranks: nodes.py says
which it is, meeting.py holds what they say to each other. The first alone writes the checkpoint and commits;
the others end when it has.
"""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from aitp_tasks.config import Promote
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import devices, models
from aitp_tasks.records import data_files, digest, promoted, published, tables, trainings, validation
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, commonest
from aitp_tasks.records.run import Run
from aitp_tasks.training import card, events, examples, kept, making, nodes, session, vocabulary
from aitp_tasks.training.examples import ExampleMaker, Tally
from aitp_tasks.training.job import Job, Outcome
from aitp_tasks.training.meeting import Meeting
from aitp_tasks.training.nodes import Node

log = logging.getLogger(__name__)

STAGE = "finetune"
#: A checkpoint without it is none to any library, so it comes last.
_LAST = "config.json"
#: What the first of several machines says to the others.
_COMMITTED = "committed"


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Fine-tune, unless it has been done.

    Raises:
        InputError: the model or its chat template cannot be used, no row can be
            trained on, the loss diverges, or there are fewer devices than ranks.
        BudgetExceededError: too many rows have roles that nobody knows, or are refused by the chat template.
        TransientError: no GPUs became free, or the launcher or a rank failed for
            another reason.
    """
    node, done = None, run.find_manifest(STAGE) or _standing(run)
    if done is None:
        node = nodes.here(run.config.finetune)
        done = _finetune(run, node)
    if node is None or node.first:
        _hand_on(run, done)
    return {
        "stage": STAGE,
        "run": run.uri,
        "label": done.label,
        "unchanged": bool(done.figures.get("unchanged")),
        "seconds": done.seconds,
        "checkpoint": run.storage.uri(done.output("checkpoint")),
        "train_loss_first": done.figures["train_loss_first"],
        "train_loss_last": done.figures["train_loss_last"],
        **({"node": node.rank, "nodes": node.count} if node else {}),
    }


def _hand_on(run: Run, done: Manifest) -> None:
    """Give the checkpoint its place, and let go of what was kept until then."""
    published.publish(run, done, done.output("checkpoint"), _LAST)
    kept.clear(run)
    if not done.figures.get("unchanged"):
        # Only now: another run would name this checkpoint.
        trainings.add(run, _dataset(run))
    if run.config.evaluate.promote is Promote.ALWAYS:
        promoted.point(run, _dataset(run), done.output("checkpoint"))


def _standing(run: Run) -> Manifest | None:
    """What was trained on this very dataset with these very settings; None where nothing was."""
    trained = trainings.find(run, _dataset(run))
    if trained is None:
        return None
    log.warning(
        "nothing is trained: %s was trained on the same dataset with the same settings", trained.label
    )
    return run.commit(
        trained.model_copy(
            update={
                "label": f"{trained.label} (unchanged)",
                "figures": trained.figures | {"unchanged": True},
                # What there is to copy is that run's to copy.
                "outputs": {name: key for name, key in trained.outputs.items() if name != published.ATTEMPT},
                "seconds": 0.0,
            }
        )
    )


def _dataset(run: Run) -> str:
    """Name of the dataset version that is trained on."""
    return str(run.require_manifest("assemble").figures["version"])


def _finetune(run: Run, node: Node | None) -> Manifest:
    watch = Stopwatch()
    assembled, version = run.require_manifest("assemble"), _dataset(run)
    # Another training on a version that stands has a name of its own.
    name = run.plan.version(run.digest) if assembled.figures.get("unchanged") else version
    outputs = {
        "checkpoint": f"models/{run.config.assemble.dataset}/{name}",
        published.ATTEMPT: published.attempt(run, STAGE),
    }
    settings = run.config.finetune
    devices.require(settings.processes, "finetune.processes")
    with tempfile.TemporaryDirectory(prefix="aitp-finetune-") as folder:
        job, maker = session.prepare(settings, Path(folder), node)
        job = job.model_copy(
            update={"project": run.config.assemble.dataset, "title": f"{version} {settings.label}"}
        )
        models.require_planned(settings, run.plan.finetune_identity, "finetune.model")
        tally = _examples(run, assembled, maker, job)
        outputs |= _keep_quarantine(run, tally)
        ledger = tally.ledger()
        log.info(
            "finetune version=%s ranks=%d examples=%d tokens=%d rejected=%s quarantined=%s "
            "neutralised=%s unused=%s cut=%d split=%d parts_left=%d",
            *(version, settings.ranks, tally.examples, tally.tokens),
            *(ledger.rejected, ledger.quarantined, dict(tally.neutralised), dict(tally.unused)),
            *(tally.cut, tally.further, tally.parts_left),
        )
        if not tally.examples:
            raise _nothing_to_train(run, data_files.folder(assembled), ledger)
        vocabulary.require_examples(job.finetune, job.examples)
        validated = making.write_validation(validation.rows(run), maker, job) if settings.eval_steps else None
        met = session.meet(run, job)
        outcome = session.train(run, STAGE, job, met)
        if not met.first:
            return _committed(run, met)
        figures = _figures(outcome, tally, settings.nodes)
        figures |= _validated(outcome, validated) if validated else {}
        card.write(job.checkpoint, run.config, run.plan.finetune_identity, version, figures)
        outputs |= _upload(run, job, outputs[published.ATTEMPT])
    done = run.commit(
        Manifest(
            stage=STAGE,
            label=f"{run.config.assemble.dataset} {version}",
            ledger=ledger,
            outputs=outputs,
            figures=figures,
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )
    met.tell(_COMMITTED, "")
    met.part()
    return done


def _committed(run: Run, met: Meeting) -> Manifest:
    """What the first machine has committed."""
    try:
        met.ask(_COMMITTED, "that the checkpoint is committed")
        met.part()
    except TransientError:
        # It may have been, and the first machine have ended, before it was heard.
        done = run.find_manifest(STAGE)
        if done is None:
            raise
        return done
    return run.require_manifest(STAGE)


def _examples(run: Run, assembled: Manifest, maker: ExampleMaker, job: Job) -> Tally:
    """Tokenise the dataset version's rows for the ranks."""
    rows = job.folder / "data"
    data_files.download(run, assembled, rows)
    return making.write(rows, maker, job)


def _nothing_to_train(run: Run, key: str, ledger: Ledger) -> InputError:
    remedy = f"check the dataset, or raise finetune.max_length={run.config.finetune.max_length}"
    if ledger.rejected.get(examples.NO_TOOLS):
        remedy = "set finetune.chat_template to one that takes tools, calls and results"
    return InputError(
        f"none of the {ledger.rows_in} rows of {run.storage.uri(key)} can be trained on {ledger.rejected}: "
        f"{remedy}"
    )


def _keep_quarantine(run: Run, tally: Tally) -> dict[str, str]:
    """Store the quarantined rows before anything is trained, and stop when they are too many."""
    outputs = tables.write_quarantine(run.storage, run.key(STAGE, "quarantine"), tally.quarantined)
    where = run.storage.uri(outputs.get("quarantine", run.key(STAGE, "")))
    tally.ledger().check_budget(
        run.config.failure_budget, STAGE, where, commonest(row["message"] for row in tally.quarantined)
    )
    return outputs


def _upload(run: Run, job: Job, attempt: str) -> dict[str, str]:
    """Write the checkpoint below this try's prefix, and the log history: there, and named by its content."""
    shutil.copyfile(job.log_history, job.checkpoint / job.log_history.name)
    events.write(job.log_history, job.checkpoint / events.FOLDER)
    for path in sorted(path for path in job.checkpoint.rglob("*") if path.is_file()):
        run.storage.upload(f"{attempt}/{path.relative_to(job.checkpoint)}", path)
    history = job.log_history.read_bytes()
    key = run.key(STAGE, f"log_history-{digest.of_bytes(history)}.json")
    run.storage.write_if_absent(key, history)
    return {"log_history": key}


def _validated(outcome: Outcome, tally: Tally) -> dict[str, Any]:
    """What was validated on, and what came of it."""
    names = ("eval_loss_first", "eval_loss_best", "eval_loss_last", "best_step")
    return {
        **{name: getattr(outcome, name) for name in names},
        "planned_steps": outcome.planned_steps or outcome.steps,
        "validation": {
            "examples": tally.examples,
            "learnt_tokens": tally.trained_tokens,
            "left_out": tally.left_out(),
        },
    }


def _figures(outcome: Outcome, tally: Tally, machines: int) -> dict[str, Any]:
    worked_on = devices.figures()
    worked_on["devices"] *= machines
    return {
        "train_loss_first": outcome.train_loss_first,
        "train_loss_last": outcome.train_loss_last,
        "steps": outcome.steps,
        "examples": tally.examples,
        "cut": tally.cut,
        "split": tally.further,
        "parts_left": tally.parts_left,
        "tokens": tally.tokens,
        "trained_tokens": tally.trained_tokens,
        **worked_on,
        "neutralised": dict(sorted(tally.neutralised.items())),
        "unused": dict(sorted(tally.unused.items())),
    }
