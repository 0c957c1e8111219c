"""Nights of a line as their manifests tell them: plans are real, what the stages have measured is made up."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.work import Sizes
from aitp_tasks.generation import checks
from aitp_tasks.machine import models
from aitp_tasks.records import versions
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from tests.aitp_tasks.conftest import Configure, write_shard

FIXED = Cost(2.0)
MEASURED = Measured(
    costs={
        "plan": FIXED,
        "embed corpus": Cost(5.0, 0.01),
        "embed sft": Cost(5.0, 0.002),
        **dict.fromkeys(("merge", "density", "index", "difference", "assemble", "report"), FIXED),
        "rewrite": Cost(30.0, 1.0),
        "score": Cost(30.0, 0.5),
        "answer": Cost(30.0, 2.0),
        "finetune": Cost(60.0, 3.0),
    },
    tokens={"corpus": 200.0, "sft": 50.0},
    generated={"rewrite": 100.0, "score": 10.0, "answer": 200.0},
    questions=1.5,
    kept=0.5,
    answered=0.8,
)
SIZES = Sizes((("corpus", 6000), ("corpus", 4000), ("sft", 3000)))
GPU = {"device": "A card", "devices": 1}


def ledger(rows_in: int, rows_out: int) -> Ledger:
    """A ledger in which the other rows were left out on purpose."""
    return Ledger(rows_in=rows_in, rows_out=rows_out, rejected={"gate": rows_in - rows_out})


def embedded(rows: int, seconds: float, busy: float, tokens: int = 0, **figures: Any) -> Manifest:
    """A unit of embed."""
    told = {"rows_embedded_now": rows, "busy_seconds": busy, "tokens": tokens, **GPU, **figures}
    return Manifest(stage="embed", label="", ledger=ledger(rows, rows), figures=told, seconds=seconds)


def prompted(
    stage: str, rows_in: int, rows_out: int, seconds: float, busy: float, retried: int = 0, **figures: Any
) -> Manifest:
    """A part of a prompt stage, each request answered once, and some again."""
    told = {
        "generated": rows_in + retried, "retried": retried, "generated_tokens": 10 * rows_in,
        "busy_seconds": busy, **GPU, **figures,
    }  # fmt: skip
    return Manifest(stage=stage, label="", ledger=ledger(rows_in, rows_out), figures=told, seconds=seconds)


@dataclass
class Line:
    """The runs of a line, each on a dump of its own."""

    root: Path
    make: Configure
    runs: list[Run] = field(default_factory=list)

    def config(self, dump: str, **changes: Any) -> RunConfig:
        """The configuration of a run."""
        return self.make(dump=dump, **{"assemble": {"max_rewritten_share": 1.0, "base": "none"}, **changes})

    def planned(self, dump: str, rows: int = 12, **changes: Any) -> Run:
        """A run that has been planned on a dump of so many rows."""
        texts = [{"text": f"{dump} {row}"} for row in range(rows)]
        if not (self.root / f"corpus/{dump}/0.parquet").exists():
            write_shard(self.root / f"corpus/{dump}/0.parquet", texts)
        return Run.open(plan.execute(self.config(dump, **changes), estimated=False)["run"])

    def night(self, dump: str, rows: int = 12, parts: int = 1, **changes: Any) -> Run:
        """A run that has made the latest version; its manifests are the test's to write."""
        run = self.planned(dump, rows, **changes)
        before = versions.latest(run.storage, "aitp")
        versions.add(
            run.storage,
            "aitp",
            versions.Version(
                name=dump,
                run=run.prefix,
                ancestors=(*before.ancestors, before.name) if before else (),
                geometry=versions.Geometry(key="g", identity="i", corpus_grid="c"),
            ),
        )
        self.runs.append(run)
        return run


def difference(run: Run, documents: int, below: int, selected: int, parts: int, seconds: float = 1.0) -> None:
    """Commit a difference."""
    figures = {"documents": documents, "below_tau": below, "selected": selected, "parts": parts}
    run.commit(Manifest(stage="difference", label="", figures=figures, seconds=seconds))


def finetuned(run: Run, seconds: float, steps: list[float], **figures: Any) -> None:
    """Commit a training whose steps ended at these seconds."""
    key = run.key("finetune", "log_history-0.json")
    run.storage.write(key, json.dumps([{"seconds": at} for at in steps]).encode())
    run.commit(
        Manifest(
            stage="finetune",
            label="",
            outputs={"log_history": key},
            figures={"steps": len(steps), **GPU, **figures},
            seconds=seconds,
        )
    )


def evaluated(run: Run, seconds: float, baseline: float, steps: int = 5, **figures: Any) -> None:
    """Commit an evaluation whose baseline took so long to train, for so many steps."""
    told = {"steps": steps, "baseline_seconds": baseline, **GPU, **figures}
    run.commit(Manifest(stage="evaluate", label="", figures=told, seconds=seconds))


def whole(run: Run, slow: float = 1.0, **figures: Any) -> Run:
    """All manifests of a run, of which each figure is known: ``slow`` times as long as those of another."""
    for group in run.plan.groups:
        rows = sum(shard.rows for shard in group.shards)
        run.commit(embedded(rows, slow * (5 + rows), slow * rows, 7 * rows, **figures), group.digest)
        run.commit(Manifest(stage="density", label="", seconds=slow), group.digest)
    for stage in ("merge", "index", "assemble", "report"):
        run.commit(Manifest(stage=stage, label="", seconds=2 * slow))
    difference(run, 100, 50, 10, 1, 2 * slow)
    part = run.part(0)
    run.commit(prompted("rewrite", 10, 10, slow * 50, slow * 20, **figures), part)
    run.commit(prompted("score", 20, 10, slow * 40, slow * 10, **figures), part)
    run.commit(prompted("answer", 10, 8, slow * 60, slow * 30, **figures), part)
    finetuned(run, slow * 100, [slow * (10 + 2 * step) for step in range(5)], **figures)
    return run


@pytest.fixture
def line(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line without runs; models and tokenizers are not read, which takes seconds a plan."""
    monkeypatch.setattr(checks, "require_room", lambda settings, prompts: None)
    monkeypatch.setattr(models, "identity", lambda settings: f"content of {settings.model}")
    return Line(root, configure)
