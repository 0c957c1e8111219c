"""The responses to a stage's requests: those that are stored, and the missing ones, generated.

A response is stored under ``generations/<stage>/<fingerprint>/`` within a second
after it is finished, apart from what is read out of it. The fingerprint covers
model, engine arguments, prompt, schema, sampling and lengths, the request's id its
content; so a part that is run again, in whatever run, generates what is missing and
nothing else. A response that cannot be used is asked for once more.
"""

import logging
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from aitp_tasks import config
from aitp_tasks.config import RunConfig
from aitp_tasks.config.engine import gpus
from aitp_tasks.generation import stored
from aitp_tasks.generation.engine import Engine, numbers, open_engine
from aitp_tasks.generation.engine.prompting import Prompter
from aitp_tasks.generation.figures import Figures
from aitp_tasks.generation.preparing import Case, Waiting
from aitp_tasks.generation.requests import CUT_OFF, NOT_PARSED, Asking, Reading, Request, parse
from aitp_tasks.generation.stored import Response, Writer
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices, models
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

#: Classes of which a second attempt may give something else.
_RETRIED = (CUT_OFF, NOT_PARSED)


class Session:
    """The engine of a part: started when a first response is missing, and once, whatever is asked."""

    def __init__(self, settings: config.Engine, planned: str) -> None:
        """Nothing is loaded yet.

        Args:
            settings: of the engine.
            planned: identity of the planned model and its chat template.
        """
        self._settings = settings
        self._planned = planned
        self._open = ExitStack()
        self._started: tuple[Engine, Prompter] | None = None
        self._ended_starts = 0

    @property
    def spent(self) -> tuple[float, int]:
        """Seconds of loading, and restarts, by now."""
        if self._started is None:
            return 0.0, 0
        engine, _ = self._started
        return engine.load_seconds, engine.restarts

    @property
    def starts(self) -> int:
        """How often an engine was started by now; a server's starts are its own."""
        if self._started is None or self._settings.endpoint is not None:
            return self._ended_starts
        return self._ended_starts + 1 + self._started[0].restarts

    def start(self, seeded: bool) -> tuple[Engine, Prompter]:
        """The engine, and what fills prompts for it.

        Args:
            seeded: whether requests will have seeds of their own; the first that starts it says so.

        Raises:
            InputError: the model is not the planned one any more, or cannot be loaded; or fewer GPUs are seen
                than it takes.
        """
        if self._started is None:
            if self._settings.endpoint is None:
                devices.require(gpus(self._settings.engine_args), "engine.engine_args")
            models.require_planned(self._settings, self._planned, "engine model")
            model = models.local(self._settings)
            engine = self._open.enter_context(open_engine(self._settings, model, seeded))
            # While the engine loads.
            self._started = engine, Prompter(self._settings, model)
        return self._started

    def end(self) -> None:
        """End the engine, if it was started, so that its devices are free."""
        self._open.close()
        self._ended_starts, self._started = self.starts, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


class Generator:
    """The responses to one prompt: those that are stored, and the missing ones, generated."""

    def __init__(
        self,
        asking: Asking,
        prompt: FrozenPrompt,
        storage: Storage,
        config: RunConfig,
        engine_identity: str,
        session: Session,
    ) -> None:
        """Nothing is read or loaded yet.

        Args:
            asking: whose requests they are.
            prompt: as the plan froze it.
            storage: where responses are kept.
            config: engine, prompts and gates.
            engine_identity: of the planned model and its chat template.
            session: has the engine.
        """
        self._asking = asking
        self._prompt = prompt
        self._storage = storage
        self._config = config
        self._session = session
        self._dtype = numbers(config.engine)
        self._prefix = stored.prefix(asking.name, prompt, config, engine_identity, self._dtype)
        self._figures = Figures()
        #: Generated for each document, whenever that was, in the order of the documents' ids.
        self.tokens: dict[str, int] = {}

    def readings(self, requests: list[Request]) -> dict[str, Reading]:
        """What came of each request, in their order."""
        attempts = stored.load(self._storage, self._prefix, {request.id for request in requests})
        self._figures.reused = sum(map(len, attempts.values()))
        cases = {request.id: Case(request, attempts.get(request.id, [])) for request in requests}
        in_order = sorted(cases.values(), key=lambda case: case.request.id)
        missing = [case for case in in_order if self._wants_more(case)]
        log.info("%s requests=%d to_generate=%d", self._prompt.name, len(requests), len(missing))
        if missing:
            self._generate(missing)
            stored.join(self._storage, self._prefix, cases.keys())
        self._figures.cut = sum(case.cut for case in cases.values())
        for case in in_order:
            self._figures.neutralised.update(case.neutralised)
            spent = sum(response.completion.generated_tokens for response in case.attempts)
            document = case.request.document
            self.tokens[document] = self.tokens.get(document, 0) + spent
        return {request.id: cases[request.id].reading for request in requests}

    def figures(self) -> dict[str, Any]:
        """Counts and speed, for the manifest."""
        return self._figures.told() | ({"dtype": self._dtype} if self._dtype else {})

    def _wants_more(self, case: Case) -> bool:
        """Read the last attempt; whether there is to be another."""
        if not case.attempts:
            return True
        case.reading = self._read(case.request, case.attempts[-1])
        return isinstance(case.reading, Refusal) and len(case.attempts) < self._allowed(case.reading)

    def _allowed(self, refusal: Refusal) -> int:
        """Attempts of a request whose last one was refused: two a round, where a second can help."""
        settings = self._config.prompts
        a_round = 1 + settings.second_attempt
        last = a_round if refusal.error_class in _RETRIED else 1
        return a_round * settings.failed_round + last

    def _read(self, request: Request, response: Response) -> Reading:
        parsed = parse(response, self._prompt)
        if isinstance(parsed, Refusal):
            return parsed
        self._figures.repairs.update(parsed.repairs)
        return self._asking.read(self._config.gates, request, parsed)

    def _generate(self, cases: list[Case]) -> None:
        settings = self._config.engine
        self._figures.begin(*self._session.spent)
        with Writer(self._storage, self._prefix, settings.requests_per_flush) as writer:
            engine, prompter = self._session.start(any(case.request.seeded for case in cases))
            waiting = Waiting(self._asking, self._prompt, prompter, cases, settings.deterministic)
            under_way: dict[str, Case] = {}
            while waiting or under_way:
                while waiting and engine.room:
                    for case, job in waiting.take(engine.room):
                        under_way[job.id] = case
                        engine.submit(job)
                # While the engine works on what it has.
                waiting.prepare()
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
                        waiting.again(case)
                self._figures.tick(engine, len(cases) - len(waiting) - len(under_way), len(cases))
