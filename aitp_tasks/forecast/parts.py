"""How many documents a part of the prompt stages holds: about an hour of work.

By what earlier runs of the line or its rehearsal have measured; where these do not know all three
stages, a number is assumed. A run settles it once, before the first part is written: what
is measured meanwhile, by whomever, changes nothing of a run that has begun.
"""

import logging

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aitp_tasks.config import RunConfig
from aitp_tasks.config.difference import DOCUMENTS_PER_PART
from aitp_tasks.errors import InputError
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.forecast.learned import learn, rehearsed
from aitp_tasks.records import generated
from aitp_tasks.records.run import Run

log = logging.getLogger(__name__)

#: Of all three stages together, without their starts.
PART_SECONDS = 3600.0
#: A stage holds the texts of its part: 500 MB of documents of 10 kB.
MOST_DOCUMENTS = 50_000
#: Apart from the manifests of stages, which are found by listing them.
_SETTLED = ("parts", "size.json")
_ASSUMED = "assumed: neither an earlier run nor a rehearsal tells how long a document takes"


class Size(BaseModel):
    """Of a part: ``documents`` that it holds, about, and ``why`` that many, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int = Field(ge=1)
    why: str


def size(config: RunConfig, measured: Measured) -> Size:
    """As many documents as are an hour of work, unless the configuration says how many."""
    given = config.difference.documents_per_part
    if given is not None:
        return Size(documents=given, why="as difference.documents_per_part says")
    each = seconds_of_a_document(config, measured)
    if each is None:
        return Size(documents=DOCUMENTS_PER_PART, why=_ASSUMED)
    at = f"at {each:.3g} s for a document in all three stages"
    if each * MOST_DOCUMENTS < PART_SECONDS:
        return Size(documents=MOST_DOCUMENTS, why=f"the most that a part may, less than an hour {at}")
    if each > PART_SECONDS:
        return Size(documents=1, why=f"the fewest, more than an hour {at}")
    return Size(documents=int(PART_SECONDS / each), why=f"about an hour, {at}")


def seconds_of_a_document(config: RunConfig, measured: Measured) -> float | None:
    """What the stages take for a document, its questions and their answers; None where that is unknown.

    A share that was not measured counts as large as it can be.
    """
    costs = [measured.costs.get(stage) for stage in generated.STAGES]
    rewrite, score, answer = (None if cost is None else cost.each for cost in costs)
    if rewrite is None or score is None or answer is None:
        return None
    questions = questions_of_a_document(config, measured)
    answers = questions * kept(measured) * config.prompts.answers_per_question
    return rewrite + questions * score + answers * answer


def questions_of_a_document(config: RunConfig, measured: Measured) -> float:
    """Questions that a document gives: as measured, or the most that it can."""
    return config.prompts.questions_per_document if measured.questions is None else measured.questions


def kept(measured: Measured) -> float:
    """Share of the questions that are answered: as measured, or all."""
    return 1.0 if measured.kept is None else measured.kept


def settled(run: Run) -> Size:
    """The size of this run's parts: what its first try has found holds for all others.

    Raises:
        InputError: the note of it cannot be read.
    """
    if run.config.difference.documents_per_part is not None:
        return size(run.config, Measured())
    key = run.key(*_SETTLED)
    if run.storage.find(key) is None:
        found = size(run.config, learn(run, rehearsed(run.storage, run.config.assemble.dataset)).measured)
        run.storage.write_if_absent(key, found.model_dump_json().encode())
    try:
        told = Size.model_validate_json(run.storage.read(key))
    except ValidationError:
        raise InputError(f"{run.storage.uri(key)} cannot be read: it was edited; delete it") from None
    log.info("parts documents=%d: %s", told.documents, told.why)
    return told
