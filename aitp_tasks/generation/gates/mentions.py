"""Speech about a document that the reader does not have: "according to the text", "the author says"."""

import re
from collections.abc import Iterator

from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: So many words between quotation marks, or in front of or behind a new line, are a text of their own.
_QUOTED_WORDS, _LINE_WORDS = 8, 20
#: And so many after a colon or a new line, unless they ask something.
_FOLLOWING_WORDS = 3
_QUOTATION = re.compile('["“„«「]([^"”“»」]{8,})["”“»」]')


def in_question(question: Text) -> bool:
    """Whether a question speaks of a document that it does not contain.

    Says no where the language is not among those of ``languages``.
    """
    language = question.language
    if language is None or not _has_mention_word(question, language):
        return False
    line = question.flat
    if not (language.in_questions.search(line) or any(_found(line, question, language))):
        return False
    return not _has_material(question, language)


def in_answer(answer: Text, question: Text) -> bool:
    """Whether an answer speaks of a document although its question neither does nor contains one.

    What is announced with a colon ("the following text:") is the answer's own.
    """
    language = answer.language
    if language is None or not _has_mention_word(answer, language) or _may_be_spoken_of(question, language):
        return False
    return any(
        ":" not in line[end:] for line in answer.normal.splitlines() for end in _found(line, answer, language)
    )


def _found(line: str, text: Text, language: Language) -> Iterator[int]:
    """Where in a line of a text each mention ends."""
    for match in language.mentions.finditer(line):
        yield match.end()
    for match in language.perhaps.finditer(line):
        if not language.unless.search(text.flat):
            yield match.end()


def _may_be_spoken_of(question: Text, language: Language) -> bool:
    """Whether a question speaks of a document in any way, or contains one."""
    return not language.mention_words.isdisjoint(question.words) or _has_material(question, language)


def _has_mention_word(text: Text, language: Language) -> bool:
    return not language.mention_words or not language.mention_words.isdisjoint(text.words)


def _has_material(text: Text, language: Language) -> bool:
    """Whether a text contains another one, which it may speak of."""
    if any(Text(found).length >= _QUOTED_WORDS for found in _QUOTATION.findall(text.normal)):
        return True
    first_line, _, other_lines = text.normal.strip().partition("\n")
    if other_lines and Text(first_line).length >= _LINE_WORDS:
        return True
    return any(_is_material(rest, language) for rest in (other_lines, text.normal.partition(":")[2]))


def _is_material(rest: str, language: Language) -> bool:
    """Whether what follows a colon or a new line is a text, not the question itself."""
    text = Text(rest)
    if text.length < _FOLLOWING_WORDS or rest.rstrip().endswith("?"):
        return False
    return text.length >= _LINE_WORDS or not language.opens_request(text.words[0])
