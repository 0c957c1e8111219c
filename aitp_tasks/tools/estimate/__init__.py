"""estimate: what a run will take, from a rehearsal on a sample of its input.

Plans the run, draws a few documents and SFT examples, takes them through all
stages on this machine, and extrapolates: embed by rows, the prompt stages by
requests, finetune by steps, the other stages by their start-up alone. The storage
gets the run's plan and nothing else.

``sample`` draws, ``rehearsal`` runs and measures, ``table`` prints; here is what
follows from the measurements.
"""

import heapq
import logging
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aitp_tasks.config import Finetune, RunConfig
from aitp_tasks.dataset import budget
from aitp_tasks.errors import InputError
from aitp_tasks.generation.engine import gpus_wanted
from aitp_tasks.machine import devices
from aitp_tasks.machine.processes import sigterm_as_exit
from aitp_tasks.records import generated
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.records.versions import Yield
from aitp_tasks.stages import STAGES, plan
from aitp_tasks.tools.estimate import sample, summary
from aitp_tasks.tools.estimate.rehearsal import STEPS, Measured, Rehearsal
from aitp_tasks.tools.estimate.sample import Sizes

log = logging.getLogger(__name__)

#: Documents of the sample on a processor, and on a GPU, which a few hundred do not keep busy.
SAMPLE, SAMPLE_ON_GPU = 256, 4096


@dataclass(frozen=True)
class Forecast:
    """How much each stage of the run will have to do."""

    documents: int
    sft_examples: int
    below_tau: int
    selected: int
    parts: int
    questions: int
    kept: int
    pairs: int
    steps: int


@dataclass(frozen=True)
class Places:
    """What the dataset has room for.

    Attributes:
        pairs: new ones that can come in, at most; infinite where there is no limit.
        documents: that are drawn for them, at most.
    """

    pairs: float
    documents: int

    @classmethod
    def of(cls, plan: Plan, sft: int) -> Self:
        """Those of a plan, with so many rows on the SFT side."""
        config, earlier = (
            plan.config,
            sum(shard.rows for group in plan.groups_of_pairs for shard in group.shards),
        )
        room = budget.room(sft - earlier, config.assemble.max_rewritten_share)
        most = config.difference.max_documents
        if room is None:
            return cls(math.inf, most)
        # Of a full dataset nobody knows how many pairs will be exchanged: all of them at most.
        pairs = room - earlier if room > earlier else room
        measured = plan.base.measured if plan.base else Yield()
        return cls(pairs, min(most, budget.documents(pairs, measured)))


