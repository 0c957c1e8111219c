"""Cases for the allocation of documents to regions by measured yield (`difference.allocation: yield`).

Written from the words of issue 19 ("Spend where it pays") alone, by somebody who had not read the code.

Readings: a region is (available, piloted, kept, tokens): documents still to be drawn after the pilot;
documents that the pilot took; pairs of these that were kept in the end; tokens that were generated for
them. `budget` is the number of documents to spread after the pilot; `floor` the documents that every
region gets at least, whatever its yield, as far as it has them. Yield is kept pairs a generated token
("kept pairs per generated token"); where kept pairs a document would order the regions otherwise, no
order is wanted (`yardsticks_differ`). Order is wanted only between regions with pilots of one size: a
bandit may favour what it knows less of.

`want`: `exact` allocation where the words leave no other; else `total`, `at_least`, `at_most`, `order`
((more, less): the first gets no fewer unless it is exhausted), `strict` (the first gets more), `even`
(names whose numbers differ by one at most), `refused`. `if_proportional` is what largest remainders of
proportional shares above the floor would give: for information, not required. `relations` compare two
inputs.
"""

from __future__ import annotations

EVEN3 = {"a": (100, 10, 5, 1000), "b": (100, 10, 5, 1000), "c": (100, 10, 5, 1000)}
STEPS = {"low": (1000, 50, 5, 5000), "mid": (1000, 50, 15, 5000), "high": (1000, 50, 30, 5000)}

