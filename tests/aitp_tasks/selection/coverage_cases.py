"""Cases for coverage: corpus, SFT and new pairs on a grid -> mass below tau and divergence.

Written by somebody who had not read the code.

Every grid is a list of counts, cell by cell (the shape of the grid carries nothing). With
p = corpus / its sum, q = SFT / its sum, q' = (SFT + pairs) / its sum:
  a cell with corpus mass is BELOW tau where q / p < tau (strictly; RATIO reading, decided here);
  share below = sum of p over the cells below. `difference` gives the other reading, q - p < tau,
  with a tau of its own, -1/8 (DIFFERENCE_TAU); `density` the third, q < tau.
  JS = (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2 and 0 log 0 = 0, in base 2 (0..1);
  `js_nats` the same in nats (0..0.693...). It is the DIVERGENCE, not its square root: scipy's
  `jensenshannon` gives the root, the "distance", in nats unless `base=2`.
Cells outside the corpus (corpus 0) have no part in the share but do in JS.
Shares are computed with fractions, so that ties with tau are ties; compare floats to 1e-12.
None: it cannot be said (no corpus, no SFT): no crash, no NaN, no 0 that looks like a success.
If densities are smoothed (KDE) rather than counted, the properties at the end still hold, and the
numbers hold for the weights of the cells.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypedDict


class Case(TypedDict):
    name: str
    why: str
    corpus: dict[str, list[int]]  # by source
    sft: list[int]
    pairs: list[int]
    tau: float
    below: tuple[float | None, float | None]  # before, after; ratio
    below_by_source: dict[str, tuple[float | None, float | None]]  # within the source's own mass
    difference: tuple[float | None, float | None]
    density: tuple[float | None, float | None]
    js_bits: tuple[float | None, float | None]
    js_nats: tuple[float | None, float | None]
    answer: str  # "numbers" or "refused"


def normal(counts: list[int]) -> list[Fraction] | None:
    total = sum(counts)
    return [Fraction(count, total) for count in counts] if total else None


def below_cells(corpus: list[int], sft: list[int], tau: float, reading: str) -> list[bool] | None:
    p, q = normal(corpus), normal(sft)
    if p is None or q is None:
        return None
    limit = Fraction(tau)
    cells: list[bool] = []
    for x, y in zip(p, q, strict=True):
        if reading == "ratio":
            cells.append(y < limit * x)
        elif reading == "difference":
            cells.append(x > 0 and y - x < limit)
        else:
            cells.append(x > 0 and y < limit)
    return cells


def share_below(
    mass: list[int], corpus: list[int], sft: list[int], tau: float, reading: str = "ratio"
) -> float | None:
    """The share of `mass` (the corpus or one source of it) in the cells below."""
    cells = below_cells(corpus, sft, tau, reading)
    if cells is None or not sum(mass):
        return None
    inside = sum(m for m, below in zip(mass, cells, strict=True) if below)
    return float(Fraction(inside, sum(mass)))


def js(corpus: list[int], sft: list[int], base: float = 2) -> float | None:
    p, q = normal(corpus), normal(sft)
    if p is None or q is None:
        return None
    terms: list[float] = []
    for x, y in zip(p, q, strict=True):
        m = (x + y) / 2
        if x:
            terms.append(float(x) * math.log(x / m) / 2)
        if y:
            terms.append(float(y) * math.log(y / m) / 2)
    return max(0.0, math.fsum(terms) / math.log(base))


def add(one: list[int], other: list[int]) -> list[int]:
    return [x + y for x, y in zip(one, other, strict=True)]


def total(by_source: dict[str, list[int]], cells: int) -> list[int]:
    whole = [0] * cells
    for counts in by_source.values():
        whole = add(whole, counts)
    return whole


ONE = "web"
DIFFERENCE_TAU = -0.125

_ROWS: list[tuple[str, str, dict[str, list[int]], list[int], list[int], float]] = [
    (
        "plain",
        "The cell the SFT set lacks is filled by half.",
        {ONE: [5, 5, 5, 5]},
        [10, 10, 0, 0],
        [0, 0, 10, 0],
        0.5,
    ),
    (
        "no pairs",
        "A night without pairs: before and after are the same to the last bit.",
        {ONE: [5, 5, 5, 5]},
        [10, 10, 0, 0],
        [0, 0, 0, 0],
        0.5,
    ),
    (
        "already covered",
        "p = q: nothing below, JS exactly 0 and not -1e-17.",
        {ONE: [3, 1, 7, 2]},
        [6, 2, 14, 4],
        [0, 0, 0, 0],
        0.5,
    ),
    (
        "pairs in proportion",
        "p = q and the pairs too: JS stays 0.",
        {ONE: [3, 1, 7, 2]},
        [6, 2, 14, 4],
        [3, 1, 7, 2],
        0.5,
    ),
    (
        "disjoint",
        "No cell in common: all mass below, JS 1 bit = 0.693 nats.",
        {ONE: [4, 4, 0, 0]},
        [0, 0, 4, 4],
        [0, 0, 0, 0],
        0.5,
    ),
    (
        "disjoint, then met",
        "Pairs in the corpus's cells only.",
        {ONE: [4, 4, 0, 0]},
        [0, 0, 4, 4],
        [4, 4, 0, 0],
        0.5,
    ),
    (
        "all mass on one cell",
        "Corpus and SFT both in one cell: covered wholly.",
        {ONE: [0, 9, 0, 0]},
        [0, 5, 0, 0],
        [0, 1, 0, 0],
        0.5,
    ),
    (
        "corpus on one cell, SFT on another",
        "And pairs into the right one.",
        {ONE: [0, 9, 0, 0]},
        [5, 0, 0, 0],
        [0, 5, 0, 0],
        0.5,
    ),
    ("one cell in all", "A grid of one: always covered.", {ONE: [9]}, [5], [1], 0.5),
    (
        "zero cells everywhere",
        "Cells where nothing lies: 0/0 is no cell below.",
        {ONE: [5, 0, 0, 5]},
        [5, 0, 0, 5],
        [0, 0, 0, 0],
        0.5,
    ),
    (
        "pairs where there is no corpus",
        "Drifted generations: the share cannot fall, JS rises.",
        {ONE: [5, 5, 0, 0]},
        [5, 5, 0, 0],
        [0, 0, 10, 0],
        0.5,
    ),
    (
        "pairs dilute a covered cell",
        "More pairs in one cell press the others BELOW tau: after is worse than before, honestly.",
        {ONE: [5, 5, 5, 5]},
        [6, 4, 4, 6],
        [80, 0, 0, 0],
        0.5,
    ),
    ("exactly tau", "q / p = 1/2 exactly: not below.", {ONE: [4, 4]}, [2, 6], [0, 0], 0.5),
    (
        "a hair above tau",
        "tau the next float over 1/2: below.",
        {ONE: [4, 4]},
        [2, 6],
        [0, 0],
        math.nextafter(0.5, 1),
    ),
    (
        "tie after the pairs",
        "Below before; after, exactly at tau: out of the set.",
        {ONE: [8, 8]},
        [1, 15],
        [2, 6],
        0.25,
    ),
    ("tau zero", "Nothing is below zero: share 0 even for empty cells.", {ONE: [5, 5]}, [10, 0], [0, 5], 0.0),
    (
        "tau tiny",
        "Only cells without any SFT are below.",
        {ONE: [5, 5, 5, 5]},
        [1, 1000, 1000, 0],
        [0, 0, 0, 0],
        1e-9,
    ),
    (
        "tau one",
        "All cells in which SFT is the thinner of the two; equal is not below.",
        {ONE: [5, 5, 5, 5]},
        [4, 5, 5, 6],
        [0, 0, 0, 0],
        1.0,
    ),
    ("tau huge", "Everything is below.", {ONE: [5, 5]}, [5, 5], [1, 0], 1e6),
    (
        "two sources",
        "Web is covered, code is not; the pairs are code.",
        {"web": [10, 10, 0, 0], "code": [0, 0, 10, 10]},
        [10, 10, 0, 0],
        [0, 0, 5, 5],
        0.5,
    ),
    (
        "two sources sharing cells",
        "Below is decided on the WHOLE corpus, the share by source.",
        {"web": [10, 2, 0], "code": [2, 10, 4]},
        [12, 1, 0],
        [0, 11, 0],
        0.5,
    ),
    (
        "a source of one document",
        "A share of 0 or 1, nothing between.",
        {"web": [10, 10], "rare": [0, 1]},
        [10, 1],
        [0, 0],
        0.5,
    ),
    (
        "a source without documents",
        "None for it, not 0 % and not NaN; the others stand.",
        {"web": [5, 5], "empty": [0, 0]},
        [5, 0],
        [0, 5],
        0.5,
    ),
    (
        "no SFT at all",
        "q is not defined before; after, it is the pairs alone.",
        {ONE: [5, 5]},
        [0, 0],
        [5, 5],
        0.5,
    ),
    ("no SFT and no pairs", "Never defined.", {ONE: [5, 5]}, [0, 0], [0, 0], 0.5),
    ("no corpus", "No mass: None.", {ONE: [0, 0]}, [5, 5], [1, 1], 0.5),
    (
        "huge counts",
        "10**15 documents: no overflow, no float32.",
        {ONE: [10**15, 10**15, 2]},
        [10**15, 1, 1],
        [0, 10**15, 0],
        0.5,
    ),
    (
        "one in a million",
        "A single pair in a thin cell counts.",
        {ONE: [999_999, 1]},
        [1_000_000, 0],
        [0, 1],
        0.5,
    ),
    (
        "pairs outnumber the SFT set",
        "A hundred times as many.",
        {ONE: [1, 1, 1, 1]},
        [1, 1, 0, 0],
        [50, 50, 50, 50],
        0.5,
    ),
]


def _case(
    name: str, why: str, corpus: dict[str, list[int]], sft: list[int], pairs: list[int], tau: float
) -> Case:
    whole = total(corpus, len(sft))
    after = add(sft, pairs)

    def both(reading: str) -> tuple[float | None, float | None]:
        limit = DIFFERENCE_TAU if reading == "difference" else tau
        return (
            share_below(whole, whole, sft, limit, reading),
            share_below(whole, whole, after, limit, reading),
        )

    return {
        "name": name,
        "why": why,
        "corpus": corpus,
        "sft": sft,
        "pairs": pairs,
        "tau": tau,
        "below": both("ratio"),
        "difference": both("difference"),
        "density": both("density"),
        "below_by_source": {
            source: (share_below(counts, whole, sft, tau), share_below(counts, whole, after, tau))
            for source, counts in corpus.items()
        },
        "js_bits": (js(whole, sft), js(whole, after)),
        "js_nats": (js(whole, sft, math.e), js(whole, after, math.e)),
        "answer": "numbers",
    }


CASES: list[Case] = [_case(*row) for row in _ROWS]
