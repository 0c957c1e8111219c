"""What the three prompt stages share: durable generation, reading, the part's manifest.

A response is stored under ``generations/<stage>/<fingerprint>/`` within a second
after it is finished, apart from what is read out of it. The fingerprint covers
model, prompt, schema, sampling and lengths, the request's id its content; so a
part that is run again, in whatever run, generates what is missing and nothing
else. A response that cannot be used is asked for once more. Every request ends
as an output row, rejected, or quarantined.
"""

import json
import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pyarrow as pa

from aitp_tasks import digest, models, responses, tables
from aitp_tasks.engine import Completion, Engine, Job, open_engine
from aitp_tasks.engine.prompting import Prompter
from aitp_tasks.manifest import Ledger, Manifest, Stopwatch, add_counts
from aitp_tasks.rows import Refusal
from aitp_tasks.run import FrozenPrompt, Run
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

_RESPONSES = pa.schema(
    [
        ("id", pa.string()),
        ("attempt", pa.int64()),
        ("text", pa.large_string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("numbers", pa.large_string()),  # JSON
    ]
)
CUT_OFF, NOT_PARSED = "cut_off", "not_parsed"
#: Classes of which a second attempt may give something else.
_RETRIED = (CUT_OFF, NOT_PARSED)
#: Times the room of a response that was cut.
_MORE_ROOM = 2
_RETRY_TEMPERATURE = 0.7
_FLUSH_SECONDS = 1.0
_LOG_SECONDS = 5.0
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
class Parsed:
    """A response as an object of the prompt's schema.

    Attributes:
        repairs: what had to be mended in the text; see ``responses``.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...]
    completion: Completion


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


def parse(response: Completion, prompt: FrozenPrompt) -> Parsed | Refusal:
    """A response as an object of the prompt's schema, or why it is none."""
    if response.finish_reason != "stop":
        return Refusal(
            CUT_OFF,
            f"the response ended by {response.finish_reason} after {response.generated_tokens} tokens",
        )
    try:
        read = responses.read(response.text, prompt.output_schema)
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
        self._figures = _Figures()

    def readings(self, requests: list[Request]) -> dict[str, Reading]:
        """What came of each request, in their order."""
        attempts = self._stored(requests)
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

    def _read(self, request: Request, response: Completion) -> Reading:
        parsed = parse(response, self.prompt)
        if isinstance(parsed, Refusal):
            return parsed
        self._figures.repairs.update(parsed.repairs)
        return self._stage.read(self._run, request, parsed)

    def _generate(self, waiting: "deque[_Case]") -> None:
        settings = self._run.config.engine
        model = models.local(settings)
        with (
            _Flusher(self._storage, self._prefix, settings.requests_per_flush) as flusher,
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
                    flusher.add(key, len(case.attempts), outcome)
                    case.attempts.append(outcome)
                    if self._wants_more(case):
                        # Soon, while the engine still holds its prompt.
                        waiting.appendleft(case)
                self._figures.tick(engine, total - len(waiting) - len(under_way), total)

    def _submit(self, engine: Engine, prompter: Prompter, case: "_Case") -> bool:
        """Hand a case to the engine; False when it can never be served."""
        sampling = dict(self.prompt.sampling)
        try:
            rendered = prompter.render(self.prompt, case.request.arguments, int(sampling["max_tokens"]))
        except ValueError as error:
            case.reading = Refusal("not_servable", str(error))
            return False
        room = prompter.context - len(rendered.token_ids)
        self._figures.cut += bool(rendered.cut_characters)
        engine.submit(
            Job(
                id=case.request.id,
                content=rendered.content,
                token_ids=rendered.token_ids,
                schema=self.prompt.output_schema,
                sampling=_varied(sampling, case.attempts, case.reading, room),
                alternatives=self._stage.alternatives,
            )
        )
        return True

    def _stored(self, requests: list[Request]) -> dict[str, list[Completion]]:
        """The attempts of each request that earlier runs have left, in their order."""
        wanted = {request.id for request in requests}
        if not wanted:
            return {}
        low, high = min(wanted)[:_RANGE], max(wanted)[:_RANGE]
        keys = []
        for info in self._storage.list(self._prefix):
            first, last = info.key.removeprefix(self._prefix).split("-")[:2]
            if first <= high and last >= low:
                keys.append(info.key)
        found: dict[str, dict[int, Completion]] = {}
        with ThreadPoolExecutor(self._storage.concurrency) as pool:
            for table in pool.map(lambda key: tables.read(self._storage, key), keys):
                for row in table.to_pylist():
                    key, attempt = row.pop("id"), row.pop("attempt")
                    if key in wanted:
                        numbers = json.loads(row.pop("numbers"))
                        found.setdefault(key, {}).setdefault(attempt, Completion(**row, numbers=numbers))
        return {key: _unbroken(attempts) for key, attempts in found.items()}


@dataclass
class _Case:
    """A request, its attempts, and what the last of them has given."""

    request: Request
    attempts: list[Completion]
    reading: Reading = field(default_factory=list)


def _unbroken(attempts: Mapping[int, Completion]) -> list[Completion]:
    """The attempts from the first on; what follows a gap was decided by what is missing."""
    return [attempts[number] for number in range(len(attempts)) if set(range(number + 1)) <= attempts.keys()]


def _varied(sampling: dict[str, Any], attempts: list[Completion], last: Reading, room: int) -> dict[str, Any]:
    """Sampling of the next attempt: with more room after one that was cut, else at another temperature."""
    if not attempts:
        return sampling
    if isinstance(last, Refusal) and last.error_class == CUT_OFF and len(attempts) == 1:
        return sampling | {"max_tokens": min(_MORE_ROOM * int(sampling["max_tokens"]), room)}
    return sampling | {"temperature": max(float(sampling.get("temperature", 0.0)), _RETRY_TEMPERATURE)}


class _Figures:
    """Counts and speed of a part."""

    def __init__(self) -> None:
        self.reused = self.cut = 0
        self.repairs: Counter[str] = Counter()
        self._generated = self._retried = 0
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._start = self._logged = time.monotonic()
        self._seconds = self._load_seconds = 0.0
        self._restarts = 0

    def add(self, completion: Completion, again: bool) -> None:
        """Count a completion."""
        self._generated += 1
        self._retried += again
        self._prompt_tokens += completion.prompt_tokens
        self._cached_tokens += completion.cached_tokens
        self._generated_tokens += completion.generated_tokens

    def tick(self, engine: Engine, done: int, total: int) -> None:
        """Take the time, and tell how far it is, every few seconds."""
        now = time.monotonic()
        self._seconds, self._load_seconds, self._restarts = (
            now - self._start,
            engine.load_seconds,
            engine.restarts,
        )
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        left = self._busy / done * (total - done) if done else math.nan
        log.info(
            "done=%d of=%d tokens_per_second=%s prefix_hit_share=%s restarts=%d seconds_left=%.0f",
            done, total, *(self.told()[name] for name in ("tokens_per_second", "prefix_hit_share")),
            self._restarts, left,
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "requests": self.reused + self._generated,
            "reused": self.reused,
            "generated": self._generated,
            "retried": self._retried,
            "documents_cut": self.cut,
            "repairs": dict(sorted(self.repairs.items())),
            "prompt_tokens": self._prompt_tokens,
            "generated_tokens": self._generated_tokens,
            "tokens_per_second": round(self._generated_tokens / self._busy, 1) if self._busy else 0.0,
            "prefix_hit_share": round(self._cached_tokens / max(self._prompt_tokens, 1), 4),
            "load_seconds": round(self._load_seconds, 1),
            "busy_seconds": round(self._busy, 1),
            "engine_restarts": self._restarts,
        }

    @property
    def _busy(self) -> float:
        return max(self._seconds - self._load_seconds, 0.0)


class _Flusher:
    """Makes responses durable within a second after they finish, beside the generation."""

    def __init__(self, storage: Storage, prefix: str, at_most: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._at_most = at_most
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flusher")

    def add(self, key: str, attempt: int, completion: Completion) -> None:
        """Take in a response; raises what writing an earlier one has raised."""
        if self._failure is not None:
            raise self._failure
        values = vars(completion) | {"numbers": json.dumps(completion.numbers)}
        self._rows.put({"id": key, "attempt": attempt, **values})

    def __enter__(self) -> "_Flusher":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.put(None)
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        written = -math.inf
        try:
            while rows := self._next(written + _FLUSH_SECONDS):
                self._write(rows)
                written = time.monotonic()
        except BaseException as failure:
            self._failure = failure

    def _next(self, until: float) -> list[dict[str, Any]]:
        """Waits for a row; then those that come until then. Empty at the end."""
        rows: list[dict[str, Any]] = []
        row = self._rows.get()
        while row is not None:
            rows.append(row)
            left = until - time.monotonic()
            if len(rows) >= self._at_most or left <= 0:
                return rows
            try:
                row = self._rows.get(timeout=left)
            except queue.Empty:
                return rows
        if rows:
            self._rows.put(None)
        return rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        ids = sorted(row["id"][:_RANGE] for row in rows)
        table = pa.Table.from_pylist(rows, _RESPONSES)
        tables.write(self._storage, f"{self._prefix}{ids[0]}-{ids[-1]}", table)
