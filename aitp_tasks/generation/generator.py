"""The responses to a stage's requests: those that are stored, and the missing ones, generated.

A response is stored under ``generations/<stage>/<fingerprint>/`` within a second
after it is finished, apart from what is read out of it. The fingerprint covers
model, engine arguments, prompt, schema, sampling and lengths, the request's id its
content; so a part that is run again, in whatever run, generates what is missing and
nothing else. A response that cannot be used is asked for once more.
"""

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.generation import stored
from aitp_tasks.generation.engine import Engine, Job, dtype, open_engine
from aitp_tasks.generation.engine.prompting import Prompter, Rendered
from aitp_tasks.generation.figures import Figures
from aitp_tasks.generation.requests import CUT_OFF, NOT_PARSED, PromptStage, Reading, Request, parse
from aitp_tasks.generation.stored import Response, Writer
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import models
from aitp_tasks.records import digest
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.storage import Storage

log = logging.getLogger(__name__)

#: Classes of which a second attempt may give something else.
_RETRIED = (CUT_OFF, NOT_PARSED)
#: Times the room of a response that was cut: what it gets if it can, and what makes a difference by itself.
_MORE_ROOM, _ENOUGH_ROOM = 2, 1.5
_RETRY_TEMPERATURE = 0.7
#: Of a digest, for a seed.
_SEED_DIGITS = 8


class Generator:
    """The responses of one stage: those that are stored, and the missing ones, generated."""

    def __init__(
        self,
        stage: PromptStage,
        prompt: FrozenPrompt,
        storage: Storage,
        config: RunConfig,
        engine_identity: str,
    ) -> None:
        """Nothing is read or loaded yet.

        Args:
            stage: whose requests they are.
            prompt: as the plan froze it.
            storage: where responses are kept.
            config: engine, prompts and gates.
            engine_identity: of the planned model and its chat template.
        """
        self._stage = stage
        self._prompt = prompt
        self._storage = storage
        self._config = config
        self._engine_identity = engine_identity
        self._dtype = dtype(config.engine)
        self._prefix = stored.prefix(stage.name, prompt, config, engine_identity, self._dtype)
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
        log.info("%s requests=%d to_generate=%d", self._prompt.name, len(requests), len(waiting))
        if waiting:
            self._generate(waiting)
            stored.join(self._storage, self._prefix, cases.keys())
        self._figures.cut = sum(case.cut for case in cases.values())
        return {request.id: cases[request.id].reading for request in requests}

    def figures(self) -> dict[str, Any]:
        """Counts and speed, for the manifest."""
        return self._figures.told() | ({"dtype": self._dtype} if self._dtype else {})

    def _wants_more(self, case: "_Case") -> bool:
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
        return self._stage.read(self._config.gates, request, parsed)

    def _generate(self, waiting: "deque[_Case]") -> None:
        settings = self._config.engine
        models.require_planned(settings, self._engine_identity, "engine model")
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
        sampling = dict(self._prompt.sampling)
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
                schema=self._prompt.output_schema,
                sampling=self._seeded(_varied(sampling, case, room), case),
                alternatives=self._stage.alternatives,
            )
        )
        return True

    def _seeded(self, sampling: dict[str, Any], case: "_Case") -> dict[str, Any]:
        """Where nothing else may decide it, what is drawn at random follows from the request."""
        if not self._config.engine.deterministic:
            return sampling
        seed = int(digest.of_value([case.request.id, len(case.attempts)])[:_SEED_DIGITS], 16)
        return sampling | {"seed": seed}

    def _rendered(self, prompter: Prompter, case: "_Case") -> Rendered:
        """A response that was cut gets its room from the document, where that leaves some of it."""
        room = int(self._prompt.sampling["max_tokens"])
        if case.wants_room:
            with suppress(ValueError):
                more = min(_MORE_ROOM * room, (prompter.context + room) // 2)
                return prompter.render(self._prompt, case.request.arguments, more)
        return prompter.render(self._prompt, case.request.arguments, room)


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
