"""Whether a document is worth drawing: cheap signs of text that nobody has written to be read.

The rules and limits are those published for MassiveText (Rae et al. 2021, "Scaling Language
Models: Methods, Analysis & Insights from Training Gopher", table A1 and appendix A.1.1) and
for C4 (Raffel et al. 2020, section 2.2: placeholder text, lines of policies and scripts),
but for the certainty of the language, which is of ours. Words are those of ``texts.words``;
in scripts without spaces they are pieces of words, so that lengths of words say nothing.
"""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.texts import identification, words
from aitp_tasks.texts.hashes import Hasher, runs

_LEAST_WORDS, _MOST_WORDS = 50, 100_000
_LEAST_WORD_LENGTH, _MOST_WORD_LENGTH = 3, 10
_MOST_SYMBOLS = 0.1
_LEAST_LETTERS = 0.8
_MOST_BULLETS, _MOST_ELLIPSES = 0.9, 0.3
_MOST_REPEATED_LINES, _MOST_REPEATED_LINE_CHARACTERS = 0.3, 0.2
#: Share of the characters that lie in the commonest run of so many words.
_MOST_IN_TOP_RUN = {2: 0.20, 3: 0.18, 4: 0.16}
#: Share of the characters that lie in runs of so many words that have been there before.
_MOST_IN_REPEATED_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
#: Share of the lines that speak of the page, and how many at least.
_MOST_BOILERPLATE, _LEAST_BOILERPLATE = 0.2, 2
_LEAST_CERTAINTY = 0.5
_NO_LANGUAGE = "zxx"

_SYMBOL = re.compile(r"#|\.\.\.|…")
_BULLET = re.compile(r"[-*•‣◦▪●·–]\s*\S")
_ELLIPSIS = re.compile(r"(?:\.\.\.|…)$")
_PLACEHOLDER = re.compile(r"lorem ipsum", re.IGNORECASE)
_BOILERPLATE = re.compile(
    r"\b(?:terms of (?:use|service)|terms (?:and|&) conditions|privacy policy|cookie policy|use of cookies"
    r"|uses? cookies|all rights reserved|enable javascript|javascript is disabled|sign (?:in|up)|log ?in"
    r"|subscribe|read more|click here|share this|skip to content|follow us)\b",
    re.IGNORECASE,
)


class Document:
    """A text and what the rules look at, each computed once."""

    def __init__(self, text: str, hasher: Hasher) -> None:
        self.text = text
        self.words = words.split(words.normal(text))
        self.length = words.count(self.words)
        self.unspaced = words.mostly_unspaced(self.words)
        self.lines = [line for line in map(str.strip, text.splitlines()) if line]
        self.hashes = hasher.of_words([word.casefold() for word in self.words])
        self.characters = np.fromiter(map(len, self.words), np.int64, len(self.words))


def closed(text: str, hasher: Hasher) -> str | None:
    """Why a document is not drawn, or None if it may be.

    Takes any text and never fails.

    Args:
        text: of the document.
        hasher: shared by the documents that are looked at.

    Returns:
        The name of the first of ``RULES`` that applies.
    """
    document = Document(text, hasher)
    return next((name for name, applies in RULES.items() if applies(document)), None)


def _too_short(document: Document) -> bool:
    return document.length < _LEAST_WORDS


def _too_long(document: Document) -> bool:
    return document.length > _MOST_WORDS


def _placeholder(document: Document) -> bool:
    return bool(_PLACEHOLDER.search(document.text))


def _odd_words(document: Document) -> bool:
    """Whether words are too short or too long on average."""
    mean = float(document.characters.mean())
    return not document.unspaced and not _LEAST_WORD_LENGTH <= mean <= _MOST_WORD_LENGTH


def _symbols(document: Document) -> bool:
    """Whether there are many hashes and ellipses, or many words without a letter."""
    if len(_SYMBOL.findall(document.text)) > _MOST_SYMBOLS * document.length:
        return True
    # What stands between white space: a number or a mark is a word here.
    spaced = document.text.split()
    with_letters = sum(any(map(str.isalpha, word)) for word in spaced)
    return with_letters < _LEAST_LETTERS * len(spaced)


def _list(document: Document) -> bool:
    return _share(document, _BULLET.match) > _MOST_BULLETS


def _cut_lines(document: Document) -> bool:
    return _share(document, _ELLIPSIS.search) > _MOST_ELLIPSES


def _repeated_lines(document: Document) -> bool:
    again = [line for line, count in Counter(document.lines).items() for _ in range(count - 1)]
    characters = sum(map(len, document.lines))
    return (
        len(again) > _MOST_REPEATED_LINES * len(document.lines)
        or sum(map(len, again)) > _MOST_REPEATED_LINE_CHARACTERS * characters
    )


def _repeated_words(document: Document) -> bool:
    """Whether runs of words come again and again."""
    total = int(document.characters.sum())
    for length, most in _MOST_IN_TOP_RUN.items():
        if _in_top_run(document, length) > most * total:
            return True
    return any(
        _in_repeated_runs(document, length) > most * total for length, most in _MOST_IN_REPEATED_RUNS.items()
    )


def _boilerplate(document: Document) -> bool:
    found = sum(bool(_BOILERPLATE.search(line)) for line in document.lines)
    return found >= _LEAST_BOILERPLATE and found > _MOST_BOILERPLATE * len(document.lines)


def _uncertain_language(document: Document) -> bool:
    language, probability = identification.most_likely(document.text)
    return language != _NO_LANGUAGE and probability < _LEAST_CERTAINTY


#: In their order.
RULES: dict[str, Callable[[Document], bool]] = {
    "too_short": _too_short,
    "too_long": _too_long,
    "placeholder": _placeholder,
    "odd_words": _odd_words,
    "symbols": _symbols,
    "list": _list,
    "cut_lines": _cut_lines,
    "repeated_lines": _repeated_lines,
    "repeated_words": _repeated_words,
    "boilerplate": _boilerplate,
    "uncertain_language": _uncertain_language,
}


def _share(document: Document, applies: Callable[[str], object]) -> float:
    return sum(applies(line) is not None for line in document.lines) / len(document.lines)


def _in_top_run(document: Document, length: int) -> int:
    """Characters in the occurrences of the run of words that has most of them, if it is there twice."""
    grams = runs(document.hashes, length)
    if not len(grams):
        return 0
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    sizes = _sums(document.characters, length)[first]
    return int((sizes * counts)[counts > 1].max(initial=0))


def _in_repeated_runs(document: Document, length: int) -> int:
    """Characters in runs that have been there before; those in several of them count once."""
    grams = runs(document.hashes, length)
    _, first = np.unique(grams, return_index=True)
    again = np.ones(len(grams), bool)
    again[first] = False
    covered = np.zeros(len(document.hashes), bool)
    for place in range(length):
        covered[place : place + len(grams)] |= again
    return int(document.characters[covered].sum())


def _sums(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The sum of each so many values in a row."""
    total = np.concatenate([[0], np.cumsum(values)])
    sums: NDArray[np.int64] = total[length:] - total[:-length]
    return sums
