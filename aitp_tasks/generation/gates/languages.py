"""What the gates know of each language: one TOML file a language in the folder beside this module.

Every field may be left out. Lists of words are separated by white space;
patterns are searched, whatever their case, in a text's one-line normal form.

    stop_words           words that carry no content
    negations            words that turn a statement around; they are content
    question_words       words that open a question
    imperatives          words that open an instruction; ``explain-`` stands for all that begin so
    asks                 pattern of what asks anywhere in a text
    statement_openings   words that open a statement where one of the verbs follows
    verbs                finite forms; as the first word they open a question
    states               pattern of a statement, where words do not tell
    dangling             words that end no sentence
    documents, backgrounds, works, authors, pointers   words without which no mention is looked for
    mentions             patterns of speech about a document that is not there
    in_questions         such patterns that in an answer may be about the answer itself
    perhaps              such patterns that count only without what ``unless`` finds
    unless               pattern of a document, author or work that the text itself brings in
    referring            patterns of speech about what should stand before them: "the code above"
    announcing           patterns of speech about what should follow: "the following statements"
    picturing            patterns of speech about a picture or table: "in Figure 3"
    tongues              pattern of a question whose answer may be in another language than it
    commands             pattern of a clause that may be an instruction, though its verb is not in the list
    refusals             patterns of a refusal, searched in an answer's opening
    asking_back          pattern of an answer that is a question to whom has asked
    fragments            named parts: ``<name>`` in a pattern; the lists of words are such, too

Line ends in patterns mean nothing.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from aitp_tasks.texts import identification
from aitp_tasks.texts.words import mostly_unspaced

_FOLDER = Path(__file__).with_name("languages")
_NEVER = "(?!)"
#: Words of a text that are looked at to tell its language, and the least share of them that it must know.
_WORDS_SEEN = 200
_LEAST_SHARE = 0.15
_SPACED = ("de", "en", "es", "fr", "it", "nl", "pt", "ru")
_KANA = re.compile("[\u3040-\u30ff]")
_CYRILLIC = re.compile("[а-яё]{3}")
_HAN = re.compile("[\u4e00-\u9fff]")
_WORD_LISTS = (
    "stop_words",
    "negations",
    "question_words",
    "imperatives",
    "statement_openings",
    "verbs",
    "dangling",
    "documents",
    "backgrounds",
    "works",
    "authors",
    "pointers",
)
_MENTION_WORDS = ("documents", "backgrounds", "works", "authors", "pointers")
_PATTERNS = (
    "asks",
    "commands",
    "states",
    "mentions",
    "in_questions",
    "perhaps",
    "unless",
    "referring",
    "announcing",
    "picturing",
    "tongues",
    "refusals",
    "asking_back",
)


@dataclass(frozen=True)
class Language:
    """One language: its ISO 639-1 code, and the fields of its file."""

    code: str
    stop_words: frozenset[str]
    negations: frozenset[str]
    question_words: frozenset[str]
    imperatives: frozenset[str]
    imperative_beginnings: tuple[str, ...]
    statement_openings: frozenset[str]
    verbs: frozenset[str]
    dangling: frozenset[str]
    mention_words: frozenset[str]
    asks: re.Pattern[str]
    commands: re.Pattern[str]
    states: re.Pattern[str]
    mentions: re.Pattern[str]
    in_questions: re.Pattern[str]
    perhaps: re.Pattern[str]
    unless: re.Pattern[str]
    referring: re.Pattern[str]
    announcing: re.Pattern[str]
    picturing: re.Pattern[str]
    tongues: re.Pattern[str]
    refusals: re.Pattern[str]
    asking_back: re.Pattern[str]

    @cached_property
    def frequent_words(self) -> frozenset[str]:
        """Words that tell this language from others."""
        return self.stop_words | self.question_words | self.negations | self.verbs

    def share(self, words: frozenset[str]) -> float:
        """Share of some words, their case folded, that are frequent ones of this language."""
        return len(words & self.frequent_words) / max(len(words), 1)

    def is_imperative(self, word: str) -> bool:
        """Whether a word, its case folded, opens an instruction."""
        return word in self.imperatives or word.startswith(self.imperative_beginnings)

    def opens_request(self, word: str) -> bool:
        """Whether a word, its case folded, opens a question or an instruction."""
        return word in self.question_words or self.is_imperative(word)

    def has_content(self, word: str) -> bool:
        """Whether a word, its case folded, says what a text is about."""
        return word not in self.stop_words or word in self.question_words or word in self.negations


def of(words: Sequence[str]) -> Language | None:
    """The language that most of a text's frequent words are of; None where it has too few of any.

    Args:
        words: the text's words in order, their case folded; those at the beginning are looked at.
    """
    seen = words[:_WORDS_SEEN]
    if mostly_unspaced(seen):
        return _east_asian(seen)
    different = frozenset(seen)
    shares = {code: known()[code].share(different) for code in _SPACED}
    most = max(shares.values())
    if most < _LEAST_SHARE:
        return _russian(seen)
    likely = [code for code, share in shares.items() if share == most]
    return known()[likely[0] if len(likely) == 1 else _most_probable(likely, seen)]


@cache
def known() -> dict[str, Language]:
    """All languages, by their codes."""
    return {path.stem: _load(path) for path in sorted(_FOLDER.glob("*.toml"))}


def _most_probable(codes: list[str], words: Sequence[str]) -> str:
    """Of some languages that share the frequent words of a short text, the most probable one."""
    found = identification.probabilities(" ".join(words))
    return max(codes, key=lambda code: found[code])


def _russian(words: Sequence[str]) -> Language | None:
    """Russian, if the model takes Cyrillic words for it: its short sentences have no frequent words."""
    text = " ".join(words)
    if _CYRILLIC.search(text) and identification.most_likely(text)[0] == "ru":
        return known()["ru"]
    return None


def _east_asian(words: Sequence[str]) -> Language | None:
    """Japanese where there are kana, else Chinese where there are Chinese characters."""
    letters = "".join(words)
    if _KANA.search(letters):
        return known()["ja"]
    return known()["zh"] if _HAN.search(letters) else None


def _load(path: Path) -> Language:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    words = {name: frozenset(values.get(name, "").split()) for name in _WORD_LISTS}
    parts = {name: "|".join(map(re.escape, sorted(found))) for name, found in words.items()}
    parts |= values.get("fragments", {})
    patterns = {name: _pattern(values.get(name, _NEVER), parts) for name in _PATTERNS}
    beginnings = {word for word in words["imperatives"] if word.endswith("-")}
    return Language(
        code=path.stem,
        stop_words=words["stop_words"],
        negations=words["negations"],
        question_words=words["question_words"],
        imperatives=words["imperatives"] - beginnings,
        imperative_beginnings=tuple(sorted(word[:-1] for word in beginnings)),
        statement_openings=words["statement_openings"],
        verbs=words["verbs"],
        dangling=words["dangling"],
        mention_words=frozenset().union(*(words[name] for name in _MENTION_WORDS)),
        **patterns,
    )


def _pattern(written: str | list[str], parts: dict[str, str]) -> re.Pattern[str]:
    """One or several patterns, with the named parts filled in and line ends left out."""
    alternatives = [written] if isinstance(written, str) else written
    whole = "|".join(f"(?:{one})" for one in alternatives).replace("\n", "")
    filled = re.sub("<([a-z_]+)>", lambda found: f"(?:{parts[found[1]]})", whole)
    return re.compile(filled, re.IGNORECASE)
