"""What a prompt stage is: its requests, and what it makes of a response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from aitp_tasks.config import Gates
from aitp_tasks.generation import responses
from aitp_tasks.generation.responses import aliases
from aitp_tasks.generation.stored import Response
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.plan import FrozenPrompt
from aitp_tasks.records.run import Run

CUT_OFF, NOT_PARSED = "cut_off", "not_parsed"


@dataclass(frozen=True)
class Request:
    """One prompt to fill.

    ``id`` starts with the document's id, so that a document's requests are
    neighbours: they share a prefix that the engine computes once.

    Attributes:
        unseen: characters at the end of the argument ``text``, its marks made plain, that are not shown.
        seeded: whether what is drawn at random for it follows from its id.
    """

    id: str
    arguments: dict[str, str]
    unseen: int = 0
    seeded: bool = False

    @property
    def document(self) -> str:
        """The document's id."""
        return self.id.partition("-")[0]


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
        value: its members under our names.
        repairs: what had to be mended in the text; see ``generation.responses``.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...]
    response: Response


#: What came of each request, by its id.
Readings = Mapping[str, Reading]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How one prompt is asked.

    Attributes:
        name: of the prompt.
        read: output rows of a request and its parsed response.
        alternatives: of each number in a response, so many alternatives are asked for.
    """

    name: str
    read: Callable[[Gates, Request, Parsed], Reading]
    alternatives: int = 0


class Asks(Protocol):
    """Asks the engine of a part, which is started when it is needed, and once."""

    def __call__(self, asking: Asking, requests: list[Request]) -> tuple[Readings, dict[str, Any]]:
        """What came of each request, and figures of it."""

    def end(self) -> None:
        """End the engine, so that its devices are free."""


@dataclass(frozen=True, kw_only=True)
class PromptStage(Asking):
    """One of the three stages.

    Attributes:
        columns: schema of the output rows.
        requests: the requests of a part.
        select: what becomes of the readings of a part when all are there.
        choose: the same where more is asked for that, of the engine or of another model; and figures of it.
    """

    columns: pa.Schema
    requests: Callable[[Run, str], list[Request]]
    select: Callable[[Gates, Readings], Readings] = lambda _, readings: readings
    choose: Callable[[Run, Asks, Mapping[str, Request], Readings], tuple[Readings, dict[str, Any]]] = (
        lambda _run, _ask, _requests, readings: (readings, {})
    )


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
    value = {aliases.canonical(name): item for name, item in read.value.items()}
    return Parsed(value, read.repairs, response)
