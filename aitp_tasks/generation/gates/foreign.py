"""Whether a text is in another language than the one that it belongs to, beyond doubt.

Short texts, code, formulas and languages that are hard to tell apart leave doubt;
so does a foreign quotation.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from aitp_tasks.generation.gates import languages
from aitp_tasks.generation.gates.analysis import Text
from aitp_tasks.generation.gates.languages import Language
from aitp_tasks.texts import identification

#: Shorter questions and shorter answers are not identified; in words, as ``Text.length`` counts them.
_IDENTIFIED_WORDS, _ANSWERED_WORDS = 5, 8
#: Least probability of a text's language, alone and where its frequent words say the same.
_CERTAIN, _CONFIRMED = 0.8, 0.5
_NO_LANGUAGE = "zxx"
#: Where so many of a text's frequent words are frequent ones of the other's language, it is in that.
_PLAIN_SHARE = 0.3
#: A document's beginning is enough, and questions of one document follow each other.
_BEGINNING, _DOCUMENTS = 1000, 1024
#: Words of an answer that are looked at together, at least: it may go on in another language than it begins.
_PIECE = 20
#: More of an answer is not looked at.
_SEEN = 8000
#: What is in no language: code, formulas, addresses; and what may be in any: quotations.
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|https?://\S+"
    '|"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|»[^«]*«|「[^」]*」|『[^』]*』|《[^》]*》|^>[^\n]*',
    re.DOTALL | re.MULTILINE,
)
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]*")
#: In languages that have no file: "translate", and English, into which most is translated.
_TRANSLATED = re.compile(
    "ترجم|نجليزي|번역|영어|अनुवाद|अंग्रेज|แปล|อังกฤษ|תרגם|dịch|tiếng|çevir|ingiliz|tłumacz|angielsk"
    "|översätt|oversæt|oversett|engelsk",
    re.IGNORECASE,
)


def question_is(question: Text, document: str) -> bool:
    """Whether a question is in another language than its document."""
    beginning = document[:_BEGINNING]
    likely = _likely_language_of(beginning)
    if question.length < _IDENTIFIED_WORDS or _is_plainly(question, likely):
        return False
    found = _certain_language(question)
    if found is None or (likely is not None and found == likely.code):
        return False
    expected = _language_of(beginning)
    if expected in (found, None) or identification.may_be(question.raw, expected):
        return False
    return not _opens_in(question, expected) or _opens_in(question, found)


def answer_is(answer: Text, question: Text, document: str) -> bool:
    """Whether an answer, or a part of it, is in another language than its question, which asks for none."""
    expected = _expected_of(question, document)
    if expected is None or _may_be_in_any(question):
        return False
    return any(_is_in_other_language(piece, expected) for piece in _pieces(answer))


def _is_in_other_language(piece: Text, expected: str) -> bool:
    """Whether a piece of an answer is in another language, by its words as well: names alone tell none."""
    language = languages.known().get(expected)
    if piece.length < _ANSWERED_WORDS or _is_plainly(piece, language):
        return False
    found = _other_language(piece, expected)
    if found is None:
        return False
    words = frozenset(piece.words)
    of_expected = language.share(words) if language else 0.0
    of_found = languages.known()[found].share(words) if found in languages.known() else 1.0
    return of_expected < min(of_found, _PLAIN_SHARE / 2) or 2 * of_expected <= of_found < 1


def _other_language(text: Text, expected: str) -> str | None:
    """The language of a text, if the model is certain of it and excludes the expected one."""
    found = _certain_language(text)
    if found in (expected, None) or identification.may_be(text.raw, expected):
        return None
    return found


def _pieces(answer: Text) -> Iterator[Text]:
    """The prose of an answer by runs of sentences, each of at least so many words but for the last."""
    piece, length = "", 0
    for sentence in _SENTENCE.findall(_NO_PROSE.sub(" ", answer.raw[:_SEEN])):
        piece, length = piece + sentence, length + Text(sentence).length
        if length >= _PIECE:
            yield Text(piece)
            piece, length = "", 0
    yield Text(piece)


def _may_be_in_any(question: Text) -> bool:
    """Whether a question asks for a translation, a name or a quotation."""
    language = question.language
    pattern = _TRANSLATED if language is None else language.tongues
    return bool(pattern.search(question.normal))


def _expected_of(question: Text, document: str) -> str | None:
    """The language that an answer should have: its question's, or the document's where that is short."""
    asked = Text(_NO_PROSE.sub(" ", question.raw[:_BEGINNING]))
    likely = asked.language.code if asked.language else None
    found = _certain_language(asked) if asked.length >= _IDENTIFIED_WORDS else None
    expected = found or _language_of(document[:_BEGINNING])
    return expected if likely in (expected, None) else None


def _certain_language(text: Text) -> str | None:
    """The language that the model is certain of, or finds likely and the text's frequent words confirm."""
    found, probability = identification.most_likely(text.raw)
    confirmed = text.language is not None and text.language.code == found
    return found if found != _NO_LANGUAGE and probability >= (_CONFIRMED if confirmed else _CERTAIN) else None


def _is_plainly(text: Text, language: Language | None) -> bool:
    """Whether a text's frequent words alone tell that it is in a language."""
    return (
        language is not None
        and text.language is language
        and language.share(frozenset(text.words)) >= _PLAIN_SHARE
    )


@lru_cache(maxsize=_DOCUMENTS)
def _likely_language_of(beginning: str) -> Language | None:
    """The language of a document's beginning as its frequent words tell it: quickly, roughly."""
    return Text(beginning).language


@lru_cache(maxsize=_DOCUMENTS)
def _language_of(beginning: str) -> str | None:
    """The language of a document's beginning as the model tells it; None where it is not certain."""
    text = Text(beginning)
    return _certain_language(text) if text.length >= _IDENTIFIED_WORDS else None


def _opens_in(question: Text, code: str) -> bool:
    """Whether the first word opens a question or an instruction in a language."""
    language = languages.known().get(code)
    return language is not None and language.opens_request(question.words[0])
