"""What the three prompt stages share: durable generation, reading, the part's manifest.

A response is stored under ``generations/<stage>/<fingerprint>/`` within a second
after it is finished, apart from what is read out of it. The fingerprint covers
model, engine arguments, prompt, schema, sampling and lengths, the request's id its content; so a
part that is run again, in whatever run, generates what is missing and nothing
else. A response that cannot be used is asked for once more. Every request ends
as an output row, rejected, or quarantined.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from aitp_tasks.errors import InputError
from aitp_tasks.generation import responses, stored
from aitp_tasks.generation.engine import Engine, Job, open_engine
from aitp_tasks.generation.engine.prompting import Prompter, Rendered
from aitp_tasks.generation.figures import Figures
from aitp_tasks.generation.stored import Response, Writer
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import models
from aitp_tasks.records import digest, tables
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.records.run import FrozenPrompt, Run

log = logging.getLogger(__name__)

CUT_OFF, NOT_PARSED = "cut_off", "not_parsed"
#: Classes of which a second attempt may give something else.
_RETRIED = (CUT_OFF, NOT_PARSED)
#: Times the room of a response that was cut: what it gets if it can, and what makes a difference by itself.
_MORE_ROOM, _ENOUGH_ROOM = 2, 1.5
_RETRY_TEMPERATURE = 0.7


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
class Parsed:
    """A response as an object of the prompt's schema.

    Attributes:
        repairs: what had to be mended in the text; see ``responses``.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...]
    response: Response


@dataclass(frozen=True)
class PromptStage:
    """One of the three stages.

    Attributes:
        name: ``rewrite``, ``score`` or ``answer``.
        columns: schema of the output rows.
        requests: the requests of a part.
        read: output rows of a request and its parsed response.
        alternatives: of each number in a response, so many alternatives are asked for.
        select: what becomes of the readings of a part when all are there.
    """

    name: str
    columns: pa.Schema
    requests: Callable[[Run, str], list[Request]]
    read: Callable[[Run, Request, Parsed], Reading]
    alternatives: int = 0
    select: Callable[[Run, Mapping[str, Reading]], Mapping[str, Reading]] = lambda _, readings: readings


def execute(stage: PromptStage, run: Run, unit: int) -> dict[str, Any]:
    """Run one part of a stage.

    Raises:
        InputError: an earlier stage has not been run, the model is not the planned one any more, or the
            engine cannot be loaded.
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
    """The output rows of one part of a stage, those that a gate has left out among them."""
    done = run.require_manifest(stage, part, what=f"{stage} of {part}")
    rows: list[dict[str, Any]] = tables.read(run.storage, done.output("rows")).to_pylist()
    return rows


def kept_rows(run: Run, stage: str, part: str) -> list[dict[str, Any]]:
    """Those of the output rows that no gate has left out."""
    return [row for row in read_rows(run, stage, part) if row["kept"]]


def documents(run: Run, part: str, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of the documents of one part of the difference set."""
    done = run.require_manifest("difference")
    rows: list[dict[str, Any]] = tables.read(run.storage, done.output(part), columns).to_pylist()
    return rows


def _run_part(stage: PromptStage, run: Run, part: str, watch: Stopwatch) -> Manifest:
    generator = _Generator(stage, run)
    readings = stage.select(run, generator.readings(stage.requests(run, part)))
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


def parse(response: Response, prompt: FrozenPrompt) -> Parsed | Refusal:
    """A response as an object of the prompt's schema, or why it is none."""
    said = response.completion
    if said.finish_reason != "stop":
        return Refusal(
            CUT_OFF, f"the response ended by {said.finish_reason} after {said.generated_tokens} tokens"
        )
    try:
        read = responses.read(said.text, prompt.output_schema)
    except responses.UnreadableError as error:
        return Refusal(NOT_PARSED, str(error))
    return Parsed(read.value, read.repairs, response)


