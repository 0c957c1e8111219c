"""``examples``: how the rows of the SFT set are read as examples."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from aitp_tasks.config.section import Section, Share


class Preference(StrEnum):
    """Which answers of a preference set are examples."""

    CHOSEN = "chosen"


class Formatting(StrEnum):
    """LLaMA-Factory's word for how a row holds its turns."""

    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"


class Columns(Section):
    """Which columns hold what, by the names of LLaMA-Factory's dataset_info.json."""

    prompt: str | None = Field(
        None, title="Prompt", description="Alpaca: the question; by default instruction."
    )
    query: str | None = Field(None, title="Query", description="Alpaca: what follows it; by default input.")
    response: str | None = Field(None, title="Response", description="Alpaca: the answer; by default output.")
    history: str | None = Field(
        None, title="History", description="Alpaca: pairs of turns before the question."
    )
    messages: str | None = Field(
        None, title="Messages", description="ShareGPT: the list of turns; by default conversations."
    )
    system: str | None = Field(None, title="System", description="The system turn.")
    tools: str | None = Field(None, title="Tools", description="Definitions of tools.")
    images: str | None = Field(None, title="Images", description="Rows that hold any are left out.")
    videos: str | None = Field(None, title="Videos", description="Rows that hold any are left out.")
    audios: str | None = Field(None, title="Audios", description="Rows that hold any are left out.")
    chosen: str | None = Field(None, title="Chosen", description="The preferred answer.")
    rejected: str | None = Field(None, title="Rejected", description="The other one.")
    kto_tag: str | None = Field(None, title="KTO tag", description="Whether the answer is a good one.")


class Tags(Section):
    """How turns are written, by the names of LLaMA-Factory's dataset_info.json."""

    role_tag: str | None = Field(None, title="Role", description="Key of a turn's role.")
    content_tag: str | None = Field(None, title="Content", description="Key of a turn's content.")
    user_tag: str | None = Field(None, title="User", description="The role that asks.")
    assistant_tag: str | None = Field(None, title="Assistant", description="The role that answers.")
    observation_tag: str | None = Field(None, title="Observation", description="The role of a tool's result.")
    function_tag: str | None = Field(None, title="Function", description="The role of a call of a tool.")
    system_tag: str | None = Field(None, title="System", description="The role of the system turn.")


class Mapping(Section):
    """An entry of LLaMA-Factory's dataset_info.json; what it does not name is not kept."""

    formatting: Formatting = Field(
        Formatting.ALPACA, title="Formatting", description="alpaca, or sharegpt for lists of turns."
    )
    columns: Columns = Field(default_factory=Columns, title="Columns", description="Which columns hold what.")
    tags: Tags = Field(default_factory=Tags, title="Tags", description="How turns are written.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        other = (
            ("messages",)
            if self.formatting is Formatting.ALPACA
            else ("prompt", "query", "response", "history")
        )
        for name in other:
            if getattr(self.columns, name) is not None:
                raise ValueError(
                    f"columns.{name} is no column of formatting={self.formatting.value}: drop it"
                )
        return self


class Examples(Section):
    """How the rows of the SFT set are read as examples."""

    preference: Preference | None = Field(
        None,
        title="Preference",
        description="chosen takes the preferred answer of each row of a preference set, and the true rows of "
        "a KTO set; without it such sets are refused.",
    )
    mapping: Mapping | None = Field(
        None,
        title="Mapping",
        description="Columns and tags by hand, as in LLaMA-Factory's dataset_info.json, where detection does "
        "not know the form.",
    )
    failure_budget: Share | None = Field(
        None,
        title="Failure budget",
        description="Of the SFT set; empty takes the run's failure_budget. Rows that hold no pair cost none.",
    )
