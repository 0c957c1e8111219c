"""``assemble``: the line of dataset versions that a run adds to."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from aitp_tasks.config.section import Name, Section, Share

VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=220)]
PromptVersion = Annotated[str, Field(pattern=r"^(rewrite|score|answer)@.+$")]


class OrderKey(StrEnum):
    """What decides which pairs stay where there is not room for all."""

    RARITY = "rarity"
    SCORES = "scores"
    AGE = "age"


class Marks(StrEnum):
    """What is done with marks of chat templates that stand in texts."""

    KEEP = "keep"
    ESCAPE = "escape"
    DROP = "drop"


def _listed(value: object) -> object:
    """One may be written without a list, several joined by commas."""
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


class Assemble(Section):
    """The dataset version that a run makes."""

    dataset: Name = Field("aitp", title="Dataset", description="Name of the line of versions.")
    base: VersionName = Field(
        "latest",
        title="Base",
        description="The version to build on: latest, none (begin anew), or a version's name.",
    )
    max_rewritten_share: Share = Field(
        0.1,
        title="Largest share of rewritten pairs",
        description="Of the whole dataset; the paper's best results have less than 10%.",
    )
    max_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95,
        title="Largest similarity of a new pair",
        description="Leave out pairs whose cosine to an SFT example or another pair is larger; 1: none.",
    )
    order: Annotated[tuple[OrderKey, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        (OrderKey.RARITY, OrderKey.SCORES, OrderKey.AGE),
        title="Order of pairs",
        description="Who stays where there is not room for all pairs, earlier and new: those whose place the "
        "other examples cover least (rarity), those of higher scores, the younger ones (age). Each key "
        "decides where those before it tie.",
    )
    withdrawn_prompts: Annotated[tuple[PromptVersion, ...], BeforeValidator(_listed)] = Field(
        (),
        title="Withdrawn prompts",
        description="Versions of prompts whose pairs leave the dataset, e.g. answer@1.0.",
    )

    marks: Marks = Field(
        Marks.KEEP,
        title="Marks of chat templates in texts",
        description="Such as <|im_end|>, which other trainers take for a turn's end: keep them; escape them "
        "by a backslash behind the first character; or drop examples and pairs that hold any.",
    )

    @field_validator("order", "withdrawn_prompts")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: one is named twice")
        return value
