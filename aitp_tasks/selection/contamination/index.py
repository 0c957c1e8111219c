"""The n-grams of evaluation items, and which of them texts hold.

An item has a question and an answer, and is looked for in each text of a row (a pair's
question and its answer, an example's turns). A passage of ``n`` words or more is found by
any run of ``n`` of its words, a shorter one as a whole: a question from ``LEAST_QUESTION``
words on, an answer from ``LEAST_ANSWER`` on, since fewer are said by chance; a question of
fewer words is found where it is all that a text says. Where question and answer are both
shorter than ``n``, the row must say both: "which of the following is true" is asked of all
things. What more than ``COMMON`` different passages say tells none of them from others, and
finds none that has runs of its own.

The n-grams of a million words take some 40 MB.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.texts import plain
from aitp_tasks.texts.hashes import Hasher, Hashes, runs

#: Words of the shortest question that is looked for within a text, and of the shortest answer.
LEAST_QUESTION, LEAST_ANSWER = 5, 8
#: An n-gram of more passages than this is common.
COMMON = 10
#: Of the filter before the search, by n-grams: false alarms are one in so many.
_FILTER = 16
_EXCERPT_WORDS = 20


class Rule(StrEnum):
    """How a text was found to hold an item."""

    NGRAM = "ngram"
    WHOLE = "whole"


@dataclass(frozen=True)
class Span:
    """Words ``start`` to ``end`` (exclusive) of the text number ``text`` of a row."""

    text: int
    start: int
    end: int


@dataclass(frozen=True)
class Hit:
    """An item that a row holds, in whole or in part.

    Attributes:
        item: its number.
        rule: how it was found.
        share_of_item: of the words of its question or its answer, whichever is more, those that are there.
        share_of_text: of the words of the row's texts, whichever is more, those that are the item's.
        spans: where in the row.
        excerpt: the beginning of the longest of these, in words as they are compared.
    """

    item: int
    rule: Rule
    share_of_item: float
    share_of_text: float
    spans: tuple[Span, ...]
    excerpt: str


class Index:
    """The passages of all items of some evaluation sets."""

    def __init__(self, items: Iterable[Item], n: int) -> None:
        """Take in the items; ``n`` is the number of words in a run."""
        self.n = n
        self._hasher = Hasher()
        # Equal passages are one, which many items may have.
        numbers: dict[bytes, int] = {}
        self._passages: list[Hashes] = []
        self._owners: list[list[int]] = []
        self._exact: dict[bytes, int] = {}
        #: Of items that are found by a short question only beside their answer: its lines.
        self._answers: dict[int, list[Hashes]] = {}
        for number, item in enumerate(items):
            self._note_answer(number, item)
            for passage, is_question in ((item.question, True), (item.answer, False)):
                hashes = self._hasher.of(passage)
                if not self._is_sought(len(hashes), is_question):
                    continue
                key = hashes.tobytes()
                place = numbers.setdefault(key, len(self._passages))
                if place == len(self._passages):
                    self._passages.append(hashes)
                    self._owners.append([])
                    if len(hashes) < LEAST_QUESTION:
                        self._exact[key] = place
                if number not in self._owners[place][-1:]:
                    self._owners[place].append(number)
        self._tables = dict(self._made_tables())

    @property
    def ngrams(self) -> int:
        """How many runs find an item."""
        return sum(len(table) for table in self._tables.values())

    def hits(self, rows: Sequence[Sequence[str]]) -> list[list[Hit]]:
        """Of each row of texts, the items that it holds, in the order of their numbers."""
        split = [[plain.split(text) for text in row] for row in rows]
        texts = [words for row in split for words in row]
        owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        hashes = [self._hasher.of_words(words) for words in texts]
        found: list[dict[int, set[int]]] = [{} for _ in rows]
        for text, passage in self._candidates(hashes):
            found[owners[text]].setdefault(passage, set()).add(text)
        firsts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(int)
        answers = []
        for row, passages in enumerate(found):
            of_row = hashes[firsts[row] : firsts[row + 1]]
            hits: dict[int, Hit] = {}
            for passage in passages:
                for hit in self._compared(passage, of_row, split[row]):
                    standing = hits.get(hit.item)
                    hits[hit.item] = hit if standing is None else _joined(standing, hit)
            answers.append([hits[item] for item in sorted(hits)])
        return answers

    def _is_sought(self, words: int, is_question: bool) -> bool:
        return words >= 1 if is_question else words >= min(LEAST_ANSWER, self.n)

    def _note_answer(self, number: int, item: Item) -> None:
        question, answer = len(self._hasher.of(item.question)), len(self._hasher.of(item.answer))
        if 0 < question < self.n and 0 < answer < self.n:
            lines = [self._hasher.of(line) for line in item.answer.splitlines()]
            self._answers[number] = [line for line in lines if len(line)]

    def _is_answered(self, item: int, texts: Sequence[Hashes]) -> bool:
        """Whether a row says an item's answer, where it has to."""
        lines = self._answers.get(item)
        return lines is None or any(_holds(text, line) for line in lines for text in texts)

    def _made_tables(self) -> Iterator[tuple[int, "_Table"]]:
        """By the length of a run, the passages that have it."""
        by_length: dict[int, list[int]] = {}
        for place, hashes in enumerate(self._passages):
            if len(hashes) >= LEAST_QUESTION:
                by_length.setdefault(min(len(hashes), self.n), []).append(place)
        for length, places in sorted(by_length.items()):
            grams = [np.unique(runs(self._passages[place], length)) for place in places]
            yield length, _Table.of(grams, np.array(places, np.int64))

    def _candidates(self, texts: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
        """Numbers of texts and of passages that have a run in common."""
        joined = np.concatenate([*texts, np.empty(0, np.uint64)])
        of_word = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        for length, table in self._tables.items():
            if len(joined) < length:
                continue
            grams = runs(joined, length)
            starts = of_word[: len(grams)]
            within = starts == of_word[length - 1 :]
            numbers, passages = table.find(grams[within])
            pairs = np.stack([starts[within][numbers], passages], axis=1)
            yield from map(tuple, np.unique(pairs, axis=0).tolist())
        for text, hashes in enumerate(texts):
            if 0 < len(hashes) < LEAST_QUESTION:
                place = self._exact.get(hashes.tobytes())
                if place is not None:
                    yield text, place

    def _compared(
        self, passage: int, texts: Sequence[Hashes], words: Sequence[Sequence[str]]
    ) -> Iterator[Hit]:
        """What the texts of a row have of a passage, for each item that has it."""
        sought = self._passages[passage]
        length = min(len(sought), self.n)
        wanted = runs(sought, length)
        covered = np.zeros(len(sought), bool)
        spans, share_of_text = list[Span](), 0.0
        for number, text in enumerate(texts):
            if len(text) < length or (len(sought) < LEAST_QUESTION and len(text) != len(sought)):
                continue
            grams = runs(text, length)
            covered |= _covered(np.isin(wanted, grams), length)
            theirs = _covered(np.isin(grams, wanted), length)
            share_of_text = max(share_of_text, float(theirs.mean()))
            spans += [Span(number, start, end) for start, end in _stretches(theirs)]
        longest = max(spans, key=lambda span: span.end - span.start)
        excerpt = words[longest.text][longest.start : min(longest.end, longest.start + _EXCERPT_WORDS)]
        rule = Rule.NGRAM if len(sought) >= self.n else Rule.WHOLE
        for item in self._owners[passage]:
            if rule is Rule.WHOLE and not self._is_answered(item, texts):
                continue
            yield Hit(item, rule, float(covered.mean()), share_of_text, tuple(spans), " ".join(excerpt))


@dataclass(frozen=True)
class _Table:
    """Runs of one length, each with the passages that have it.

    Attributes:
        grams: uint64 (m,), rising.
        starts: int64 (m + 1,), where in ``passages`` those of each begin.
        passages: int64.
        filter: bool, of a power of two; whether any run has these last bits.
    """

    grams: Hashes
    starts: NDArray[np.int64]
    passages: NDArray[np.int64]
    filter: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.grams)

    @classmethod
    def of(cls, grams: list[Hashes], places: NDArray[np.int64]) -> "_Table":
        """Of some passages, each with its different runs, those that find one."""
        numbers = np.concatenate(grams)
        owners = np.repeat(np.arange(len(grams)), [len(one) for one in grams])
        order = np.argsort(numbers, kind="stable")
        numbers, owners = numbers[order], owners[order]
        _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        own = counts[inverse] <= COMMON
        # One that has no run of its own is found by all of them.
        has_own = np.zeros(len(grams), bool)
        has_own[owners[own]] = True
        kept = own | ~has_own[owners]
        unique, starts = np.unique(numbers[kept], return_index=True)
        bits = max(int(np.ceil(np.log2(max(_FILTER * len(unique), 2)))), 10)
        known = np.zeros(1 << bits, bool)
        known[unique & np.uint64(len(known) - 1)] = True
        return cls(unique, np.append(starts, kept.sum()), places[owners[kept]], known)

    def find(self, grams: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the runs that are known, each with a passage that has it; once for each such passage."""
        likely = np.flatnonzero(self.filter[grams & np.uint64(len(self.filter) - 1)])
        at = np.searchsorted(self.grams, grams[likely])
        at[at == len(self.grams)] = 0
        right = self.grams[at] == grams[likely]
        likely, at = likely[right], at[right]
        counts = self.starts[at + 1] - self.starts[at]
        firsts = np.repeat(self.starts[at] - np.cumsum(counts) + counts, counts)
        return np.repeat(likely, counts), self.passages[firsts + np.arange(counts.sum())]


def _holds(text: Hashes, part: Hashes) -> bool:
    """Whether some words follow on each other in a text."""
    return bool(np.isin(runs(part, len(part)), runs(text, len(part))).all())


def _covered(found: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Which words lie in a run that was found, bool (runs + length - 1,)."""
    covered = np.zeros(len(found) + length - 1, bool)
    for place in range(length):
        covered[place : place + len(found)] |= found
    return covered


def _stretches(covered: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of each stretch of words."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], covered, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(one: Hit, other: Hit) -> Hit:
    """Of an item whose question and answer were both found."""
    better = max(one, other, key=lambda hit: (hit.share_of_item, hit.share_of_text))
    spans = sorted({*one.spans, *other.spans}, key=lambda span: (span.text, span.start, span.end))
    return Hit(
        better.item,
        better.rule,
        better.share_of_item,
        max(one.share_of_text, other.share_of_text),
        tuple(spans),
        better.excerpt,
    )
