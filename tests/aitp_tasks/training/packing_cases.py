"""Cases for packing: lengths of examples and max_length -> what must hold of the packing.

Written by somebody who had not read the code.

A packing is a list of bins, each a list of positions into `lengths`. `faults` says what is wrong
with one. Decisions:
  an example longer than max_length never comes to a packing that neither cuts nor drops: it is
  dealt with before (`long_examples`); given one, the packing refuses ("refused").
  an example of length 0 is refused as well or left out AND counted; here: "refused".
  best fit decreasing: sorted by falling length, each into the fullest bin it still fits, else a
  new one. Which of equal lengths goes where is free; the sorted fill of the bins is not.
  positions count from 0 within each example; the label at the first token of each example is
  -100 (the token before it belongs to another example), every other label is as unpacked.
"""

from __future__ import annotations

import math
import random
from typing import Any, TypedDict

IGNORED = -100


class Case(TypedDict):
    name: str
    why: str
    lengths: list[Any]
    max_length: Any
    answer: str  # "packed" or "refused"
    least_bins: int | None  # no packing has fewer: by brute force for n <= 10, else by the sum
    optimal: bool  # whether least_bins is what the best packing really reaches
    bfd_fill: list[int] | None  # fill of best-fit-decreasing's bins, falling
    padding: float | None  # of best-fit-decreasing, padded to max_length


def best_fit_decreasing(lengths: list[int], max_length: int) -> list[list[int]]:
    """Slow and obvious, O(n * bins)."""
    bins: list[list[int]] = []
    fill: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        best = -1
        for number, used in enumerate(fill):
            if used + lengths[place] <= max_length and (best < 0 or used > fill[best]):
                best = number
        if best < 0:
            bins.append([])
            fill.append(0)
            best = len(bins) - 1
        bins[best].append(place)
        fill[best] += lengths[place]
    return bins


def fewest_bins(lengths: list[int], max_length: int) -> int:
    """Every way of putting each example into an open bin or a new one (n <= 10)."""
    assert len(lengths) <= 10
    least = len(lengths)

    def go(place: int, fill: list[int]) -> None:
        nonlocal least
        if place == len(lengths):
            least = min(least, len(fill))
            return
        for number in range(len(fill)):
            if fill[number] + lengths[place] <= max_length:
                go(place + 1, [*fill[:number], fill[number] + lengths[place], *fill[number + 1 :]])
        if len(fill) + 1 < least or not fill:
            go(place + 1, [*fill, lengths[place]])

    go(0, [])
    return least


def faults(lengths: list[int], max_length: int, bins: list[list[int]]) -> list[str]:
    """What must hold of ANY packing that neither cuts, drops nor repeats."""
    found: list[str] = []
    placed = [place for one in bins for place in one]
    if sorted(set(placed)) != list(range(len(lengths))):
        found.append("dropped or invented an example")
    if len(set(placed)) != len(placed):
        found.append("repeated an example")
    if any(sum(lengths[place] for place in one) > max_length for one in bins):
        found.append("a bin over max_length")
    if any(not one for one in bins):
        found.append("an empty bin")
    return found


def positions(bin_lengths: list[int]) -> list[int]:
    """Position ids of one bin: each example counts from 0."""
    return [step for length in bin_lengths for step in range(length)]


def borders(bin_lengths: list[int]) -> list[int]:
    """cu_seqlens of one bin."""
    ends = [0]
    for length in bin_lengths:
        ends.append(ends[-1] + length)
    return ends


def packed_labels(examples: list[list[int]]) -> list[int]:
    """The labels of one bin from the labels of its examples (token by token, before any shift)."""
    out: list[int] = []
    for labels in examples:
        out.extend(IGNORED if place == 0 else label for place, label in enumerate(labels))
    return out


def sees(bin_lengths: list[int]) -> list[list[bool]]:
    """Row: the token that looks; column: the token seen. Causal, and within its example."""
    owner = [number for number, length in enumerate(bin_lengths) for _ in range(length)]
    return [
        [owner[row] == owner[column] and column <= row for column in range(len(owner))]
        for row in range(len(owner))
    ]


def loss(examples: list[list[tuple[float, int]]]) -> float:
    """Mean over all learnt tokens; an example is [(loss of the token, label)]. The same whether
    packed or not, as the first token of an example never has a prediction."""
    terms = [
        value for one in examples for place, (value, label) in enumerate(one) if place and label != IGNORED
    ]
    return math.fsum(terms) / len(terms)


def _random(n: int, high: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(1, high) for _ in range(n)]


