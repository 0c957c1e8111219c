"""``contamination``: evaluation sets that nothing in the dataset may give away."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from aitp_tasks.config.section import Section, Share


class SftHits(StrEnum):
    """What becomes of SFT examples that hold an evaluation item."""

    REPORT = "report"
    DROP = "drop"


class EvaluationSet(Section):
    """Files of one evaluation set."""

    path: str = Field(
        title="Path",
        description="Key of a file, or prefix of several, below the root.",
        pattern=r"^[^/:\s][^:]*$",
        max_length=500,
    )
    question: str | None = Field(
        None,
        min_length=1,
        title="Question",
        description="Path of the question in a row, where the layout is none that is known.",
    )
    answer: str | None = Field(None, min_length=1, title="Answer", description="Path of the answer.")


def _named(value: Any) -> Any:
    """A set may be written as its path alone, and one set without a list."""
    sets = [value] if isinstance(value, str | dict) else value
    if not isinstance(sets, list | tuple):
        return sets
    return [{"path": one} if isinstance(one, str) else one for one in sets]


class Contamination(Section):
    """Evaluation sets, and how much of them a pair or example may hold."""

    sets: Annotated[tuple[EvaluationSet, ...], BeforeValidator(_named)] = Field(
        (),
        title="Evaluation sets",
        description="Paths below the root, such as evaluation/gsm8k, or {path, question, answer} where the "
        "layout is not that of a common benchmark. New and earlier pairs that hold an item are left out.",
    )
    ngram: int = Field(
        13,
        ge=8,
        le=13,
        title="Words in a row",
        description="An item is found by a run of so many words; a shorter one as a whole.",
    )
    min_share: Share = Field(
        0.0,
        title="Least share of an item",
        description="Of the words of its question or answer, so many must be there; 0: one run is enough.",
    )
    max_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        title="Largest similarity to an item",
        description="Of the vectors of a pair and an item, as texts of SFT examples; 1: not compared.",
    )
    sft: SftHits = Field(
        SftHits.REPORT,
        title="SFT examples that hold an item",
        description="report keeps them and says so, drop leaves them out.",
    )

    @field_validator("sets")
    @classmethod
    def _each_once(cls, value: tuple[EvaluationSet, ...]) -> tuple[EvaluationSet, ...]:
        paths = [one.path.rstrip("/") for one in value]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice: take one out")
        return value

    @model_validator(mode="after")
    def _has_sets(self) -> Self:
        if self.sft is SftHits.DROP and not self.sets:
            raise ValueError("sft=drop leaves nothing out where sets is empty: name evaluation sets")
        return self
