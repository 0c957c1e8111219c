"""Whether a question contains the material that it speaks of: "the code above", "the following text"."""

import re

from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: So many words between quotation marks, or in front of or behind a new line, are a text of their own.
_QUOTED_WORDS, _LINE_WORDS = 8, 20
#: And so many after a colon or a new line, unless they ask something.
_FOLLOWING_WORDS = 3
#: So many words in the sentences before it are what a question refers to; or in the clauses of its own.
_EARLIER_WORDS, _CLAUSE_WORDS = 4, 8
_QUOTATION = re.compile('["“„«「]([^"“„«「”»」]{8,})["”“»」]')
#: Code, a formula, a quotation or alternatives.
_GIVEN = re.compile(
    "[=`$|{}\\[\\]\"“”„«»「」『』《》<>]|\\\\[(a-z]|\\d\\D+\\d|(?<!\\w)['‘]\\w|\\b[a-cA-C]\\)"
)
#: What is listed in the sentence itself: "which is larger, two thirds or three quarters".
_LISTED = re.compile(r"[,、，][^,.?!。]+(?:[,、，]|\b(?:or|and|oder|und|ou|et|y|o|e|of|en|и|или)\b|或|和|と)")
#: Something behind a colon, a dash or a new line.
_ADDED = re.compile(r"(?::| [-–—] |\n)\W*\w")
_SENTENCE_END = re.compile(r"[.!?;:。]\s|[.!?;:。]$|[。\n]")
_TABLE = re.compile(r"[|\t]|\n[^\n]*\n|!\[|<(?:img|svg|table)|[{\[][^\[\]{}]{0,200},[^\[\]{}]{0,200}[}\]]")


def contains(text: Text, language: Language) -> bool:
    """Whether a text contains another one, which it may speak of."""
    if any(Text(found).length >= _QUOTED_WORDS for found in _QUOTATION.findall(text.normal)):
        return True
    first_line, _, other_lines = text.normal.strip().partition("\n")
    if other_lines and Text(first_line).length >= _LINE_WORDS:
        return True
    return any(_is_material(rest, language) for rest in (other_lines, text.normal.partition(":")[2]))


def lacks(question: Text) -> bool:
    """Whether a question refers to something that it does not contain.

    Says no where the language is not among those of ``languages``.
    """
    language = question.language
    if language is None or contains(question, language):
        return False
    text = question.normal
    picture = language.picturing.search(text)
    if picture and not (_TABLE.search(text) or language.unless.search(question.flat)):
        return True
    if any(not _follows(text[found.end() :], language) for found in language.announcing.finditer(text)):
        return True
    found = language.referring.search(text)
    if found is None or _GIVEN.search(text) or _ADDED.search(text[found.end() :]):
        return False
    return not _precedes(text[: found.start()])


def _follows(rest: str, language: Language) -> bool:
    """Whether what is announced stands in the rest of the text."""
    if any(sign.search(rest) for sign in (_GIVEN, _ADDED, _LISTED)):
        return True
    _, *others = _SENTENCE_END.split(rest, maxsplit=1)
    return any(_is_material(other, language) for other in others)


def _precedes(beginning: str) -> bool:
    """Whether what is referred to may stand in the text before."""
    *sentences, clause = _SENTENCE_END.split(beginning)
    if sum(Text(sentence).length for sentence in sentences) >= _EARLIER_WORDS:
        return True
    *clauses, _ = re.split("[,、]", clause)
    return sum(Text(each).length for each in clauses) >= _CLAUSE_WORDS


def _is_material(rest: str, language: Language) -> bool:
    """Whether what follows a colon or a new line is a text, not the question itself."""
    text = Text(rest)
    if text.length < _FOLLOWING_WORDS or rest.rstrip().endswith("?"):
        return False
    return text.length >= _LINE_WORDS or not language.opens_request(text.words[0])