_ROWS: list[tuple[str, str, list[Any], Any, str]] = [
    ("empty", "No examples: no bins, no crash, padding not 0/0.", [], 8, "packed"),
    ("one short", "One example, one bin.", [3], 8, "packed"),
    ("one exactly full", "length == max_length fits; < would drop it.", [8], 8, "packed"),
    ("one a token too long", "Neither cut nor dropped unsaid.", [9], 8, "refused"),
    (
        "one far too long among many",
        "The long one must not take the others with it.",
        [3, 4, 10_000_000, 2],
        8,
        "refused",
    ),
    ("all exactly full", "No two can share.", [8, 8, 8], 8, "packed"),
    (
        "all one over half",
        "No two fit together: padding near one half, honestly told.",
        [5, 5, 5, 5],
        8,
        "packed",
    ),
    ("all half", "Pairs fill exactly.", [4, 4, 4, 4], 8, "packed"),
    (
        "odd one over",
        "Five halves: the last bin is half empty, not dropped (drop_last!).",
        [4, 4, 4, 4, 4],
        8,
        "packed",
    ),
    ("all ones", "Eight to a bin and a rest.", [1] * 20, 8, "packed"),
    ("max_length one", "Every token its own bin; no label can be learnt.", [1, 1, 1], 1, "packed"),
    ("perfect complements", "7+1, 6+2, 5+3, 4+4.", [7, 1, 6, 2, 5, 3, 4, 4], 8, "packed"),
    (
        "best fit beaten by the best",
        "BFD needs 3 where 2 are enough: its result is not the bound.",
        [6, 5, 5, 3, 3, 2],
        12,
        "packed",
    ),
    (
        "best fit differs from first fit",
        "The 1 goes to 5 + 4 (full), where first fit puts it to 7: fill 10, 7 and not 9, 8.",
        [7, 5, 4, 1],
        10,
        "packed",
    ),
    ("already sorted rising", "The order given is not the order packed.", [1, 2, 3, 4, 5, 6], 7, "packed"),
    ("already sorted falling", "The same set: the same fill.", [6, 5, 4, 3, 2, 1], 7, "packed"),
    ("ten ties", "Ten equal examples: ties may go anywhere, none twice.", [3] * 10, 10, "packed"),
    ("one long, many tiny", "The tiny ones fill up the long one's bin.", [98] + [1] * 9, 100, "packed"),
    (
        "long tail",
        "99 % short and a few near the limit, as chat data is.",
        _random(400, 60, 1) + _random(8, 1000, 2),
        1024,
        "packed",
    ),
    ("two hundred at random", "A fill near the sum's bound.", _random(200, 300, 3), 1024, "packed"),
    (
        "near the limit at random",
        "Lengths over half the limit: one to a bin.",
        [x + 513 for x in _random(50, 500, 4)],
        1024,
        "packed",
    ),
    (
        "all examples shorter than a hundredth",
        "Padding well under 0.05 (the measured bound).",
        _random(8000, 10, 5),
        1024,
        "packed",
    ),
    (
        "length zero among others",
        "An example without tokens: cu_seqlens would hold an empty run.",
        [3, 0, 4],
        8,
        "refused",
    ),
    ("negative length", "A broken index.", [3, -1, 4], 8, "refused"),
    ("length not whole", "3.0 tokens: from a float column.", [3, 2.5], 8, "refused"),
    ("max_length zero", "Nothing can fit.", [1], 0, "refused"),
    ("max_length negative", "-1 as 'no limit' elsewhere; here refused.", [1], -1, "refused"),
    ("max_length true", "True is 1.", [1], True, "refused"),
]


