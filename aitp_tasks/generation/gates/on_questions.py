"""Gates of questions: which generated questions are not asked, decided without a model."""

import re
from collections.abc import Sequence
from functools import lru_cache

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import asking, identification, languages, mentions, similarity
from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: Control characters but tab and line ends, lone surrogates, and what stands for undecodable bytes.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")

#: Shorter texts are not identified; in words, as ``Text.length`` counts them.
_IDENTIFIED_WORDS = 5
#: Least probability of a text's language, and greatest probability that it is in the other text's.
_CERTAIN, _EXCLUDED = 0.8, 0.02
_NO_LANGUAGE = "zxx"
#: Where so many of a question's words are frequent ones of its document's language, it is in that.
_PLAIN_SHARE = 0.3
#: A document's beginning is enough, and questions of one document follow each other.
_BEGINNING, _DOCUMENTS = 1000, 1024


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
        ``wrong_language`` or ``near_identical``: the first that applies.
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
    if settings.question_language and _in_other_language(text, document):
        return "wrong_language"
    limit = settings.max_question_similarity
    if any(similarity.near_identical(Text(other), text, limit) for other in earlier):
        return "near_identical"
    return None


def _in_other_language(question: Text, document: str) -> bool:
    """Whether a question is in another language than its document, beyond doubt.

    Short texts, code, formulas and languages that are hard to tell apart leave
    doubt; so does a foreign quotation after an opening in the document's language.
    """
    beginning = document[:_BEGINNING]
    likely = _likely_language_of(beginning)
    if question.length < _IDENTIFIED_WORDS or _is_plainly(question, likely):
        return False
    found, probability = identification.most_likely(question.raw)
    if found == _NO_LANGUAGE or probability < _CERTAIN or (likely is not None and found == likely.code):
        return False
    expected = _language_of(beginning)
    if expected is None or identification.probabilities(question.raw)[expected] > _EXCLUDED:
        return False
    return not _opens_in(question, expected) or _opens_in(question, found)


def _is_plainly(question: Text, language: Language | None) -> bool:
    """Whether a question's frequent words alone tell that it is in a language."""
    return (
        language is not None
        and question.language is language
        and language.share(frozenset(question.words)) >= _PLAIN_SHARE
    )


@lru_cache(maxsize=_DOCUMENTS)
def _likely_language_of(beginning: str) -> Language | None:
    """The language of a document's beginning as its frequent words tell it: quickly, roughly."""
    return Text(beginning).language


@lru_cache(maxsize=_DOCUMENTS)
def _language_of(beginning: str) -> str | None:
    """The language of a document's beginning as the model tells it; None where it is not certain."""
    if Text(beginning).length < _IDENTIFIED_WORDS:
        return None
    found, probability = identification.most_likely(beginning)
    return found if probability >= _CERTAIN and found != _NO_LANGUAGE else None


def _opens_in(question: Text, code: str) -> bool:
    """Whether the first word opens a question or an instruction in a language."""
    language = languages.known().get(code)
    return language is not None and language.opens_request(question.words[0])