CASES = [
    {
        "id": "no-region",
        "regions": {},
        "budget": 10,
        "floor": 1,
        "want": {"exact": {}},
        "why": "nothing to spread over; no division by zero",
    },
    {
        "id": "one-region",
        "regions": {"a": (100, 10, 3, 900)},
        "budget": 40,
        "floor": 5,
        "want": {"exact": {"a": 40}},
        "why": "all of it",
    },
    {
        "id": "one-region-of-no-yield",
        "regions": {"a": (100, 10, 0, 900)},
        "budget": 40,
        "floor": 5,
        "want": {"exact": {"a": 40}},
        "why": "all zero is even, and even of one is all",
    },
    {
        "id": "one-region-too-small",
        "regions": {"a": (30, 10, 3, 900)},
        "budget": 40,
        "floor": 5,
        "want": {"exact": {"a": 30}},
        "why": "no more than there is",
    },
    {
        "id": "budget-zero",
        "regions": STEPS,
        "budget": 0,
        "floor": 10,
        "want": {"exact": {"low": 0, "mid": 0, "high": 0}},
        "why": "the floor makes no documents out of nothing",
    },
    {
        "id": "budget-one",
        "regions": STEPS,
        "budget": 1,
        "floor": 0,
        "want": {
            "total": 1,
            "at_most": {"low": 1, "mid": 1, "high": 1},
            "order": [("high", "mid"), ("mid", "low")],
        },
        "why": "sum exact at one",
    },
    {
        "id": "equal-yields",
        "regions": EVEN3,
        "budget": 90,
        "floor": 5,
        "want": {"exact": {"a": 30, "b": 30, "c": 30}},
        "why": "nothing speaks for any",
    },
    {
        "id": "equal-yields-odd",
        "regions": EVEN3,
        "budget": 100,
        "floor": 5,
        "want": {"total": 100, "even": ["a", "b", "c"]},
        "why": "33, 33, 34: who gets the one is by hash, each time the same",
    },
    {
        "id": "all-zero",
        "regions": {"a": (100, 10, 0, 1000), "b": (100, 10, 0, 3000), "c": (100, 10, 0, 10)},
        "budget": 60,
        "floor": 5,
        "want": {"exact": {"a": 20, "b": 20, "c": 20}},
        "why": "all zero is even, whatever the tokens",
    },
    {
        "id": "all-zero-one-exhausted",
        "regions": {"a": (5, 10, 0, 1000), "b": (100, 10, 0, 1000), "c": (100, 10, 0, 1000)},
        "budget": 65,
        "floor": 5,
        "want": {"exact": {"a": 5, "b": 30, "c": 30}},
        "why": "what a cannot take goes on evenly",
    },
    {
        "id": "steps",
        "regions": STEPS,
        "budget": 600,
        "floor": 60,
        "want": {
            "total": 600,
            "at_least": {"low": 60, "mid": 60, "high": 200},
            "strict": [("high", "low")],
            "order": [("high", "mid"), ("mid", "low")],
            "if_proportional": {"low": 102, "mid": 186, "high": 312},
        },
        "why": "yields 1:3:6; the best gets at least what even would give",
    },
    {
        "id": "steps-no-floor",
        "regions": STEPS,
        "budget": 1000,
        "floor": 0,
        "want": {
            "total": 1000,
            "order": [("high", "mid"), ("mid", "low")],
            "strict": [("high", "low")],
            "at_least": {"high": 334},
            "if_proportional": {"low": 100, "mid": 300, "high": 600},
        },
        "why": "follows the yield",
    },
    {
        "id": "zero-beside-yield",
        "regions": {"dry": (1000, 50, 0, 5000), "wet": (1000, 50, 25, 5000)},
        "budget": 200,
        "floor": 20,
        "want": {
            "total": 200,
            "at_least": {"dry": 20, "wet": 101},
            "strict": [("wet", "dry")],
            "if_proportional": {"dry": 20, "wet": 180},
        },
        "why": "a floor for every region, the dry one too",
    },
    {
        "id": "best-exhausted",
        "regions": {"best": (10, 50, 40, 5000), "b": (1000, 50, 10, 5000), "c": (1000, 50, 10, 5000)},
        "budget": 210,
        "floor": 5,
        "want": {"exact": {"best": 10, "b": 100, "c": 100}},
        "why": "what it cannot take passes on by the yields of the others",
    },
    {
        "id": "two-exhausted-in-turn",
        "regions": {
            "best": (10, 50, 40, 5000),
            "next": (20, 50, 30, 5000),
            "c": (1000, 50, 5, 5000),
            "d": (1000, 50, 5, 5000),
        },
        "budget": 230,
        "floor": 5,
        "want": {"exact": {"best": 10, "next": 20, "c": 100, "d": 100}},
        "why": "passing on may exhaust the next: to be repeated",
    },
    {
        "id": "all-exhausted",
        "regions": {"a": (10, 10, 9, 1000), "b": (20, 10, 1, 1000), "c": (0, 10, 5, 1000)},
        "budget": 1000,
        "floor": 5,
        "want": {"exact": {"a": 10, "b": 20, "c": 0}},
        "why": "the sum is what there is, and what is left over is told",
    },
    {
        "id": "budget-is-all",
        "regions": {"a": (10, 10, 9, 1000), "b": (20, 10, 1, 1000)},
        "budget": 30,
        "floor": 1,
        "want": {"exact": {"a": 10, "b": 20}},
        "why": "at the bound",
    },
    {
        "id": "empty-region",
        "regions": {"gone": (0, 10, 10, 1000), "a": (100, 10, 1, 1000)},
        "budget": 50,
        "floor": 5,
        "want": {"exact": {"gone": 0, "a": 50}},
        "why": "the pilot took all of it: no floor without documents",
    },
    {
        "id": "floor-above-available",
        "regions": {"tiny": (3, 3, 0, 300), "a": (1000, 50, 10, 5000)},
        "budget": 100,
        "floor": 10,
        "want": {"exact": {"tiny": 3, "a": 97}},
        "why": "as far as it has them; the rest of its floor is not lost",
    },
    {
        "id": "floors-are-the-budget",
        "regions": STEPS,
        "budget": 90,
        "floor": 30,
        "want": {"exact": {"low": 30, "mid": 30, "high": 30}},
        "why": "nothing is left to follow the yield",
    },
    {
        "id": "floors-above-budget",
        "regions": STEPS,
        "budget": 60,
        "floor": 30,
        "want": {"total": 60, "order": [("high", "low")]},
        "why": "floors cannot all be kept: sum exact, never above; refused with words (exit 2) would do too",
    },
    {
        "id": "fewer-documents-than-regions",
        "regions": {f"r{i}": (100, 10, i, 1000) for i in range(10)},
        "budget": 4,
        "floor": 0,
        "want": {"total": 4, "order": [("r9", "r0")]},
        "why": "sum exact when most get none",
    },
    {
        "id": "not-piloted",
        "regions": {"new": (100, 0, 0, 0), "a": (100, 10, 5, 1000)},
        "budget": 60,
        "floor": 10,
        "want": {"total": 60, "at_least": {"new": 10, "a": 10}},
        "why": "0/0 is unknown, no NaN and no infinite yield that takes all",
    },
    {
        "id": "none-piloted",
        "regions": {"a": (100, 0, 0, 0), "b": (100, 0, 0, 0)},
        "budget": 60,
        "floor": 10,
        "want": {"exact": {"a": 30, "b": 30}},
        "why": "nothing known is even",
    },
    {
        "id": "no-tokens-but-pairs",
        "regions": {"odd": (100, 10, 5, 0), "a": (100, 10, 5, 1000)},
        "budget": 60,
        "floor": 10,
        "want": {"total": 60, "at_least": {"odd": 10, "a": 10}},
        "why": "all came from the cache: no division by zero, the floor of the other stays",
    },
    {
        "id": "more-pairs-than-documents",
        "regions": {"rich": (500, 10, 20, 1000), "a": (500, 10, 10, 1000)},
        "budget": 300,
        "floor": 0,
        "want": {
            "total": 300,
            "order": [("rich", "a")],
            "at_least": {"rich": 150},
            "if_proportional": {"rich": 200, "a": 100},
        },
        "why": "up to eight questions a document: a yield above 1 is no error",
    },
    {
        "id": "same-pairs-fewer-tokens",
        "regions": {"cheap": (500, 20, 10, 1000), "dear": (500, 20, 10, 4000)},
        "budget": 300,
        "floor": 30,
        "want": {"total": 300, "order": [("cheap", "dear")], "at_least": {"dear": 30}},
        "why": "kept pairs per generated token: the cheap one is never behind (by documents they tie)",
    },
    {
        "id": "yardsticks-differ",
        "regions": {"long": (500, 20, 12, 6000), "short": (500, 20, 10, 1000)},
        "budget": 300,
        "floor": 30,
        "yardsticks_differ": True,
        "want": {"total": 300, "at_least": {"long": 30, "short": 30}},
        "why": "0.002 and 0.01 a token, 0.6 and 0.5 a document: only sum and floor are sure",
    },
    {
        "id": "tiny-pilot",
        "regions": {"lucky": (10000, 1, 1, 100), "sure": (10000, 1000, 900, 100000)},
        "budget": 1000,
        "floor": 50,
        "want": {"total": 1000, "at_least": {"lucky": 50, "sure": 50}},
        "why": "one of one is hardly known: no order wanted, the floor holds on both sides",
    },
    {
        "id": "huge-numbers",
        "regions": {"a": (10**12, 10**6, 10**5, 10**10), "b": (10**12, 10**6, 10**5, 10**10)},
        "budget": 10**12 + 1,
        "floor": 10**3,
        "want": {"total": 10**12 + 1, "even": ["a", "b"]},
        "why": "whole numbers: no float loses the one",
    },
    {
        "id": "tiny-yields",
        "regions": {"a": (10**6, 10**6, 1, 10**9), "b": (10**6, 10**6, 2, 10**9)},
        "budget": 1000,
        "floor": 10,
        "want": {"total": 1000, "order": [("b", "a")], "at_least": {"a": 10}},
        "why": "1e-9 is not zero",
    },
    {
        "id": "thousand-regions",
        "regions": {f"r{i:04d}": (1000, 10, i % 7, 1000) for i in range(1000)},
        "budget": 12345,
        "floor": 3,
        "want": {
            "total": 12345,
            "at_least_each": 3,
            "order": [("r0006", "r0000"), ("r0013", "r0008"), ("r0005", "r0004")],
        },
        "why": "sum exact over many remainders",
    },
    {
        "id": "hostile-names",
        "regions": {
            "": (100, 10, 5, 1000),
            "a\nb": (100, 10, 5, 1000),
            "{x}": (100, 10, 5, 1000),
            "\U0001f42c": (100, 10, 5, 1000),
            "0": (100, 10, 5, 1000),
            "00": (100, 10, 5, 1000),
        },
        "budget": 601,
        "floor": 0,
        "want": {"exact": {"": 100, "a\nb": 100, "{x}": 100, "\U0001f42c": 100, "0": 100, "00": 100}},
        "why": "all exhausted at 600; '0' and '00' are two regions",
    },
    {
        "id": "negative-budget",
        "regions": EVEN3,
        "budget": -1,
        "floor": 0,
        "want": {"refused": True},
        "why": "impossible settings are refused",
    },
    {
        "id": "negative-floor",
        "regions": EVEN3,
        "budget": 10,
        "floor": -1,
        "want": {"refused": True},
        "why": "impossible settings are refused",
    },
]