def _case(row: tuple[str, str, list[Any], Any, str]) -> Case:
    name, why, lengths, max_length, answer = row
    case: Case = {
        "name": name,
        "why": why,
        "lengths": lengths,
        "max_length": max_length,
        "answer": answer,
        "least_bins": None,
        "optimal": False,
        "bfd_fill": None,
        "padding": None,
    }
    if answer == "packed":
        bins = best_fit_decreasing(lengths, max_length)
        case["bfd_fill"] = sorted((sum(lengths[i] for i in one) for one in bins), reverse=True)
        case["padding"] = 1 - sum(lengths) / (len(bins) * max_length) if bins else 0.0
        if len(lengths) <= 10:
            case["least_bins"], case["optimal"] = fewest_bins(lengths, max_length), True
        else:
            case["least_bins"] = -(-sum(lengths) // max_length)
    return case


CASES: list[Case] = [_case(row) for row in _ROWS]


class Border(TypedDict):
    name: str
    why: str
    bin_lengths: list[int]
    labels: list[list[int]]  # per example and token; -100 is not learnt
    positions: list[int]
    cu_seqlens: list[int]
    packed_labels: list[int]
    learnt_tokens: int  # tokens that enter the loss, packed and unpacked alike


def _border(name: str, why: str, labels: list[list[int]]) -> Border:
    lengths = [len(one) for one in labels]
    packed = packed_labels(labels)
    return {
        "name": name,
        "why": why,
        "bin_lengths": lengths,
        "labels": labels,
        "positions": positions(lengths),
        "cu_seqlens": borders(lengths),
        "packed_labels": packed,
        "learnt_tokens": sum(x != IGNORED for x in packed),
    }


BORDERS: list[Border] = [
    _border("one example", "The plain case: positions 0..n-1.", [[-100, -100, 7, 8]]),
    _border(
        "two examples",
        "Positions start anew; the first label of the second is -100.",
        [[-100, 5, 6], [-100, 7, 8, 9]],
    ),
    _border(
        "labels learnt from the first token on",
        "Plain language modelling: the first token of the SECOND example would be learnt from "
        "the last of the first: -100 there, and at the first too.",
        [[1, 2, 3], [4, 5, 6]],
    ),
    _border(
        "one-token examples", "Nothing to learn, positions all 0: must not read as one run.", [[1], [2], [3]]
    ),
    _border(
        "an example without learnt tokens",
        "All -100: no part in the loss, but present.",
        [[-100, -100], [-100, 3, 4]],
    ),
    _border(
        "learnt to the last token",
        "The turn end is learnt, right before the border.",
        [[-100, -100, 9], [-100, -100, 9]],
    ),
    _border(
        "equal examples side by side",
        "Same tokens twice: they still must not see each other.",
        [[-100, 5, 6], [-100, 5, 6]],
    ),
    _border(
        "end token inside an example",
        "eos (2) at each turn's end of a two-turn example: borders come from lengths, not eos.",
        [[-100, 5, 2, -100, 6, 2], [-100, 7, 2]],
    ),
]


class Leak(TypedDict):
    name: str
    why: str
    bin_lengths: list[int]
    sees: list[list[bool]]


LEAKS: list[Leak] = [
    {
        "name": "two and three",
        "why": "No token of the second sees one of the first.",
        "bin_lengths": [2, 3],
        "sees": sees([2, 3]),
    },
    {"name": "alone", "why": "One example: plain causal.", "bin_lengths": [3], "sees": sees([3])},
    {"name": "ones", "why": "Each sees itself only.", "bin_lengths": [1, 1, 1], "sees": sees([1, 1, 1])},
]


class Loss(TypedDict):
    name: str
    why: str
    examples: list[list[tuple[float, int]]]
    per_token: float  # the one right number, packed or unpacked, whatever the batches
    mean_of_examples: float  # the wrong one, for comparison (differs on purpose)


def _loss(name: str, why: str, examples: list[list[tuple[float, int]]]) -> Loss:
    means = [
        loss([one])
        for one in examples
        if any(place and label != IGNORED for place, (_, label) in enumerate(one))
    ]
    return {
        "name": name,
        "why": why,
        "examples": examples,
        "per_token": loss(examples),
        "mean_of_examples": math.fsum(means) / len(means),
    }


LOSSES: list[Loss] = [
    _loss(
        "short and long",
        "Mean of means weighs the short one tenfold; per token does not.",
        [[(0.0, -100), (5.0, 1)], [(0.0, -100)] + [(1.0, 1)] * 10],
    ),
    _loss(
        "one with nothing to learn",
        "0/0 for that example must not become NaN for all.",
        [[(9.0, -100), (9.0, -100)], [(0.0, -100), (2.0, 1), (4.0, 1)]],
    ),
    _loss(
        "accumulated over two steps",
        "With gradient accumulation 2 the sum is divided by ALL learnt tokens of both micro-batches.",
        [[(0.0, -100), (1.0, 1)], [(0.0, -100), (3.0, 1), (3.0, 1), (3.0, 1)]],
    ),
]

OPEN: list[str] = [
    "An example over max_length in the packing itself: refused here (long_examples comes before).",
    (
        "Is `padding` relative to max_length x bins (here), or to what reaches the GPU (0 with "
        "padding-free batches)?"
    ),
    "Length-0 examples: refused here; dropped and counted is as good.",
    "Does a packed batch fill up the last bin, or may it be short? (here: short is fine)",
    "Resume after a kill: the same bins in the same order needs a deterministic packing (ties!).",
]


def check() -> None:
    for case in CASES:
        if case["answer"] != "packed":
            continue
        lengths, limit = case["lengths"], case["max_length"]
        bins = best_fit_decreasing(lengths, limit)
        assert faults(lengths, limit, bins) == [], case["name"]
        assert case["least_bins"] is not None
        assert len(bins) >= case["least_bins"], case["name"]
        assert len(bins) <= math.ceil(11 / 9 * max(case["least_bins"], 1)) + 1 or not case["optimal"]
    by_name = {case["name"]: case for case in CASES}
    beaten = by_name["best fit beaten by the best"]
    assert beaten["least_bins"] == 2
    assert len(beaten["bfd_fill"] or []) == 3
    rising, falling = by_name["already sorted rising"], by_name["already sorted falling"]
    assert rising["bfd_fill"] == falling["bfd_fill"]
    assert by_name["best fit differs from first fit"]["bfd_fill"] == [10, 7]
    assert (by_name["all examples shorter than a hundredth"]["padding"] or 1) < 0.05


if __name__ == "__main__":
    check()
    print(len(CASES) + len(BORDERS) + len(LEAKS) + len(LOSSES), "cases")
