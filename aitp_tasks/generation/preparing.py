"""The requests that wait for an engine, the next of them filled and cut already.

They are prepared in batches, which costs much less than one at a time, and while
the engine works on what it has. A second attempt is prepared when it can be handed
in: it goes before all others, while the engine still holds its prompt.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aitp_tasks.generation.engine import Job
from aitp_tasks.generation.engine.prompting import Prompter, Rendered
from aitp_tasks.generation.requests import CUT_OFF, Asking, Reading, Request
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest
from aitp_tasks.records.plan import FrozenPrompt

#: Tokens that are held ready at most, but one prompt always is; a batch takes less than a second.
_TOKENS_READY = 2**19
#: Times the room of a response that was cut: what it gets if it can, and what makes a difference by itself.
_MORE_ROOM, _ENOUGH_ROOM = 2, 1.5
_RETRY_TEMPERATURE = 0.7


@dataclass
class Case:
    """A request, its attempts, and what the last of them has given."""

    request: Request
    attempts: list[Response]
    reading: Reading = field(default_factory=list)
    #: Of the document, left out of the prompt that is under way.
    cut_characters: int = 0
    #: How often each mark stood in what the prompt was filled with; none where the response was there.
    neutralised: Mapping[str, int] = field(default_factory=dict)

    @property
    def wants_room(self) -> bool:
        """Whether the first attempt was cut by its length."""
        cut = isinstance(self.reading, Refusal) and self.reading.error_class == CUT_OFF
        return cut and len(self.attempts) == 1

    @property
    def cut(self) -> bool:
        """Whether the last attempt has not seen all of the document."""
        return bool(self.attempts and self.attempts[-1].cut_characters)


class Waiting:
    """Cases that no engine works on yet.

    What can never be served is not handed out: it is a refusal in the case's reading.
    """

    def __init__(
        self,
        asking: Asking,
        prompt: FrozenPrompt,
        prompter: Prompter,
        cases: Iterable[Case],
        seeded: bool = False,
    ) -> None:
        """
        Args:
            asking: whose requests they are.
            prompt: that is asked.
            prompter: fills and cuts it.
            cases: in the order in which they are handed out.
            seeded: what is drawn at random for any request follows from it.
        """
        self._asking = asking
        self._prompt = prompt
        self._prompter = prompter
        self._seeded = seeded
        self._cases = deque(cases)
        self._again: list[Case] = []
        self._ready: deque[tuple[Case, Job]] = deque()
        self._batch = max(_TOKENS_READY // prompter.context, 1)

    def __len__(self) -> int:
        return len(self._cases) + len(self._again) + len(self._ready)

    def again(self, case: Case) -> None:
        """Hand out a case once more, as the next one."""
        self._again.append(case)

    def take(self, room: int) -> list[tuple[Case, Job]]:
        """The next ones, at most ``room``; maybe none, where none of a batch can be served.

        Raises:
            InputError: the chat template refuses a prompt.
        """
        if self._again:
            last = [self._again.pop() for _ in range(min(room, len(self._again)))]
            return self._prepared(last)
        self.prepare()
        return [self._ready.popleft() for _ in range(min(room, len(self._ready)))]

    def prepare(self) -> None:
        """Have a batch ready, if there is one.

        Raises:
            InputError: the chat template refuses a prompt.
        """
        if self._cases and not self._ready:
            batch = [self._cases.popleft() for _ in range(min(self._batch, len(self._cases)))]
            self._ready.extend(self._prepared(batch))

    def _prepared(self, cases: list[Case]) -> list[tuple[Case, Job]]:
        """Those of them that can be served, with their jobs."""
        jobs = []
        for case, rendered in zip(cases, self._rendered(cases), strict=True):
            if isinstance(rendered, ValueError):
                case.reading = Refusal("not_servable", str(rendered))
            else:
                case.cut_characters = rendered.cut_characters
                case.neutralised = rendered.neutralised
                jobs.append((case, self._job(case, rendered)))
        return jobs

    def _rendered(self, cases: list[Case]) -> list[Rendered | ValueError]:
        """A response that was cut gets its room from the document, where that leaves some of it."""
        plain = int(self._prompt.sampling["max_tokens"])
        more = min(_MORE_ROOM * plain, (self._prompter.context + plain) // 2)
        found = self._filled(cases, [more if case.wants_room else plain for case in cases])
        refused = [
            place
            for place, case in enumerate(cases)
            if case.wants_room and isinstance(found[place], ValueError)
        ]
        if refused:
            second = self._filled([cases[place] for place in refused], [plain] * len(refused))
            for place, rendered in zip(refused, second, strict=True):
                found[place] = rendered
        return found

    def _filled(self, cases: list[Case], rooms: list[int]) -> list[Rendered | ValueError]:
        arguments = (shown(case.request, self._prompter) for case in cases)
        return self._prompter.render_all(self._prompt, list(zip(arguments, rooms, strict=True)))

    def _job(self, case: Case, rendered: Rendered) -> Job:
        room = self._prompter.context - len(rendered.token_ids)
        sampling = _varied(dict(self._prompt.sampling), case, room)
        if self._seeded or case.request.seeded:
            sampling["seed"] = _seed(case)
        return Job(
            id=case.request.id,
            content=rendered.content,
            token_ids=rendered.token_ids,
            schema=self._prompt.output_schema,
            sampling=sampling,
            alternatives=self._asking.alternatives,
        )


def shown(request: Request, prompter: Prompter) -> dict[str, str]:
    """The arguments of a request, its text as far as it is to be seen."""
    if not request.unseen:
        return request.arguments
    return {**request.arguments, "text": prompter.beginning(request.arguments["text"], request.unseen)}


def _seed(case: Case) -> int:
    """Of 32 bits, for one attempt at one request."""
    return int(digest.of_value([case.request.id, len(case.attempts)])[:8], 16)


def _varied(sampling: dict[str, Any], case: Case, room: int) -> dict[str, Any]:
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
