"""The fine-tune on the SFT set alone, which a new version has to be better than.

It is trained as the version was, with as many steps of as many examples, by a job of its own, and kept for
all runs that ask for the same: ``baselines/<digest>.json`` is the manifest of
what was trained on one SFT set with one base model, settings and number of steps. One machine trains it, also
where several have trained the version.
"""

import logging
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files, digest, manifest, validation
from aitp_tasks.records.manifest import Manifest, Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.training import kept, making, session

log = logging.getLogger(__name__)

FOLDER = "baselines"
#: By whose manifest a run says what it was compared with.
_STAGE, _OUTPUT = "evaluate", "baseline"
_ROWS_PER_BATCH = 1024


@dataclass(frozen=True)
class Length:
    """How long a version was trained: its steps, and those that its rate was to run over.

    A training that has ended early is compared with one that ends there too, at the same rate.
    """

    steps: int
    planned: int

    @classmethod
    def of(cls, finetuned: Manifest) -> "Length":
        """By the manifest of the fine-tune."""
        steps = int(finetuned.figures["steps"])
        return cls(steps, int(finetuned.figures.get("planned_steps", steps)))

    @property
    def last_step(self) -> int | None:
        """Where the training ends early; None where it does not."""
        return self.steps if self.steps < self.planned else None


def key(run: Run, sft: str, length: Length) -> str:
    """Key of the manifest of what a run's version is compared with.

    Args:
        run: its settings, base model and what it is validated on count.
        sft: digest of the SFT set, without what is held out.
        length: of the version's training.
    """
    chosen = _settings(run.config.finetune, length)
    settings = run.config.model_copy(update={"finetune": chosen}).identity()["finetune"]
    # With a number of steps, epochs decide nothing.
    del settings["epochs"]
    further: list[Any] = [length.last_step] if length.last_step else []
    further += validation.identity(run) if chosen.eval_steps else []
    identity = digest.of_value([run.plan.finetune_identity, settings, sft, *further])
    return f"{FOLDER}/{identity}.json"


def _settings(settings: Finetune, length: Length) -> Finetune:
    """Those of the version's training, but that the number of its steps is given.

    Where the best weights of that were taken, these are too, by the same examples; else nothing hangs on
    a validation.
    """
    changes: dict[str, Any] = {"max_steps": length.planned, "patience": None, "report_to": ()}
    return settings.model_copy(update=changes if settings.keep_best else {**changes, "eval_steps": None})


def used(run: Run) -> str | None:
    """Prefix of the model that a run was compared with; None where it was not compared, or not yet."""
    done = run.find_manifest(_STAGE)
    return None if done is None else done.outputs.get(_OUTPUT)


def make(run: Run, stage: str, where: str, assembled: Manifest, length: Length) -> Manifest:
    """The baseline, trained where there is none yet.

    Args:
        run: whose settings count.
        stage: that trains; its states are kept there.
        where: see ``key``.
        assembled: manifest of the version.
        length: of the version's training.

    Raises:
        InputError: the SFT set alone has no example, or what ``session`` raises.
        TransientError: see ``session``.
    """
    done = manifest.load(run.storage, where)
    if done is not None:
        log.info("the SFT set alone was trained on before: %s", run.storage.uri(where))
        return done
    made = _train(run, stage, where, assembled, length)
    kept.clear(run, stage)
    return made


def _train(run: Run, stage: str, where: str, assembled: Manifest, length: Length) -> Manifest:
    watch, settings = Stopwatch(), _settings(run.config.finetune, length)
    prefix = f"{where.removesuffix('.json')}/attempt-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory(prefix="aitp-baseline-") as name:
        job, maker = session.prepare(settings, Path(name))
        job = job.model_copy(update={"last_step": length.last_step})
        whole, alone = job.folder / "data", job.folder / "sft.parquet"
        data_files.download(run, assembled, whole)
        write_sft(whole, alone)
        tally = making.write(alone, maker, job)
        if not tally.examples:
            dataset = run.storage.uri(data_files.folder(assembled))
            raise InputError(f"the SFT set alone has no example in {dataset}: give it some")
        if settings.eval_steps:
            making.write_validation(validation.rows(run), maker, job)
        log.info("training on the SFT set alone: examples=%d steps=%d", tally.examples, length.steps)
        outcome = session.train(run, stage, job, session.meet(run, job))
        for path in sorted(path for path in job.checkpoint.iterdir() if path.is_file()):
            run.storage.upload(f"{prefix}/{path.name}", path)
    return manifest.commit(
        run.storage,
        where,
        Manifest(
            stage=stage,
            label=f"{run.config.finetune.label} on {run.config.sft}",
            ledger=tally.ledger(),
            outputs={"checkpoint": prefix},
            figures=outcome.model_dump() | {"examples": tally.examples, "tokens": tally.tokens},
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
    )


def write_sft(whole: Path, target: Path) -> None:
    """Write the rows of a version's shards that are the SFT set's, in their order."""
    files = data_files.paths(whole)
    with pq.ParquetWriter(target, pq.read_schema(files[0])) as writer:
        for path in files:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_PER_BATCH):
                    rows = pa.Table.from_batches([batch])
                    writer.write_table(rows.filter(pc.equal(rows["origin"], "sft")))
