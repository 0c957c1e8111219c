"""The rehearsal: all stages over the sample, one ``aitp`` process each, and what they took.

Everything lies in a temporary folder. Of each stage the time is split into what
every process takes (start-up, imports, loading) and what grows with the work.
"""

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aitp_tasks.config import (
    Allocation,
    Contamination,
    Difference,
    Examples,
    Finetune,
    Gates,
    Plan,
    RunConfig,
)
from aitp_tasks.config.difference import DOCUMENTS_PER_PART
from aitp_tasks.errors import AitpError, BudgetExceededError, InputError, TransientError
from aitp_tasks.forecast import observed
from aitp_tasks.forecast.costs import Cost, Measured, seconds_per_step
from aitp_tasks.generation.engine import requests_at_once
from aitp_tasks.generation.gates.on_scores import closed
from aitp_tasks.machine import devices, processes
from aitp_tasks.records import embedded, generated, versions
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import STAGES
from aitp_tasks.tools.estimate import sample

log = logging.getLogger(__name__)

#: Optimiser steps of the rehearsal; the first is not measured.
STEPS = 8
_SELECTING = ("plan", "embed", "merge", "density", "difference")
#: evaluate would train a second model, and nothing is told of it; nor is there anything to promote then. A
#: sample is too small for a pilot.
_NOT_REHEARSED = ("allocate", "evaluate", "promote")
#: Above every score: all documents are below it.
_NO_THRESHOLD = 1e9
_ERRORS: dict[int, type[AitpError]] = {
    kind.exit_code: kind for kind in (InputError, BudgetExceededError, TransientError)
}


class Rehearsal:
    """Runs stages over the sample that lies in a folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._gates, self._machines = config.gates, config.finetune.nodes
        self._folder = folder
        self._walls: dict[str, list[float]] = {}
        self._at_once = requests_at_once(config.engine, bool(devices.visible()))
        at_once = min(self._at_once, _largest_part(config.difference))
        self._config = config.model_copy(
            update={
                "root": f"file://{folder}",
                "dump": sample.NAME,
                "sft": sample.NAME,
                "text_columns": ("text",),
                "examples": Examples(),
                # Of a few rows, few are many.
                "failure_budget": 1.0,
                "plan": Plan(),
                "difference": _selecting(config.difference, at_once),
                "prompts": config.prompts.model_copy(update={"failure_budget": 1.0}),
                # Here are no versions; the base's pairs are among the sample's examples, and room is for all.
                "assemble": config.assemble.model_copy(
                    update={"base": versions.NONE, "max_rewritten_share": 1.0}
                ),
                # Not rehearsed.
                "evaluate": config.evaluate.model_copy(update={"tasks": (), "task_folder": None}),
                # Evaluation sets lie elsewhere, and comparing costs little.
                "contamination": Contamination(),
                # Here is one machine; of several, each does as much in a step.
                "finetune": config.finetune.model_copy(
                    update={"max_steps": _steps(config.finetune), "nodes": 1, "hostfile": None}
                ),
            }
        )

    def below_tau(self) -> float:
        """Share of the sample's rows that the threshold selects; a row without a text is none."""
        self._first = self._stages(self._config, _SELECTING)
        below = self._first.require_manifest("difference").figures["below_tau"]
        (corpus,) = (group for group in self._first.plan.groups if group.role == "corpus")
        self._below = float(below) / sum(shard.rows for shard in corpus.shards)
        return self._below

    def measure(self, part: int) -> Measured:
        """After ``below_tau``, run the remaining stages as a run whose parts hold ``part`` documents would.

        As many requests go to the engine at once as it works on there (a part's, up to
        ``engine.endpoint.concurrency`` or ``max_num_seqs``): a few at a time are slower, each
        for itself. Therefore the threshold is given up, and where a part holds more documents
        than are rewritten here, the gates of the scores too.
        """
        at_once = max(min(part, self._at_once), 1)
        config = self._config.model_copy(
            update={
                "difference": _selecting(self._config.difference, at_once),
                "gates": _without_scores(self._gates) if part > at_once else self._gates,
            }
        )
        run = self._selected(config, at_once)
        remaining = [stage.name for stage in STAGES if stage.name not in (*_SELECTING, *_NOT_REHEARSED)]
        return self._measured(self._stages(run.config, remaining, run.uri))

    def _selected(self, config: RunConfig, wanted: int) -> Run:
        """The run over as many documents as are wanted, selected by the threshold if that gives them."""
        walls = dict(self._walls)
        run = self._first if config == self._config else self._stages(config, _SELECTING)
        if run.require_manifest("difference").figures["selected"] < wanted:
            settings = config.difference.model_copy(
                update={"tau": _NO_THRESHOLD, "target_share": None, "target_documents": None}
            )
            run = self._stages(config.model_copy(update={"difference": settings}), _SELECTING)
        # The first time counts: later ones find most of it done.
        self._walls = walls
        return run

    def _stages(self, config: RunConfig, names: Sequence[str], uri: str = "") -> Run:
        path = self._folder / "config.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        units = {"": 1, "parts": 1, "embed_units": 2}
        for stage in STAGES:
            if stage.name not in names:
                continue
            walls = []
            for unit in range(units[stage.fans_out]):
                where = ["--run", uri] if uri else ["--config", str(path)]
                where += ["--unit", str(unit)] if stage.fans_out else []
                start = time.monotonic()
                result = _process([stage.name, *where])
                walls.append(time.monotonic() - start)
                uri = result["run"]
            self._walls[stage.name] = walls
            log.info("estimate rehearsed stage=%s seconds=%.1f", stage.name, sum(walls))
        return Run.open(uri)

    def _measured(self, run: Run) -> Measured:
        units = [
            (group.role, wall, _Embedded.of(embedded.shards(run, group)))
            for group, wall in zip(run.plan.groups, self._walls["embed"], strict=True)
        ]
        by_role = {role: Cost.measured(wall, unit.rows, unit.each) for role, wall, unit in units}
        # What only the first process of a machine does (converting the model) is not every unit's.
        fixed = min(cost.fixed for cost in by_role.values())
        costs = {f"embed {role}": Cost(fixed, cost.each) for role, cost in by_role.items()}
        prompted = {stage: _only(run, stage) for stage in generated.STAGES}
        for stage, done in prompted.items():
            answered = observed.requests(done.figures)
            each = observed.busy(done.figures) / max(answered, 1)
            costs[stage] = Cost.measured(self._walls[stage][0], answered, each)
        trained = run.require_manifest("finetune")
        per_step = seconds_per_step(json.loads(run.storage.read(trained.output("log_history"))))
        steps = trained.figures["steps"]
        costs["finetune"] = Cost.measured(self._walls["finetune"][0], steps, per_step)
        for stage, walls in self._walls.items():
            if stage != "embed" and stage not in costs:
                costs[stage] = Cost(sum(walls) / len(walls))
        scored = generated.rows(run, "score", run.part(0))
        passed = sum(closed(row, self._gates) is None for row in scored)
        kept = min(passed, math.ceil(self._gates.keep_best * len(scored)))
        return Measured(
            costs=costs,
            tokens={role: unit.tokens / max(unit.rows, 1) for role, _, unit in units},
            generated={
                stage: observed.generated_tokens(done.figures) / max(observed.requests(done.figures), 1)
                for stage, done in prompted.items()
            },
            questions=_rows_in(prompted["score"]) / max(_rows_in(prompted["rewrite"]), 1),
            kept=kept / max(_rows_in(prompted["score"]), 1),
            answered=_ledger(prompted["answer"]).rows_out / max(_rows_in(prompted["answer"]), 1),
            below=self._below,
            devices={
                stage: max(int(done.figures["devices"]), 1)
                for stage, done in {"embed": self._unit(run), **prompted}.items()
            }
            | {"finetune": max(int(trained.figures["devices"]), 1) * self._machines},
        )

    @staticmethod
    def _unit(run: Run) -> Manifest:
        return run.require_manifest("embed", run.plan.groups[0].digest)


