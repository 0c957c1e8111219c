"""What an answer has in common with its document: copied passages, and words that support it."""

import re
from functools import lru_cache

from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.texts.words import is_unspaced, mostly_unspaced, runs, stem

#: Words in a row that are compared; of scripts without spaces, pieces of words.
_RUN, _UNSPACED_RUN = 8, 16
#: Shorter answers may be all quotation, or have too few words for a share to mean anything.
_LEAST_RUNS, _LEAST_CONTENT = 20, 18
#: A document and question of fewer different words support no answer of that length.
_LEAST_KNOWN = 30
#: What answers without saying what it answers: code, and the items of a list.
_WITHOUT_SUBJECT = re.compile(
    r"```.*?(?:```|\Z)|^[ \t]*(?:[-*•+]|\d{1,3}[.)]) [^\n]*", re.DOTALL | re.MULTILINE
)
#: How many documents are kept taken apart: several answers to one follow each other.
_DOCUMENTS = 4


def copied_share(answer: Text, document: str) -> float:
    """Share of an answer's runs of words that are in the document; 0 for a short answer."""
    length = _UNSPACED_RUN if mostly_unspaced(answer.words) else _RUN
    found = list(runs(answer.words, length))
    if len(found) < _LEAST_RUNS:
        return 0.0
    known = _document_runs(document, length)
    return sum(run in known for run in found) / len(found)


def support(answer: Text, question: Text, document: str) -> float:
    """Share of an answer's words with content that are in document or question, inflections aside.

    Tells an answer to something else, not one from the model's own knowledge, which
    is still about the question. 1 for a short answer, and where document and question
    are short. Code and lists are left out. Where the language is not known, all words
    count.
    """
    prose = Text(_WITHOUT_SUBJECT.sub(" ", answer.raw))
    language = prose.language
    said = {
        piece
        for word, piece in zip(prose.words, _pieces(prose.words), strict=True)
        if language is None or language.has_content(word)
    }
    known = _document_pieces(document) | set(_pieces(question.words))
    if len(said) < _LEAST_CONTENT or len(known) < _LEAST_KNOWN:
        return 1.0
    return len(said & known) / len(said)


def _pieces(words: list[str]) -> list[str]:
    """Of each word what is compared: its stem, or in scripts without spaces the word and the next one."""
    return [
        word + following if is_unspaced(word) else stem(word)
        for word, following in zip(words, [*words[1:], ""], strict=False)
    ]


@lru_cache(maxsize=_DOCUMENTS)
def _document_runs(document: str, length: int) -> frozenset[tuple[str, ...]]:
    return frozenset(runs(Text(document).words, length))


@lru_cache(maxsize=_DOCUMENTS)
def _document_pieces(document: str) -> frozenset[str]:
    return frozenset(_pieces(Text(document).words))