@dataclass(frozen=True)
class Units:
    """The processes of one stage: seconds of each, and how many devices each holds."""

    seconds: tuple[float, ...]
    devices: int = 0

    def hours(self, parallel: int) -> float:
        """Until all are done, on ``parallel`` devices."""
        return makespan(self.seconds, max(parallel // max(self.devices, 1), 1)) / 3600

    @property
    def gpu_hours(self) -> float:
        """Devices times the time that they are held."""
        return sum(self.seconds) * self.devices / 3600


def execute(
    config: RunConfig, price: float | None = None, parallel: int | None = None, rows: int | None = None
) -> dict[str, Any]:
    """Estimate a run, and print the table to standard error.

    Args:
        config: the run's configuration.
        price: of one GPU for one hour.
        parallel: devices that work side by side; by default the GPUs of this machine, or one.
        rows: how many documents are sampled, and how many examples at least.

    Raises:
        InputError: as ``plan``; the sample has no texts; or what a stage says of its input.
        TransientError: a stage of the rehearsal failed otherwise.
    """
    watch = Stopwatch()
    planned = plan.execute(config)
    plan_seconds = watch.seconds()
    run = Run.open(planned["run"])
    gpus = len(devices.visible())
    wanted = rows or (SAMPLE_ON_GPU if gpus else SAMPLE)
    examples = max(wanted, STEPS * _examples_per_step(config.finetune))
    with sigterm_as_exit(), tempfile.TemporaryDirectory(prefix="aitp-estimate-") as name:
        sizes = sample.write(run, Path(name), wanted, examples)
        rehearsal = Rehearsal(config, Path(name))
        below = rehearsal.below_tau()
        places = Places.of(run.plan, sizes.rows("sft"))
        selected, parts = selection(config, sizes.rows("corpus"), below, places)
        measured = rehearsal.measure(-(-selected // max(parts, 1)))
    expected = forecast(config, sizes, below, measured, places)
    stages = units(config, sizes, expected, measured, on_gpus=gpus > 0)
    stages["plan"] = Units((measured.costs["plan"].fixed + plan_seconds,))
    result = _result(run, sizes, expected, measured, stages, price, parallel or max(gpus, 1))
    result |= {
        "gpus": gpus,
        "sampled": wanted,
        "assumptions": _assumptions(config, expected, gpus),
        "seconds": watch.seconds(),
    }
    sys.stderr.write(summary.render(result))
    return result


def selection(config: RunConfig, documents: int, below: float, places: Places) -> tuple[int, int]:
    """Documents that will be selected when a share ``below`` lies below tau, and the parts they make."""
    selected = min(places.documents, round(below * documents))
    return selected, -(-selected // config.difference.documents_per_part)


def forecast(config: RunConfig, sizes: Sizes, below: float, measured: Measured, places: Places) -> Forecast:
    """What the run will have to do, from the sample's shares."""
    documents, sft = sizes.rows("corpus"), sizes.rows("sft")
    selected, parts = selection(config, documents, below, places)
    questions = round(selected * measured.questions)
    kept = round(questions * measured.kept)
    pairs = int(min(round(kept * measured.answered), places.pairs))
    return Forecast(
        documents=documents,
        sft_examples=sft,
        below_tau=round(below * documents),
        selected=selected,
        parts=parts,
        questions=questions,
        kept=kept,
        pairs=pairs,
        steps=steps(config.finetune, sft + pairs),
    )


def steps(settings: Finetune, examples: int) -> int:
    """Optimiser steps of the fine-tuning, as transformers counts them."""
    if settings.max_steps > 0:
        return settings.max_steps
    batches = -(-examples // (settings.batch_size * settings.processes))
    return max(math.ceil(settings.epochs * max(-(-batches // settings.gradient_accumulation), 1)), 1)


def units(
    config: RunConfig, sizes: Sizes, expected: Forecast, measured: Measured, on_gpus: bool
) -> dict[str, Units]:
    """The processes of each stage; without GPUs, this machine counts as one device."""
    costs = measured.costs
    engine, ranks = (gpus_wanted(config.engine), config.finetune.processes) if on_gpus else (1, 1)
    made = {stage.name: Units((costs[stage.name].fixed,)) for stage in STAGES if stage.name in costs}
    made["embed"] = Units(
        tuple(costs[f"embed {role}"].seconds(rows) for role, rows in sizes.units),
        devices=0 if config.encoder.endpoint else 1,
    )
    made["density"] = Units((costs["density"].fixed,) * len(sizes.units))
    requests = {"rewrite": expected.selected, "score": expected.questions, "answer": expected.kept}
    for stage in generated.STAGES:
        share = requests[stage] / max(expected.parts, 1)
        made[stage] = Units(
            (costs[stage].seconds(share),) * expected.parts,
            devices=0 if config.engine.endpoint else engine,
        )
    made["finetune"] = Units((costs["finetune"].seconds(expected.steps),), devices=ranks)
    return {stage.name: made[stage.name] for stage in STAGES if stage.name in made}


def makespan(seconds: Sequence[float], slots: int) -> float:
    """When the last unit ends if each starts, in order, as soon as one of the slots is free."""
    free = [0.0] * slots
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def _examples_per_step(settings: Finetune) -> int:
    return settings.batch_size * settings.gradient_accumulation * settings.processes


def _result(
    run: Run,
    sizes: Sizes,
    expected: Forecast,
    measured: Measured,
    stages: dict[str, Units],
    price: float | None,
    parallel: int,
) -> dict[str, Any]:
    requests = {"rewrite": expected.selected, "score": expected.questions, "answer": expected.kept}
    gpu_hours = sum(stage.gpu_hours for stage in stages.values())
    return {
        "stage": "estimate",
        "run": run.uri,
        "label": run.config.dump,
        **vars(expected),
        "tokens": round(sum(sizes.rows(role) * per_row for role, per_row in measured.tokens.items())),
        "generated_tokens": round(
            sum(requests[stage] * measured.generated[stage] for stage in generated.STAGES)
        ),
        "stages": {
            stage.name: {
                "units": len(stages[stage.name].seconds),
                "hours": round(stages[stage.name].hours(parallel), 6),
                "gpu_hours": round(stages[stage.name].gpu_hours, 6),
            }
            for stage in STAGES
        },
        "parallel": parallel,
        "hours": round(sum(stage.hours(parallel) for stage in stages.values()), 6),
        "gpu_hours": round(gpu_hours, 6),
        "price": price,
        "cost": None if price is None else round(gpu_hours * price, 4),
    }


def _assumptions(config: RunConfig, expected: Forecast, gpus: int) -> list[str]:
    """What the figures rest on, for people."""
    said = [
        f"{expected.below_tau} documents below the threshold is the sample's share: "
        "of few documents, densities are rough",
        "merge, density, index, difference, assemble and report count with their start-up only",
        "nothing is done yet; what earlier runs have left is reused and costs nothing",
        "each unit succeeds at once; Airflow adds a few seconds a task",
    ]
    if not gpus:
        said.append("no GPU was found: this machine's processors count as one device")
    if config.encoder.endpoint:
        said.append("the embedding server's own devices are not counted")
    if config.engine.endpoint:
        said.append("the generating server's own devices are not counted")
    return said


def check(price: float | None, parallel: int | None, rows: int | None) -> None:
    """Refuse settings that make no sense.

    Raises:
        InputError: names the setting and its value.
    """
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise InputError(f"--price {price} is no price: give 0 or more")
    for name, value in (("parallel", parallel), ("sample", rows)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is too small: give 1 or more")
