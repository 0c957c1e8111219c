"""What the three prompt stages share: durable generation, reading, the part's manifest.

A response is stored under ``generations/<stage>/<fingerprint>/`` as soon as its
batch is finished, apart from what is read out of it. The fingerprint covers
model, prompt, schema, sampling and lengths, the request's id its content; so a
part that is run again, in whatever run, generates what is missing and nothing
else. Every request ends as an output row, rejected, or quarantined.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from jsonschema import Draft202012Validator

from aitp_tasks import digest, tables
from aitp_tasks.engine import Completion, Engine
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.rows import Refusal
from aitp_tasks.run import FrozenPrompt, Run

log = logging.getLogger(__name__)

_RESPONSES = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
    ]
)
#: Characters of an id that a stored object's name tells its range by.
_RANGE = 8


@dataclass(frozen=True)
class Request:
    """One prompt to fill.

    ``id`` starts with the document's id, so that a document's requests are
    neighbours: they share a prefix that the engine computes once.
    """

    id: str
    arguments: dict[str, str]


@dataclass(frozen=True)
class Rejected:
    """A response that was read well and left out on purpose."""

    reason: str
    rows: list[dict[str, Any]] = field(default_factory=list)


#: What a stage makes of a parsed response: output rows, or why there are none.
Reading = list[dict[str, Any]] | Rejected | Refusal


@dataclass(frozen=True)
class PromptStage:
    """One of the three stages.

    Attributes:
        name: ``rewrite``, ``score`` or ``answer``.
        columns: schema of the output rows.
        requests: the requests of a part.
        read: output rows of a request and its parsed response.
    """

    name: str
    columns: pa.Schema
    requests: Callable[[Run, str], list[Request]]
    read: Callable[[Run, Request, dict[str, Any]], Reading]


def execute(stage: PromptStage, run: Run, unit: int) -> dict[str, Any]:
    """Run one part of a stage.

    Raises:
        InputError: an earlier stage has not been run, or the engine cannot be loaded.
        BudgetExceededError: too many requests were quarantined.
        TransientError: the engine died.
    """
    watch = Stopwatch()
    part = run.part(unit)
    done = run.find_manifest(stage.name, part) or _run_part(stage, run, part, watch)
    assert done.ledger is not None
    return {
        "stage": stage.name,
        "run": run.uri,
        "label": f"{run.config.dump} part {unit + 1} of {run.part_count}, {done.ledger.rows_in} rows",
        "rows_in": done.ledger.rows_in,
        "rows_out": done.ledger.rows_out,
        "rows_quarantined": done.ledger.rows_quarantined,
        "generated": done.figures["generated"],
        "seconds": watch.seconds(),
    }


def read_rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """The output rows of one part of a stage."""
    done = run.require_manifest(stage, part, what=f"{stage} of {part}")
    rows: list[dict[str, Any]] = tables.read(run.storage, done.output("rows")).to_pylist()
    return rows


def documents(run: Run, part: str, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of the documents of one part of the difference set."""
    done = run.require_manifest("difference")
    rows: list[dict[str, Any]] = tables.read(run.storage, done.output(part), columns).to_pylist()
    return rows


def _run_part(stage: PromptStage, run: Run, part: str, watch: Stopwatch) -> Manifest:
    requests = stage.requests(run, part)
    generator = _Generator(run, stage.name)
    responses = generator.responses(requests)
    readings = {
        request.id: _read(stage, run, request, responses[request.id], generator.prompt)
        for request in requests
    }
    refused = {key: reading for key, reading in readings.items() if isinstance(reading, Refusal)}
    outputs = tables.write_quarantine(
        run.storage,
        run.key(stage.name, f"{part}-quarantine"),
        [{"id": key, "error_class": why.error_class, "message": why.message} for key, why in refused.items()],
    )
    ledger = _ledger(readings.values())
    ledger.check_budget(
        run.config.prompts.failure_budget,
        f"{stage.name} of {part}",
        run.storage.uri(outputs.get("quarantine", run.key(stage.name, part))),
    )
    rows = [row for reading in readings.values() for row in _rows(reading)]
    outputs["rows"] = tables.write(
        run.storage, run.key(stage.name, part), pa.Table.from_pylist(rows, stage.columns)
    )
    return run.commit(
        Manifest(
            stage=stage.name,
            label=part,
            ledger=ledger,
            outputs=outputs,
            figures=generator.figures(),
            seconds=watch.seconds(),
            peak_memory_mb=watch.peak_memory_mb(),
        ),
        part,
    )


def _rows(reading: Reading) -> list[dict[str, Any]]:
    return reading.rows if isinstance(reading, Rejected) else reading if isinstance(reading, list) else []


def _ledger(readings: Iterable[Reading]) -> Ledger:
    out, rejected, quarantined = 0, dict[str, int](), dict[str, int]()
    for reading in readings:
        if isinstance(reading, Refusal):
            quarantined = add_counts(quarantined, {reading.error_class: 1})
        elif isinstance(reading, Rejected):
            rejected = add_counts(rejected, {reading.reason: 1})
        else:
            out += 1
    total = out + sum(rejected.values()) + sum(quarantined.values())
    return Ledger(rows_in=total, rows_out=out, rejected=rejected, quarantined=quarantined)


