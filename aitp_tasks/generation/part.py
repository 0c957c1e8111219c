"""One part of a prompt stage: its requests answered and read, its rows written, its manifest committed.

Every request ends as an output row, rejected, or quarantined.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from aitp_tasks.errors import InputError
from aitp_tasks.generation.generator import Generator, Session
from aitp_tasks.generation.requests import Asking, PromptStage, Reading, Readings, Rejected, Request
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices
from aitp_tasks.records import generated, tables
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, add_counts, commonest
from aitp_tasks.records.plan import RULES
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)


def execute(stage: PromptStage, run: Run, unit: int) -> dict[str, Any]:
    """Run one part of a stage.

    Raises:
        InputError: an earlier stage has not been run, the model is not the planned one any more, the run was
            planned with other rules, or the engine cannot be loaded.
        BudgetExceededError: too many requests were quarantined.
        TransientError: the engine died.
    """
    watch = Stopwatch()
    part = run.part(unit)
    label = f"{run.config.dump} part {unit + 1} of {run.part_count}"
    done = run.find_manifest(stage.name, part)
    if done is None and (why := _cannot_be_done(stage, run, part)):
        log.warning("%s has nothing to do: %s was given up: %s", stage.name, part, why)
        return {
            "stage": stage.name,
            "run": run.uri,
            "label": f"{label}, given up",
            "given_up": True,
            "seconds": watch.seconds(),
        }
    done = done or _run_part(stage, run, part, watch)
    assert done.ledger is not None
    return {
        "stage": stage.name,
        "run": run.uri,
        "label": f"{label}, {done.ledger.rows_in} rows",
        "rows_in": done.ledger.rows_in,
        "rows_out": done.ledger.rows_out,
        "rows_quarantined": done.ledger.rows_quarantined,
        "generated": done.figures["generated"],
        "seconds": watch.seconds(),
    }


def _cannot_be_done(stage: PromptStage, run: Run, part: str) -> str | None:
    """Why a part was given up, where the stage before has not done it; None where this one can."""
    before = generated.STAGES[: generated.STAGES.index(stage.name)]
    if not before or run.find_manifest(before[-1], part) is not None:
        return None
    return generated.given_up(run, part)


def _run_part(stage: PromptStage, run: Run, part: str, watch: Stopwatch) -> Manifest:
    _require_rules(run)
    requests = stage.requests(run, part)
    with Session(run.config.engine, run.plan.engine_identity) as session:
        ask = _Asks(run, session)
        asked, figures = ask(stage, requests)
        chosen, further = stage.choose(run, ask, {request.id: request for request in requests}, asked)
    readings = stage.select(run.config.gates, chosen)
    refused = {key: reading for key, reading in readings.items() if isinstance(reading, Refusal)}
    outputs = tables.write_quarantine(
        run.storage,
        run.key(stage.name, f"{part}-quarantine"),
        [{"id": key, "error_class": why.error_class, "message": why.message} for key, why in refused.items()],
    )
    ledger = _ledger(len(requests), readings.values())
    ledger.check_budget(
        run.config.prompts.failure_budget,
        f"{stage.name} of {part}",
        run.storage.uri(outputs.get("quarantine", run.key(stage.name, part))),
        commonest(refusal.message for refusal in refused.values()),
    )
    rows = [row for reading in readings.values() for row in _rows(reading)]
    outputs["rows"] = tables.write(
        run.storage, run.key(stage.name, part), pa.Table.from_pylist(rows, stage.columns)
    )
    outputs |= generated.write_tokens(run, stage.name, part, dict(sorted(ask.tokens.items())))
    return run.commit(
        Manifest(
            stage=stage.name,
            label=part,
            ledger=ledger,
            outputs=outputs,
            figures={
                **figures,
                **further,
                "engine_starts": session.starts,
                **devices.figures(served=run.config.engine.endpoint is not None),
            },
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
        part,
    )


class _Asks:
    """See ``requests.Asks``."""

    def __init__(self, run: Run, session: Session) -> None:
        self._run, self._session = run, session
        #: Generated for each document by all that was asked.
        self.tokens: Counter[str] = Counter()

    def __call__(self, asking: Asking, requests: list[Request]) -> tuple[Readings, dict[str, Any]]:
        run, prompt = self._run, self._run.plan.prompts[asking.name]
        generator = Generator(
            asking, prompt, run.storage, run.config, run.plan.engine_identity, self._session
        )
        readings = generator.readings(requests)
        self.tokens.update(generator.tokens)
        return readings, generator.figures()

    def end(self) -> None:
        self._session.end()


def _require_rules(run: Run) -> None:
    """Refuse a run whose other parts were, or will be, read and gated otherwise."""
    if run.plan.rules != RULES:
        raise InputError(
            f"{run.uri} was planned with the rules {run.plan.rules} of reading and gating responses, this "
            f"release has the rules {RULES}: plan it again; what was generated is used again"
        )


def _rows(reading: Reading) -> list[dict[str, Any]]:
    return reading.rows if isinstance(reading, Rejected) else reading if isinstance(reading, list) else []


def _ledger(requests: int, readings: Iterable[Reading]) -> Ledger:
    out, rejected, quarantined = 0, dict[str, int](), dict[str, int]()
    for reading in readings:
        if isinstance(reading, Refusal):
            quarantined = add_counts(quarantined, {reading.error_class: 1})
        elif isinstance(reading, Rejected):
            rejected = add_counts(rejected, {reading.reason: 1})
        else:
            out += 1
    return Ledger(rows_in=requests, rows_out=out, rejected=rejected, quarantined=quarantined)
