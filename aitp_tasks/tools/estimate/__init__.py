"""estimate: what a run will take, from what earlier runs have measured, or from a rehearsal.

Plans the run. Where the earlier runs of its line do not tell all that is left of it, draws
a few documents and SFT examples, takes them through all stages on this machine, and keeps
what that has measured (``datasets/<line>/rehearsed.json``), so that plan can tell the same.
The storage gets the run's plan and that, and nothing else.

``sample`` draws, ``rehearsal`` runs and measures; what follows from the measurements is in
``forecast``.
"""

import logging
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from aitp_tasks.config import Finetune, RunConfig
from aitp_tasks.config.difference import DOCUMENTS_PER_PART
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import table, told
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.forecast.learned import keep_rehearsed, learn, rehearsed
from aitp_tasks.forecast.units import units
from aitp_tasks.forecast.work import Done, Places, Sizes, forecast, selection
from aitp_tasks.generation.engine import requests_at_once
from aitp_tasks.machine import devices
from aitp_tasks.machine.processes import sigterm_as_exit
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.tools.estimate import sample
from aitp_tasks.tools.estimate.rehearsal import STEPS, Rehearsal

log = logging.getLogger(__name__)

#: Documents of the sample on a processor, and on a GPU, which a few hundred do not keep busy.
SAMPLE, SAMPLE_ON_GPU = 256, 4096


def execute(
    config: RunConfig,
    price: float | None = None,
    parallel: int | None = None,
    rows: int | None = None,
    rehearse: bool = False,
) -> dict[str, Any]:
    """Estimate what is left of a run, and print the table to standard error.

    Args:
        config: the run's configuration; its limits do not hold here.
        price: of one GPU for one hour; by default the configuration's.
        parallel: devices that work side by side; by default the GPUs of this machine, or one.
        rows: how many documents a rehearsal samples, and how many examples at least.
        rehearse: measure here, whatever earlier runs have told.

    Raises:
        InputError: as ``plan``; the sample has no texts; or what a stage says of its input.
        TransientError: a stage of the rehearsal failed otherwise.
    """
    watch = Stopwatch()
    run = Run.open(plan.execute(config, estimated=False)["run"])
    plan_seconds = watch.seconds()
    gpus = len(devices.visible())
    sizes, done = Sizes.of(run.plan), Done.of(run)
    known = None if rehearse else rehearsed(run.storage, config.assemble.dataset)
    learned = learn(run, known, from_runs=not rehearse)
    expected = forecast(config, sizes, learned.measured, Places.of(run.plan, sizes.rows("sft")), done)
    left = units(config, sizes, expected, learned.measured, done).values()
    is_rehearsed = not all(stage.known for stage in left) or rehearse
    wanted = rows or (SAMPLE_ON_GPU if gpus else SAMPLE)
    if is_rehearsed:
        measured = _rehearsed(run, sizes, wanted, gpus > 0)
        learned = learn(run, keep_rehearsed(run, measured), from_runs=not rehearse)
    price = config.plan.price_per_gpu_hour if price is None else price
    result = {
        "stage": "estimate",
        **told.tell(run, learned, sizes, done, plan_seconds, price, parallel or max(gpus, 1)),
        "gpus": gpus,
        "rehearsed": is_rehearsed,
        "sampled": wanted if is_rehearsed else 0,
        "seconds": watch.seconds(),
    }
    sys.stderr.write(table.render(result))
    return result


def _rehearsed(run: Run, sizes: Sizes, rows: int, on_gpus: bool) -> Measured:
    """What a rehearsal of the run has measured on this machine."""
    config = run.config
    # How large parts will be follows from what is to be measured.
    per_part = config.difference.documents_per_part or DOCUMENTS_PER_PART
    documents = max(rows, min(requests_at_once(config.engine, on_gpus), per_part))
    examples = max(rows, STEPS * _examples_per_step(config.finetune))
    with sigterm_as_exit(), tempfile.TemporaryDirectory(prefix="aitp-estimate-") as name:
        sample.write(run, Path(name), documents, examples)
        rehearsal = Rehearsal(config, Path(name))
        below = rehearsal.below_tau()
        places = Places.of(run.plan, sizes.rows("sft"))
        selected, parts = selection(config, round(below * sizes.rows("corpus")), places, Measured())
        return rehearsal.measure(-(-selected // max(parts, 1)))


def _examples_per_step(settings: Finetune) -> int:
    return settings.batch_size * settings.gradient_accumulation * settings.processes


def check(price: float | None, parallel: int | None, rows: int | None, rehearse: bool = False) -> None:
    """Refuse settings that make no sense.

    Raises:
        InputError: names the setting and its value.
    """
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise InputError(f"--price {price} is no price: give 0 or more")
    for name, value in (("parallel", parallel), ("sample", rows)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is too small: give 1 or more")
