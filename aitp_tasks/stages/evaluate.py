"""evaluate: how the new checkpoint does on what was held out, and whether its version is promoted.

Reads what assemble has held out, the held-out documents of the difference set, the
base model and the checkpoint; trains the base on the SFT set alone, unless another run has
(see ``evaluation.baseline``). Writes the losses of all three models on every example. Whether the
version and its checkpoint become the latest follows from these and ``evaluate.promote``
(see ``evaluation.promotion``), each time that the stage is run. With ``evaluate.held_out``
at 0 there is nothing to do.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aitp_tasks.config import Finetune, Promote
from aitp_tasks.evaluation import baseline, intervals, losses, promotion
from aitp_tasks.evaluation.losses import Text, Texts
from aitp_tasks.evaluation.promotion import Decision
from aitp_tasks.machine import devices, models, processors
from aitp_tasks.records import held_out, promoted, published, selected, tables, versions
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.records.run import Run
from aitp_tasks.training import base_model, session

log = logging.getLogger(__name__)

STAGE = "evaluate"
#: The models, the new one last.
BASE, SFT_ONLY, AITP = "base", "sft_only", "aitp"
#: What a task may hand on, with some room.
_RESULT_BYTES = 1000
_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("id", pa.string()),
        ("tokens", pa.int64()),
        *((model, pa.float64()) for model in (BASE, SFT_ONLY, AITP)),
    ]
)


def execute(run: Run, unit: None = None) -> dict[str, Any]:
    """Evaluate, unless it has been done, and promote the version if that follows.

    Raises:
        InputError: an earlier stage has not been run, a model cannot be used, or the SFT set alone cannot
            be trained on.
        TransientError: no GPUs became free, one has too little memory, or a training failed otherwise.
    """
    settings, done = run.config.evaluate, None
    if settings.held_out:
        done = run.find_manifest(STAGE) or _evaluate(run)
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
    result |= _promote(run, decision)
    log.info("evaluate: %s", decision.sentence)
    return _within_bounds(result | {"sets": _table(done) if done else {}})


def _promote(run: Run, decision: Decision) -> dict[str, Any]:
    """Do what was decided; what is told of it."""
    promote = run.config.evaluate.promote
    told = {"promoted": decision.promoted, "why": decision.why}
    if promote is not Promote.WHEN_BETTER:
        # By assemble and finetune, or by nobody.
        return told
    if not decision.promoted:
        return told | {"is_latest": False}
    assembled, storage, line = run.require_manifest("assemble"), run.storage, run.config.assemble.dataset
    name, figures = assembled.figures["version"], assembled.figures
    if not versions.add(storage, line, versions.load(storage, line, name)):
        return told | {"promoted": False, "is_latest": False, "why": "another version came in between"}
    promoted.point(run, name, run.require_manifest("finetune").output("checkpoint"))
    counts = {count: figures[count] for count in ("pairs", "earlier_pairs", "sft_examples")}
    return told | {
        "is_latest": True,
        "unchanged": bool(figures.get("unchanged")),
        "dataset": storage.uri(versions.prefix(line, name)),
        **counts,
        "parts_given_up": len(figures.get("parts_given_up", {})),
    }


def _evaluate(run: Run) -> Manifest:
    watch = Stopwatch()
    assembled, finetuned = run.require_manifest("assemble"), run.require_manifest("finetune")
    with tempfile.TemporaryDirectory(prefix="aitp-evaluate-") as folder:
        job, maker = session.prepare(run.config.finetune, Path(folder))
        models.require_planned(job.finetune, run.plan.finetune_identity, "finetune.model")
        sets = {
            name: losses.of_conversations(_conversations(run, assembled, name), maker, job.finetune)
            for name in (SFT, PAIRS)
        }
        tokenizer = base_model.load_tokenizer(job.finetune)
        sets[DOCUMENTS] = losses.of_documents(_documents(run), tokenizer, job.finetune.max_length)
    texts = [text for found in sets.values() for text in found.texts]
    outputs, measured = {}, dict.fromkeys((BASE, SFT_ONLY, AITP), np.empty(0))
    if texts:
        outputs["baseline"] = _baseline(run, assembled, finetuned)
        checkpoints = {
            SFT_ONLY: outputs["baseline"],
            AITP: published.committed_prefix(run, finetuned, "checkpoint"),
        }
        # Leased once, and only now that the baseline's ranks have ended: the models are read one by one.
        device = "cuda" if devices.lease(1, "evaluate") else "cpu"
        for model in measured:
            measured[model] = _losses(run, model, checkpoints.get(model), texts, job.finetune, device)
    outputs["losses"] = _write_losses(run, sets, measured)
    return run.commit(
        Manifest(
            stage=STAGE,
            label=finetuned.label,
            ledger=_ledger(sets),
            outputs=outputs,
            figures={
                "sets": _figures(sets, measured),
                "steps": finetuned.figures["steps"],
                **devices.figures(),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        )
    )


def _baseline(run: Run, assembled: Manifest, finetuned: Manifest) -> str:
    """Prefix of the model that was trained on the SFT set alone."""
    version = versions.load(run.storage, run.config.assemble.dataset, assembled.figures["version"])
    steps = int(finetuned.figures["steps"])
    where = baseline.key(run, version.sft, steps)
    return baseline.make(run, STAGE, where, assembled, steps).output("checkpoint")


def _conversations(run: Run, assembled: Manifest, name: str) -> list[dict[str, Any]]:
    """What assemble has held out of a set."""
    key = assembled.outputs.get(f"held_out_{name}")
    rows: list[dict[str, Any]] = tables.read(run.storage, key).to_pylist() if key else []
    return rows


def _documents(run: Run) -> list[dict[str, Any]]:
    """The held-out documents of the difference set, as many as are evaluated."""
    settings = run.config.evaluate

    def found() -> Iterator[dict[str, Any]]:
        for part in run.parts:
            for row in selected.documents(run, part, ["doc_id", "text"]):
                if held_out.is_held_out(row["doc_id"], settings.held_out):
                    yield {"id": row["doc_id"], "text": row["text"]}

    return held_out.first(found(), "id", settings.max_examples)


def _losses(
    run: Run, name: str, checkpoint: str | None, texts: list[Text], settings: Finetune, device: str
) -> NDArray[np.float64]:
    """The losses of one model, computed as in training: of the base, or of what lies below a prefix."""
    import torch

    watch = Stopwatch()
    narrow = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device == "cuda"
        else processors.compute_bfloat16()
    )
    with tempfile.TemporaryDirectory(prefix="aitp-evaluate-model-") as folder:
        if checkpoint is not None:
            _download(run, checkpoint, Path(folder))
            settings = settings.model_copy(update={"model": folder, "revision": None})
        model = base_model.load_model(settings, torch.bfloat16 if narrow else torch.float32)
        found = losses.of_model(model.to(device), texts)
    log.info("evaluate model=%s examples=%d seconds=%.1f", name, len(texts), watch.seconds())
    return found


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


def _within_bounds(result: dict[str, Any]) -> dict[str, Any]:
    """A result that a task can hand on: the reason is cut where URIs are long, then the table left out."""
    while len(json.dumps(result)) > _RESULT_BYTES:
        if len(result["why"]) > 100:
            result = result | {"why": result["why"][:-1]}
        elif result["sets"]:
            result = result | {"sets": {}}
        else:
            break
    return result