# `left` and `right` are inputs by case id, `right` with a change; `holds` compares both allocations
RELATIONS = [
    {
        "id": "order-of-regions",
        "of": [c["id"] for c in CASES],
        "change": "regions given in reverse and in sorted order",
        "holds": "equal, region by region",
        "why": "identity, never position",
    },
    {
        "id": "again",
        "of": [c["id"] for c in CASES],
        "change": "none; another process, another PYTHONHASHSEED",
        "holds": "equal",
        "why": "deterministic by hash",
    },
    {
        "id": "tokens-in-another-unit",
        "of": ["steps", "steps-no-floor", "zero-beside-yield", "best-exhausted", "more-pairs-than-documents"],
        "change": "tokens of every region times 10",
        "holds": "equal within 1",
        "why": "only relations of yields count",
    },
    {
        "id": "one-more-pair",
        "of": ["steps", "steps-no-floor", "equal-yields", "zero-beside-yield"],
        "change": "one region's kept + 1, for each region in turn",
        "holds": "that region gets no less, and no other gets more by more than 1",
        "why": "monotone in yield",
    },
    {
        "id": "dearer",
        "of": ["steps", "equal-yields", "same-pairs-fewer-tokens"],
        "change": "one region's tokens times 2, for each in turn",
        "holds": "that region gets no more",
        "why": "monotone in cost",
    },
    {
        "id": "more-budget",
        "of": ["steps", "equal-yields-odd", "best-exhausted", "thousand-regions"],
        "change": "budget + 1, + 10, + 100",
        "holds": "no region gets less by more than 1",
        "why": "largest remainders may move one document (the Alabama paradox), no more",
    },
    {
        "id": "higher-floor",
        "of": ["steps", "zero-beside-yield"],
        "change": "floor 0, 10, 20, … up to budget / regions",
        "holds": "the least-yielding region never loses and the spread never widens by more than 1",
        "why": "the floor pulls to even; at budget / regions it is even",
    },
    {
        "id": "unused-room",
        "of": ["steps", "equal-yields", "zero-beside-yield"],
        "change": "available of a region times 1,000 where it was not exhausted",
        "holds": "equal",
        "why": "yield decides, not size",
    },
    {
        "id": "empty-added",
        "of": ["steps", "equal-yields", "best-exhausted"],
        "change": "a region (0, 0, 0, 0) added",
        "holds": "the others equal, it gets 0",
        "why": "what has no documents changes nothing",
    },
    {
        "id": "beats-even",
        "of": [
            "steps",
            "steps-no-floor",
            "zero-beside-yield",
            "best-exhausted",
            "two-exhausted-in-turn",
            "more-pairs-than-documents",
            "thousand-regions",
        ],
        "change": "even allocation of the same budget, passing on what is exhausted",
        "holds": "sum of allocation x kept/piloted is no smaller than even's",
        "why": "spend where it pays: pilots of one size and tokens, so both yardsticks agree",
    },
    {
        "id": "even-ignores-yield",
        "of": ["steps", "zero-beside-yield"],
        "change": "difference.allocation: even",
        "holds": "numbers differ by 1 at most, and no pilot is wanted",
        "why": "even | yield",
    },
    {
        "id": "other-seed",
        "of": ["equal-yields-odd"],
        "change": "difference.seed",
        "holds": "still 33, 33, 34; who gets the one may change",
        "why": "only ties are by hash",
    },
]


