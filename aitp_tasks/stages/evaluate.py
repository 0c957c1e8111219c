"""evaluate: how the new checkpoint does on what was held out.

Reads what assemble has held out, the held-out documents of the difference set, the
base model and the checkpoint; trains the base on the SFT set alone, unless another run has
(see ``evaluation.baseline``). Writes the losses of all three models on every example, and what they
answer to some of the questions (see ``evaluation.generations``); what lm-evaluation-harness measures on
all three goes into the manifest (see ``evaluation.benchmarks``). Whether the version is worth promoting
follows from the losses (see ``evaluation.promotion``) and is told, for a person who may be asked;
promote acts on it. With ``evaluate.held_out`` at 0 there is nothing to do.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Finetune, Promote
from aitp_tasks.evaluation import (
    baseline,
    benchmarks,
    generations,
    intervals,
    losses,
    promotion,
    task_files,
)
from aitp_tasks.evaluation.benchmarks import Told
from aitp_tasks.evaluation.generations import Answer, Question
from aitp_tasks.evaluation.losses import Text, Texts
from aitp_tasks.machine import base_model, devices, models
from aitp_tasks.records import evaluated, held_out, published, selected, tables, versions
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.records.run import Run
from aitp_tasks.training import session
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job

log = logging.getLogger(__name__)

STAGE = "evaluate"
#: The models, the new one last.
BASE, SFT_ONLY, AITP = "base", "sft_only", "aitp"
_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("id", pa.string()),
        ("tokens", pa.int64()),
        *((model, pa.float64()) for model in (BASE, SFT_ONLY, AITP)),
    ]
)
_GENERATIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("set", "id", "text", "reference", "left")),
        *(
            (f"{model}{name}", kind)
            for model in (BASE, SFT_ONLY, AITP)
            for name, kind in (("", pa.string()), ("_finish", pa.string()), ("_tokens", pa.int64()))
        ),
    ]
)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Evaluate, unless it has been done.

    Raises:
        InputError: an earlier stage has not been run, a model cannot be used, or the SFT set alone cannot
            be trained on.
        TransientError: no GPUs became free, one has too little memory, or a training failed otherwise.
    """
    settings, done = run.config.evaluate, None
    if settings.held_out:
        done = run.find_manifest(STAGE) or _evaluate(run)
        _tell(run, done)
    decision = promotion.decide(
        settings.promote, settings.tolerance, promotion.differences(done.figures) if done else {}
    )
    result = {
        "stage": STAGE,
        "run": run.uri,
        "label": done.label if done else "nothing is held out",
        "seconds": done.seconds if done else 0.0,
        "evaluated": done is not None,
    }
    # Else the version is the latest already, or never will be.
    open_yet = settings.promote is Promote.WHEN_BETTER
    result |= {"to_promote": open_yet and decision.promoted, "why": decision.why}
    result |= {"sets": _table(done) if done else {}}
    return promotion.within_bounds(result)


def _tell(run: Run, done: Manifest) -> None:
    """Let the version know what was measured, if this run has made it."""
    assembled = run.require_manifest("assemble").figures
    if not assembled.get("unchanged"):
        line = run.config.assemble.dataset
        evaluated.note(run.storage, line, assembled["version"], done.figures)


