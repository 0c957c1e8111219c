"""``gates``: which questions are asked and answered, and which answers are kept."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from aitp_tasks.config.section import Section, Share


class Verdict(StrEnum):
    """What a judge says of an answer and its document, the worst first."""

    CONTRADICTED = "contradicted"
    NOT_IN_DOCUMENT = "not_in_document"
    PARTLY = "partly"
    SUPPORTED = "supported"

    def is_below(self, least: "Verdict") -> bool:
        """Whether it is a worse one."""
        order = list(Verdict)
        return order.index(self) < order.index(least)


class Gates(Section):
    """Which questions are asked and go on to be answered, and which answers are kept."""

    min_quality: int = Field(6, ge=1, le=10, title="Least quality", description="Score from 1 to 10.")
    min_difficulty: int = Field(3, ge=1, le=10, title="Least difficulty", description="Score from 1 to 10.")
    allow_additional_information: bool = Field(
        False,
        title="Allow questions that need more information",
        description="Keep questions said to need information that they do not contain.",
    )
    keep_best: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        title="Share of the best",
        description="Of a part's scored questions, keep at most this share: those of the highest quality.",
    )
    min_question_words: int = Field(
        3, ge=1, title="Shortest question", description="In words; estimated in scripts without spaces."
    )
    max_question_similarity: Share = Field(
        0.85,
        title="Largest similarity of questions",
        description="Share of its words that a question has in common with an earlier one of its document.",
    )
    question_language: bool = Field(
        True,
        title="Questions in their document's language",
        description="Leave out questions that are surely in another language than their document.",
    )
    answer_language: bool = Field(
        True,
        title="Answers in their question's language",
        description="Leave out answers that are surely, or in part, in another language than their question.",
    )
    max_copied: Share = Field(
        0.8,
        title="Largest copied share of an answer",
        description="Of the answer's runs of eight words, those that are in the document word for word.",
    )
    min_support: Share = Field(
        0.01,
        title="Least support of an answer",
        description="Share of the answer's words with content that occur in the document or the question; "
        "less has nothing to do with either.",
    )
    min_faithfulness: Verdict | None = Field(
        None,
        title="Least faithfulness of an answer",
        description="Asks the engine of each answer whether its document supports it, and keeps those with "
        "this verdict or a better one; the worst keeps all, judged. Null asks nothing.",
    )
