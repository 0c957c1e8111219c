"""Gates of questions: which generated questions are not asked, decided without a model."""

import re
from collections.abc import Sequence

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import asking, foreign, material, mentions, similarity
from aitp_tasks.generation.gates.analysis import Text

#: Control characters but tab and line ends, lone surrogates, and what stands for undecodable bytes.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")


def closed(question: str, document: str, earlier: Sequence[str], settings: Gates) -> str | None:
    """Why a question is not asked, or None if it is.

    Takes any text and never fails; where a gate cannot tell, it is open.

    Args:
        question: the generated question.
        document: the text that it was generated from.
        earlier: questions of the same document that are asked.
        settings: limits of the gates.

    Returns:
        ``control_characters``, ``too_short``, ``not_a_question``, ``mentions_document``,
        ``lacks_material``, ``wrong_language`` or ``near_identical``: the first that applies.
    """
    text = Text(question)
    if _CONTROL.search(question):
        return "control_characters"
    if text.length < settings.min_question_words:
        return "too_short"
    if not asking.asks(text):
        return "not_a_question"
    if mentions.in_question(text):
        return "mentions_document"
    if material.lacks(text):
        return "lacks_material"
    if settings.question_language and foreign.question_is(text, document):
        return "wrong_language"
    limit = settings.max_question_similarity
    if any(similarity.near_identical(Text(other), text, limit) for other in earlier):
        return "near_identical"
    return None
