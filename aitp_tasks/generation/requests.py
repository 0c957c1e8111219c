"""What a prompt stage is: its requests, and what it makes of a response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """

    id: str
    arguments: dict[str, str]

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
    read: Callable[[Gates, Request, Parsed], Reading]
    alternatives: int = 0
    select: Callable[[Gates, Mapping[str, Reading]], Mapping[str, Reading]] = lambda _, readings: readings


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
