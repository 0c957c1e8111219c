"""Whether a text asks or tells to do something, as far as its marks and words show."""

import re

from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language
from aitp_tasks.texts import identification
from aitp_tasks.texts.words import split

#: Of Latin, full-width, Greek, Armenian, Arabic, Ethiopic, Limbu, Coptic, Vai and Bamum writing.
_QUESTION_MARK = re.compile(
    "[?？\u037e\u055e\u061f\u1367\u1945\u203d\u2047-\u2049\u2cfa\u2cfb\u2e2e\ua60f\ua6f7]"
)
_SENTENCE = re.compile(r"[^.!:;…\n]+")
_CLAUSE = re.compile(r'[^,("“„«—–]+')
_FULL_STOP = re.compile("[^.…]{3}[.。!]['\"”」)]*$")
#: How many words after a statement's opening its verb is looked for, and after any other word.
_REACH, _SHORT_REACH = 12, 2


def asks(text: Text) -> bool:
    """Whether a text is a question or an instruction, or may be one.

    It is none where it has no question mark, no clause opens with a question
    word or what may be an imperative, and it is a sentence, by its full stop or
    because it opens as statements do. Where the language is not among those of
    ``languages``, it may be one.
    """
    if _QUESTION_MARK.search(text.raw):
        return True
    language = text.language
    if language is None or language.asks.search(text.flat):
        return True
    if _opens_request(text, language):
        return True
    return not (_opens_statement(text, language) or _is_sentence(text, language))


def _is_sentence(text: Text, language: Language) -> bool:
    """Whether a text ends as sentences do, and its language, whose verbs are known, is not excluded."""
    return bool(_FULL_STOP.search(text.flat)) and identification.may_be(text.raw, language.code)


def _opens_request(text: Text, language: Language) -> bool:
    """Whether any clause opens as a question or an instruction does."""
    for sentence in _SENTENCE.findall(text.normal.casefold()):
        for number, clause in enumerate(_CLAUSE.findall(sentence)):
            first, second = [*split(clause)[:2], "", ""][:2]
            verb_follows = second in language.verbs
            if first in language.question_words and (number == 0 or verb_follows):
                return True  # within a sentence, "which visit" is a relative clause
            if language.commands.search(" ".join(clause.split())):
                return True
            if number == 0 and first in language.verbs:
                return True
            if language.is_imperative(first) and not verb_follows:
                return True  # "design is" is a noun
    return False


def _opens_statement(text: Text, language: Language) -> bool:
    """Whether a text opens as statements do: a subject and its verb."""
    if language.states.search(text.flat):
        return True
    first, *others = text.words
    reach = _REACH if first in language.statement_openings else _SHORT_REACH
    return not language.verbs.isdisjoint(others[:reach])
