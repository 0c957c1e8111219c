"""``assemble``: the line of dataset versions that a run adds to."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from aitp_tasks.config import licences
from aitp_tasks.config.section import Name, Section, Share

VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=220)]
PromptVersion = Annotated[str, Field(pattern=r"^(rewrite|score|answer)@.+$")]


LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
Words = Annotated[int, Field(ge=1)]
Licence = Annotated[str, AfterValidator(licences.require)]


class OrderKey(StrEnum):
    """What decides which pairs stay where there is not room for all."""

    RARITY = "rarity"
    SCORES = "scores"
    AGE = "age"


class PersonalKind(StrEnum):
    """Kinds of personal data that patterns see."""

    EMAIL = "email"
    PHONE = "phone"
    SSN = "ssn"
    CREDIT_CARD = "credit_card"
    IP_ADDRESS = "ip_address"
    DATE = "date"
    ZIP = "zip"


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
    max_text_similarity: Annotated[float, Field(ge=0.6, le=1)] = Field(
        1.0,
        title="Largest similarity of texts",
        description="Leave out new pairs that share more of their runs of three words (Jaccard) with an SFT "
        "example or another pair; 1: not compared.",
    )
    languages: Annotated[tuple[LanguageCode, ...], BeforeValidator(_listed)] = Field(
        (),
        title="Languages",
        description="Keep new pairs in these languages only (ISO 639-1, e.g. en); those that are surely in "
        "another are left out.",
    )
    min_question_words: Words | None = Field(
        None, title="Shortest question", description="In words; estimated in scripts without spaces."
    )
    max_question_words: Words | None = Field(None, title="Longest question", description="In words.")
    min_answer_words: Words | None = Field(None, title="Shortest answer", description="In words.")
    max_answer_words: Words | None = Field(None, title="Longest answer", description="In words.")
    max_same_opening: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        title="Largest share of one opening",
        description="Of a run's new pairs, so many may begin with the same four words, and one always may; "
        "1: any.",
    )
    max_pairs_per_source: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Pairs per source",
        description="Most new pairs of a run from documents of one source (difference.source_column).",
    )
    personal_data: bool = Field(
        False,
        title="Count personal data",
        description="Tell how much of each kind new pairs and the SFT set seem to hold.",
    )
    mask: Annotated[tuple[PersonalKind, ...], BeforeValidator(_listed)] = Field(
        (),
        title="Mask personal data",
        description="Kinds that are replaced in new pairs by their name in brackets, e.g. email, phone; SFT "
        "examples stay as they are.",
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
    validation_split: bool = Field(
        False,
        title="Validation split",
        description="Hand on half of what evaluate.held_out keeps out, never trained on, as the dataset's "
        "split for validations; the other half is for the proof alone.",
    )
    license: Licence | None = Field(
        None,
        title="Licence",
        description="Of the dataset, as its card has it: an identifier of the hub, e.g. cc-by-4.0; by "
        "default the card claims none.",
    )
    license_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)] | None = Field(
        None,
        title="Name of another licence",
        description="With license=other: what it is called, e.g. acme-data-1.0.",
    )
    license_link: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=1000)] | None = Field(
        None, title="Link to another licence", description="With license=other: where its text is."
    )
    card: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        title="Card template",
        description="A file of your own, or s3://bucket/file, for the card's text below its front matter, in "
        "Jinja: see docs/how-to/publish.md.",
    )

    @field_validator("order", "withdrawn_prompts", "languages", "mask")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: one is named twice: take it out")
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        for what in ("question", "answer"):
            low, high = (getattr(self, f"{bound}_{what}_words") for bound in ("min", "max"))
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"min_{what}_words={low} is more than max_{what}_words={high}: no pair would be left"
                )
        return self

    @model_validator(mode="after")
    def _names_another_licence(self) -> Self:
        given = [name for name in ("license_name", "license_link") if getattr(self, name) is not None]
        if given and self.license != licences.OTHER:
            raise ValueError(
                f"{' and '.join(given)} would say nothing with license={self.license}: they tell of "
                f"license={licences.OTHER}"
            )
        return self