class _Generator:
    """The responses of one stage: those that are stored, and the missing ones, generated."""

    def __init__(self, stage: PromptStage, run: Run) -> None:
        self._stage = stage
        self._run = run
        self._storage = run.storage
        self.prompt = run.plan.prompts[stage.name]
        fingerprint = digest.of_value(
            [run.plan.engine_identity, self.prompt.digest, run.config.engine.generation_identity()]
        )
        self._prefix = f"generations/{stage.name}/{fingerprint}/"
        self._figures = Figures()

    def readings(self, requests: list[Request]) -> dict[str, Reading]:
        """What came of each request, in their order."""
        attempts = stored.load(self._storage, self._prefix, {request.id for request in requests})
        self._figures.reused = sum(map(len, attempts.values()))
        cases = {request.id: _Case(request, attempts.get(request.id, [])) for request in requests}
        waiting = deque(
            case
            for case in sorted(cases.values(), key=lambda case: case.request.id)
            if self._wants_more(case)
        )
        log.info("%s requests=%d to_generate=%d", self.prompt.name, len(requests), len(waiting))
        if waiting:
            self._generate(waiting)
        self._figures.cut = sum(case.cut for case in cases.values())
        return {request.id: cases[request.id].reading for request in requests}

    def figures(self) -> dict[str, Any]:
        """Counts and speed, for the manifest."""
        return self._figures.told()

    def _wants_more(self, case: "_Case") -> bool:
        """Read the last attempt; whether there is to be another."""
        if not case.attempts:
            return True
        case.reading = self._read(case.request, case.attempts[-1])
        return isinstance(case.reading, Refusal) and len(case.attempts) < self._allowed(case.reading)

    def _allowed(self, refusal: Refusal) -> int:
        """Attempts of a request whose last one was refused: two a round, where a second can help."""
        settings = self._run.config.prompts
        a_round = 1 + settings.second_attempt
        last = a_round if refusal.error_class in _RETRIED else 1
        return a_round * settings.failed_round + last

    def _read(self, request: Request, response: Response) -> Reading:
        parsed = parse(response, self.prompt)
        if isinstance(parsed, Refusal):
            return parsed
        self._figures.repairs.update(parsed.repairs)
        return self._stage.read(self._run, request, parsed)

    def _generate(self, waiting: "deque[_Case]") -> None:
        settings = self._run.config.engine
        self._require_planned_model()
        model = models.local(settings)
        self._figures.begin()
        with (
            Writer(self._storage, self._prefix, settings.requests_per_flush) as writer,
            open_engine(settings, model) as engine,
        ):
            prompter = Prompter(settings, model)
            under_way: dict[str, _Case] = {}
            total = len(waiting)
            while waiting or under_way:
                while waiting and engine.room:
                    case = waiting.popleft()
                    if self._submit(engine, prompter, case):
                        under_way[case.request.id] = case
                for key, outcome in engine.finished():
                    case = under_way.pop(key)
                    if isinstance(outcome, Refusal):
                        case.reading = outcome
                        continue
                    self._figures.add(outcome, bool(case.attempts))
                    response = Response(outcome, case.cut_characters)
                    writer.add(key, len(case.attempts), response)
                    case.attempts.append(response)
                    if self._wants_more(case):
                        # Soon, while the engine still holds its prompt.
                        waiting.appendleft(case)
                self._figures.tick(engine, total - len(waiting) - len(under_way), total)

    def _submit(self, engine: Engine, prompter: Prompter, case: "_Case") -> bool:
        """Hand a case to the engine; False when it can never be served."""
        sampling = dict(self.prompt.sampling)
        try:
            rendered = self._rendered(prompter, case)
        except ValueError as error:
            case.reading = Refusal("not_servable", str(error))
            return False
        room = prompter.context - len(rendered.token_ids)
        case.cut_characters = rendered.cut_characters
        engine.submit(
            Job(
                id=case.request.id,
                content=rendered.content,
                token_ids=rendered.token_ids,
                schema=self.prompt.output_schema,
                sampling=_varied(sampling, case, room),
                alternatives=self._stage.alternatives,
            )
        )
        return True

    def _rendered(self, prompter: Prompter, case: "_Case") -> Rendered:
        """A response that was cut gets its room from the document, where that leaves some of it."""
        room = int(self.prompt.sampling["max_tokens"])
        if case.wants_room:
            with suppress(ValueError):
                more = min(_MORE_ROOM * room, (prompter.context + room) // 2)
                return prompter.render(self.prompt, case.request.arguments, more)
        return prompter.render(self.prompt, case.request.arguments, room)

    def _require_planned_model(self) -> None:
        """Responses are kept under the planned model's name."""
        settings = self._run.config.engine
        if models.identity(settings) != self._run.plan.engine_identity:
            raise InputError(
                f"engine model {settings.model} or its chat template was changed after the run was planned: "
                "plan the run anew"
            )


@dataclass
class _Case:
    """A request, its attempts, and what the last of them has given."""

    request: Request
    attempts: list[Response]
    reading: Reading = field(default_factory=list)
    #: Of the document, left out of the prompt that is under way.
    cut_characters: int = 0

    @property
    def wants_room(self) -> bool:
        """Whether the first attempt was cut by its length."""
        cut = isinstance(self.reading, Refusal) and self.reading.error_class == CUT_OFF
        return cut and len(self.attempts) == 1

    @property
    def cut(self) -> bool:
        """Whether the last attempt has not seen all of the document."""
        return bool(self.attempts and self.attempts[-1].cut_characters)


def _varied(sampling: dict[str, Any], case: _Case, room: int) -> dict[str, Any]:
    """Sampling of the next attempt: with more room after one that was cut.

    At another temperature where it could not be read, or where there is hardly more room.
    """
    if not case.attempts:
        return sampling
    if case.wants_room:
        plain = int(sampling["max_tokens"])
        sampling = sampling | {"max_tokens": min(_MORE_ROOM * plain, room)}
        if sampling["max_tokens"] >= _ENOUGH_ROOM * plain:
            return sampling
    return sampling | {"temperature": max(float(sampling.get("temperature", 0.0)), _RETRY_TEMPERATURE)}