def _evaluate(run: Run) -> Manifest:
    watch, settings = Stopwatch(), run.config.evaluate
    # First of all: what is refused costs no training.
    task_files.require_planned(settings, run.plan.tasks_identity)
    benchmarks.require(settings, load=True)
    devices.require(run.config.finetune.processes, "finetune.processes")
    assembled, finetuned = run.require_manifest("assemble"), run.require_manifest("finetune")
    with tempfile.TemporaryDirectory(prefix="aitp-evaluate-") as folder:
        job, maker = session.prepare(run.config.finetune, Path(folder))
        models.require_planned(job.finetune, run.plan.finetune_identity, "finetune.model")
        asked = _asked(run, assembled, job, maker)
    nothing = _Read(np.empty(0), [None] * len(asked.questions), None)
    outputs, read, seconds = {}, dict.fromkeys((BASE, SFT_ONLY, AITP), nothing), 0.0
    if asked.anything:
        training = Stopwatch()
        outputs["baseline"] = _baseline(run, assembled, finetuned)
        seconds = training.seconds()
        checkpoints = {
            SFT_ONLY: outputs["baseline"],
            AITP: published.committed_prefix(run, finetuned, "checkpoint"),
        }
        # Leased once, and only now that the baseline's ranks have ended: the models are read one by one.
        device = "cuda" if devices.lease(1, "evaluate") else "cpu"
        read = {name: _read(run, name, checkpoints.get(name), asked, device) for name in read}
    measured = {name: found.losses for name, found in read.items()}
    outputs["losses"] = _write_losses(run, asked.sets, measured)
    outputs |= _write_generations(run, asked.questions, {name: found.answers for name, found in read.items()})
    return run.commit(
        Manifest(
            stage=STAGE,
            label=finetuned.label,
            ledger=_ledger(asked.sets),
            outputs=outputs,
            figures={
                "sets": _figures(asked.sets, measured),
                "questions": {"asked": len(asked.questions), "left": generations.left(asked.questions)},
                **_tasks(read, settings.task_limit),
                "steps": finetuned.figures["steps"],
                "baseline_seconds": seconds,
                **devices.figures(),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


@dataclass(frozen=True)
class _Asked:
    """All that each model is to read."""

    job: Job
    tokenizer: Any
    sets: dict[str, Texts]
    questions: list[Question]
    #: Whether there are tasks.
    tasks: bool

    @property
    def texts(self) -> list[Text]:
        """Of all sets, one after the other."""
        return [text for found in self.sets.values() for text in found.texts]

    @property
    def anything(self) -> bool:
        """Whether there is any work for a model."""
        return self.tasks or bool(self.texts) or not all(question.left for question in self.questions)


@dataclass(frozen=True)
class _Read:
    """What came of one model: a loss of each text, an answer to each question, the tasks if there are any."""

    losses: NDArray[np.float64]
    answers: Sequence[Answer | None]
    tasks: Told | None


def _asked(run: Run, assembled: Manifest, job: Job, maker: ExampleMaker) -> _Asked:
    settings, tokenizer = run.config.evaluate, base_model.load_tokenizer(job.finetune)
    rows = {name: _conversations(run, assembled, name) for name in (SFT, PAIRS)}
    sets = {name: losses.of_conversations(found, maker, job.finetune) for name, found in rows.items()}
    sets[DOCUMENTS] = losses.of_documents(_documents(run), tokenizer, job.finetune.max_length)
    config = base_model.load_config(job.finetune)
    room = generations.room(config, job.finetune.max_length, settings.generated_tokens)
    questions = generations.choose(rows, maker, settings.generations, room)
    return _Asked(job, tokenizer, sets, questions, tasks=bool(settings.tasks))


def _baseline(run: Run, assembled: Manifest, finetuned: Manifest) -> str:
    """Prefix of the model that was trained on the SFT set alone."""
    version = versions.load(run.storage, run.config.assemble.dataset, assembled.figures["version"])
    length = baseline.Length.of(finetuned)
    where = baseline.key(run, version.sft, length)
    return baseline.make(run, STAGE, where, assembled, length).output("checkpoint")


def _conversations(run: Run, assembled: Manifest, name: str) -> list[dict[str, Any]]:
    """What assemble has held out of a set."""
    key = assembled.outputs.get(f"held_out_{name}")
    rows: list[dict[str, Any]] = tables.read(run.storage, key).to_pylist() if key else []
    return rows


def _documents(run: Run) -> list[dict[str, Any]]:
    """The held-out documents of the difference set, as many as are evaluated."""
    settings, halved = run.config.evaluate, run.config.halves_held_out

    def found() -> Iterator[dict[str, Any]]:
        for part in run.parts:
            for row in selected.documents(run, part, ["doc_id", "text"]):
                if halved and held_out.is_validation(row["doc_id"]):
                    # Models are chosen by its pairs.
                    continue
                if held_out.is_held_out(row["doc_id"], settings.held_out):
                    yield {"id": row["doc_id"], "text": row["text"]}

    return held_out.first(found(), "id", settings.max_examples)


def _read(run: Run, name: str, checkpoint: str | None, asked: _Asked, device: str) -> _Read:
    """Let one model read it all, which computes as in training: the base, or what lies below a prefix."""
    import torch

    watch, settings = Stopwatch(), asked.job.finetune
    with tempfile.TemporaryDirectory(prefix="aitp-evaluate-model-") as folder:
        if checkpoint is not None:
            _download(run, checkpoint, Path(folder))
            settings = settings.model_copy(update={"model": folder, "revision": None})
        dtype = base_model.computes_in(device)
        # Before the model is here: the harness has a process, and a copy, of its own.
        tasks = _put_to_tasks(run, name, settings, dtype, device) if asked.tasks else None
        model = base_model.load_model(settings, dtype).to(device)
        found = losses.of_model(model, asked.texts)
        log.info("evaluate model=%s examples=%d seconds=%.1f", name, len(found), watch.seconds())
        tokens, end = run.config.evaluate.generated_tokens, asked.job.templates.turn_end
        answers = generations.of_model(model, asked.tokenizer, asked.questions, end, tokens)
    log.info("evaluate model=%s answers=%d seconds=%.1f", name, len(answers), watch.seconds())
    del model
    if device == "cuda":
        # For the next one's harness.
        torch.cuda.empty_cache()
    return _Read(found, answers, tasks)


def _put_to_tasks(run: Run, name: str, model: Finetune, dtype: Any, device: str) -> Told:
    watch = Stopwatch()
    told = benchmarks.of_model(run.config.evaluate, model, str(dtype).removeprefix("torch."), device)
    log.info("evaluate model=%s tasks=%d seconds=%.1f", name, len(told.results), watch.seconds())
    return told


def _tasks(read: Mapping[str, _Read], limit: int | None) -> dict[str, Any]:
    """What the models have in the tasks, where there are any."""
    told = {name: found.tasks for name, found in read.items() if found.tasks is not None}
    return {"tasks": benchmarks.figures(told, limit)} if told else {}


def _download(run: Run, prefix: str, folder: Path) -> None:
    """Copy a model's files here; what lies in folders beside them is no part of it."""
    for info in run.storage.list(f"{prefix}/"):
        name = info.key.removeprefix(f"{prefix}/")
        if "/" not in name:
            run.storage.download(info.key, folder / name)


def _ledger(sets: Mapping[str, Texts]) -> Ledger:
    left: dict[str, int] = {}
    for found in sets.values():
        left = add_counts(left, found.left)
    read = sum(len(found.texts) for found in sets.values())
    return Ledger(rows_in=read + sum(left.values()), rows_out=read, rejected=left)


def _figures(sets: Mapping[str, Texts], measured: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Of each set: how many examples, the models' mean losses, and the differences."""
    figures, start = {}, 0
    for name, found in sets.items():
        place = slice(start, start + len(found.texts))
        start = place.stop
        own = {model: values[place] for model, values in measured.items()}
        figures[name] = {
            "n": len(found.texts),
            "tokens": sum(text.tokens for text in found.texts),
            "left": dict(sorted(found.left.items())),
            "loss": {model: _mean(values) for model, values in own.items()},
            **{
                f"{AITP}_minus_{model}": intervals.between(own[AITP], own[model]).figures()
                for model in (BASE, SFT_ONLY)
            },
        }
    return figures


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean loss; None where there is none that is a number."""
    return round(float(values.mean()), 6) if len(values) and np.isfinite(values).all() else None


def _write_losses(run: Run, sets: Mapping[str, Texts], measured: Mapping[str, NDArray[np.float64]]) -> str:
    """Write the loss of each example."""
    named = [(name, text) for name, found in sets.items() for text in found.texts]
    rows = [
        {"set": name, "id": text.id, "tokens": text.tokens}
        | {model: float(values[place]) for model, values in measured.items()}
        for place, (name, text) in enumerate(named)
    ]
    return tables.write(run.storage, run.key(STAGE, "losses"), pa.Table.from_pylist(rows, _SCHEMA))


def _write_generations(
    run: Run, questions: Sequence[Question], answers: Mapping[str, Sequence[Answer | None]]
) -> dict[str, str]:
    """Write the questions with what each model says, where there are any."""
    rows: list[dict[str, Any]] = []
    for place, question in enumerate(questions):
        row = {name: getattr(question, name) for name in ("set", "id", "text", "reference", "left")}
        for model, said in answers.items():
            answer = said[place] or Answer("", "", 0)
            row |= {model: answer.text, f"{model}_finish": answer.finish, f"{model}_tokens": answer.tokens}
        rows.append(row)
    if not rows:
        return {}
    table = pa.Table.from_pylist(rows, _GENERATIONS)
    return {"generations": tables.write(run.storage, run.key(STAGE, "generations"), table)}


def _table(done: Manifest) -> dict[str, list[Any]]:
    """Of each set, shortly: how many examples, the three losses, the difference to the SFT set alone."""
    table = {}
    for name in (SFT, PAIRS, DOCUMENTS):
        found = done.figures["sets"][name]
        difference = found[f"{AITP}_minus_{SFT_ONLY}"]
        losses_of = [found["loss"][model] for model in (BASE, SFT_ONLY, AITP)]
        numbers = [*losses_of, *(difference[bound] for bound in ("mean", "low", "high"))]
        table[name] = [found["n"], *(None if number is None else round(number, 4) for number in numbers)]
    return table