def broken(case, allocation):
    """Names of what an allocation (region -> documents) does not keep of a case; none if all is kept."""
    regions, want = case["regions"], case["want"]
    full = {name for name in regions if allocation.get(name) == regions[name][0]}
    no = []
    if set(allocation) != set(regions) or any(type(n) is not int or n < 0 for n in allocation.values()):
        return ["names or numbers"]
    no += ["more than there is"] * any(allocation[name] > regions[name][0] for name in regions)
    no += ["total"] * (sum(allocation.values()) != min(case["budget"], sum(r[0] for r in regions.values())))
    no += ["exact"] * ("exact" in want and allocation != want["exact"])
    floor = want.get("at_least_each", 0)
    no += ["at_least"] * any(allocation[n] < max(floor, want.get("at_least", {}).get(n, 0)) for n in regions)
    no += ["at_most"] * any(allocation[n] > most for n, most in want.get("at_most", {}).items())
    no += ["order"] * any(
        allocation[more] < allocation[less] and more not in full for more, less in want.get("order", [])
    )
    no += ["strict"] * any(allocation[more] <= allocation[less] for more, less in want.get("strict", []))
    even = [allocation[n] for n in want.get("even", [])]
    no += ["even"] * (bool(even) and max(even) - min(even) > 1)
    return no
