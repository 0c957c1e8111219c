"""``prompts``: what the prompt stages ask, and how often."""

from pydantic import Field

from aitp_tasks.config.section import Section, Share


class Prompts(Section):
    """The three prompt stages."""

    folder: str = Field(
        title="Prompt folder", description="A folder, or a storage prefix, with the YAML prompts."
    )
    questions_per_document: int = Field(
        2, ge=1, le=8, title="Questions per document", description="Asked of each document; the paper's is 2."
    )
    answers_per_question: int = Field(
        1,
        ge=1,
        le=16,
        title="Answers per question",
        description="Sampled of each question; of those that pass the gates, the one that the base model "
        "finds likeliest is kept. More than 1 needs a temperature.",
    )
    sampling: dict[str, float] = Field(
        default_factory=dict,
        title="Sampling",
        description="Replaces values of the prompt files' own sampling, e.g. max_tokens or temperature.",
    )
    second_attempt: bool = Field(
        True,
        title="Second attempt",
        description="Ask once more: with more room for what was cut, at another temperature where it cannot "
        "be read.",
    )
    failed_round: int = Field(
        0,
        ge=0,
        le=100,
        title="Failed rows again",
        description="Raise it by one to generate once more what was quarantined, and nothing else.",
    )
    failure_budget: Share = Field(
        0.05,
        title="Failure budget",
        description="Share of a part's rows that may be quarantined before the task fails.",
    )