def _read(
    stage: PromptStage, run: Run, request: Request, response: Completion | Refusal, prompt: FrozenPrompt
) -> Reading:
    if isinstance(response, Refusal):
        return response
    if response.finish_reason != "stop":
        return Refusal(
            "cut_off",
            f"the response ended by {response.finish_reason} after {response.generated_tokens} tokens",
        )
    try:
        value = json.loads(response.text)
        Draft202012Validator(prompt.output_schema).validate(value)
        # A lone surrogate can be written in JSON's escapes but in no UTF-8 file.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Refusal("not_unicode", "the response has a lone surrogate")
    except Exception as error:
        return Refusal(
            "not_parsed", f"{type(error).__name__} in a response of {len(response.text)} characters"
        )
    return stage.read(run, request, value)


class _Generator:
    """The responses of one stage: those that are stored, and the missing ones, generated."""

    def __init__(self, run: Run, stage: str) -> None:
        self._run = run
        self._storage = run.storage
        self.prompt = run.plan.prompts[stage]
        fingerprint = digest.of_value(
            [run.plan.engine_identity, self.prompt.digest, run.config.engine.max_model_len]
        )
        self._prefix = f"generations/{stage}/{fingerprint}/"
        self._reused = 0
        self._generated: list[Completion] = []
        self._load_seconds = self._busy_seconds = 0.0

    def responses(self, requests: list[Request]) -> dict[str, Completion | Refusal]:
        """A completion for each request, or why there is none."""
        found: dict[str, Completion | Refusal] = dict(self._stored(requests))
        self._reused = len(found)
        missing = sorted(
            (request for request in requests if request.id not in found), key=lambda item: item.id
        )
        log.info("%s requests=%d stored=%d", self.prompt.name, len(requests), len(found))
        if missing:
            found |= self._generate(missing)
        return found

    def figures(self) -> dict[str, Any]:
        """Counts and speed, for the manifest."""
        tokens = sum(completion.generated_tokens for completion in self._generated)
        return {
            "requests": self._reused + len(self._generated),
            "reused": self._reused,
            "generated": len(self._generated),
            "prompt_tokens": sum(completion.prompt_tokens for completion in self._generated),
            "generated_tokens": tokens,
            "tokens_per_second": round(tokens / self._busy_seconds, 1) if self._busy_seconds else 0.0,
            "load_seconds": round(self._load_seconds, 1),
            "busy_seconds": round(self._busy_seconds, 1),
        }

    def _stored(self, requests: list[Request]) -> Iterator[tuple[str, Completion]]:
        wanted = {request.id for request in requests}
        if not wanted:
            return
        low, high = min(wanted)[:_RANGE], max(wanted)[:_RANGE]
        for info in self._storage.list(self._prefix):
            first, last = info.key.removeprefix(self._prefix).split("-")[:2]
            if first <= high and last >= low:
                for row in tables.read(self._storage, info.key).to_pylist():
                    if row["id"] in wanted:
                        yield row.pop("id"), Completion(**row)

    def _generate(self, missing: list[Request]) -> dict[str, Completion | Refusal]:
        start = time.monotonic()
        engine = Engine(self._run.config.engine)
        self._load_seconds = time.monotonic() - start
        found: dict[str, Completion | Refusal] = {}
        start = time.monotonic()
        size = self._run.config.engine.requests_per_flush
        for first in range(0, len(missing), size):
            answers = self._complete(engine, missing[first : first + size])
            self._flush({key: answer for key, answer in answers.items() if isinstance(answer, Completion)})
            found |= answers
            self._busy_seconds = time.monotonic() - start
            self._log_progress(len(found), len(missing))
        return found

    def _complete(self, engine: Engine, batch: list[Request]) -> dict[str, Completion | Refusal]:
        """A batch's completions; a request that cannot be served costs itself only."""
        try:
            done = engine.complete(self.prompt, [request.arguments for request in batch])
        except ValueError as error:
            if len(batch) == 1:
                return {batch[0].id: Refusal("not_servable", " ".join(str(error).split())[:500])}
            return {
                key: value for request in batch for key, value in self._complete(engine, [request]).items()
            }
        return {request.id: completion for request, completion in zip(batch, done, strict=True)}

    def _flush(self, done: dict[str, Completion]) -> None:
        if not done:
            return
        self._generated += done.values()
        rows = [{"id": key, **vars(done[key])} for key in sorted(done)]
        name = f"{rows[0]['id'][:_RANGE]}-{rows[-1]['id'][:_RANGE]}"
        tables.write(self._storage, f"{self._prefix}{name}", pa.Table.from_pylist(rows, _RESPONSES))

    def _log_progress(self, done: int, total: int) -> None:
        figures = self.figures()
        left = self._busy_seconds / done * (total - done)
        log.info(
            "%s done=%d of=%d tokens_per_second=%s seconds_left=%.0f",
            self.prompt.name, done, total, figures["tokens_per_second"], left,
        )  # fmt: skip
