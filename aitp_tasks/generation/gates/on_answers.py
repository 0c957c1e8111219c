"""Gates of answers: which generated answers are not kept, decided without a model."""

import re
import unicodedata

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import endings, foreign, mentions, overlap, refusing
from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.texts.words import runs

#: A loop is the same words so often in a row, and so many words in all.
_LOOP_REPEATS, _LOOP_WORDS = 5, 15
#: Words in a row that tell one place of a loop from another.
_LOOP_GRAM = 4
_LIST_NUMBER = re.compile(r"^[ \t]*\d{1,4}[.):]", re.MULTILINE)


def closed(answer: str, question: str, document: str, settings: Gates) -> str | None:
    """Why an answer is not kept, or None if it is.

    Takes any text and never fails; where a gate cannot tell, it is open.

    Args:
        answer: the generated answer, which the engine said was finished.
        question: what it answers.
        document: the text that both were generated from.
        settings: limits of the gates.

    Returns:
        ``empty``, ``refusal``, ``repeats_itself``, ``cut_off``, ``mentions_document``,
        ``wrong_language``, ``copies_document`` or ``unsupported``: the first that applies.
    """
    text, asked = Text(answer), Text(question)
    if _is_empty(text):
        return "empty"
    if refusing.refuses(text, asked):
        return "refusal"
    if _loops(text):
        return "repeats_itself"
    if endings.breaks_off(text):
        return "cut_off"
    if mentions.in_answer(text, asked):
        return "mentions_document"
    if settings.answer_language and foreign.answer_is(text, asked, document):
        return "wrong_language"
    if overlap.copied_share(text, document) > settings.max_copied:
        return "copies_document"
    if overlap.support(text, asked, document) < settings.min_support:
        return "unsupported"
    return None


def _is_empty(text: Text) -> bool:
    """Whether a text has neither letter, digit nor symbol."""
    return not any(
        character.isalnum() or unicodedata.category(character) in ("Sm", "Sc", "So") for character in text.raw
    )


def _loops(text: Text) -> bool:
    """Whether the same words follow on themselves again and again, list numbers aside; digits alone may."""
    latest: dict[tuple[str, ...], int] = {}
    period = length = 0
    for place, gram in enumerate(runs(Text(_LIST_NUMBER.sub("", text.raw)).words, _LOOP_GRAM)):
        distance = place - latest.get(gram, place)
        latest[gram] = place
        length = length + 1 if distance == period else 1
        period = 0 if all(map(str.isdigit, gram)) else distance
        covered = length + period + _LOOP_GRAM - 1
        if period and covered >= max(_LOOP_REPEATS * period, _LOOP_WORDS):
            return True
    return False