@dataclass(frozen=True)
class _Embedded:
    """What a unit of two shards has shown: the first loads and warms up, the second is timed."""

    rows: int
    tokens: int
    each: float

    @classmethod
    def of(cls, done: Sequence[Manifest]) -> "_Embedded":
        rows = sum(_rows_in(one) for one in done)
        tokens = sum(one.figures["tokens"] for one in done)
        timed = done[-1]
        per_token = timed.seconds / max(timed.figures["tokens"], 1)
        return cls(rows, tokens, per_token * tokens / max(rows, 1))


def _steps(settings: Finetune) -> int:
    return min(STEPS, settings.max_steps) if settings.max_steps > 0 else STEPS


def _largest_part(settings: Difference) -> int:
    return min(settings.documents_per_part or DOCUMENTS_PER_PART, settings.max_documents)


def _selecting(settings: Difference, documents: int) -> Difference:
    """The settings that select so many documents, in one part; the sample has texts, and no sources."""
    return settings.model_copy(
        update={
            "max_documents": documents,
            "documents_per_part": documents,
            "source_column": None,
            "max_per_source": None,
            "allocation": Allocation.EVEN,
        }
    )


def _without_scores(gates: Gates) -> Gates:
    """Gates that every scored question passes."""
    return gates.model_copy(
        update={
            "min_quality": 1,
            "min_difficulty": 1,
            "allow_additional_information": True,
            "keep_best": 1.0,
        }
    )


def _only(run: Run, stage: str) -> Manifest:
    return run.require_manifest(stage, run.part(0))


def _ledger(done: Manifest) -> Ledger:
    assert done.ledger is not None
    return done.ledger


def _rows_in(done: Manifest) -> int:
    return _ledger(done).rows_in


def _process(arguments: Sequence[str]) -> dict[str, Any]:
    """One ``aitp`` process; its result.

    Raises:
        AitpError: of the kind that its exit code tells, with its last line.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as errors, processes.lifeline() as pipe:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "aitp_tasks.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(pipe,),
            env={**os.environ, processes.LIFELINE: str(pipe)},
            check=False,
        )
        if done.returncode:
            errors.seek(0)
            lines = errors.read().splitlines()
            log.error("the end of its log:\n%s", "\n".join(lines[-20:]))
            told = lines[-1].removeprefix("error: ") if lines else ""
            kind = _ERRORS.get(done.returncode, TransientError)
            raise kind(f"the rehearsal of {arguments[0]} ended with code {done.returncode}: {told}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
