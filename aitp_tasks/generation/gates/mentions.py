"""Speech about a document that the reader does not have: "according to the text", "the author says"."""

import re
from collections.abc import Iterator

from aitp_tasks.generation.gates import material
from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language

#: A few words that are spoken of, not spoken.
_SAID = re.compile("\"[^\"]{1,60}\"|“[^”]{1,60}”|(?<!\\w)['‘][^'’]{1,60}['’](?!\\w)")


def in_question(question: Text) -> bool:
    """Whether a question speaks of a document that it does not contain.

    Says no where the language is not among those of ``languages``.
    """
    language = question.language
    if language is None or not _has_mention_word(question, language):
        return False
    line = _SAID.sub('""', question.flat)
    if not (language.in_questions.search(line) or any(_found(line, question, language))):
        return False
    return not material.contains(question, language)


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
    return not language.mention_words.isdisjoint(question.words) or material.contains(question, language)


def _has_mention_word(text: Text, language: Language) -> bool:
    return not language.mention_words or not language.mention_words.isdisjoint(text.words)
