"""Cases for the paired bootstrap: losses of two models on the same examples -> mean difference
and a 95 % interval.

Written by somebody who had not read the code ("paired bootstrap intervals (scipy)").

difference = first - second (AITP minus the reference), example by example; the mean is the plain
mean over examples (the request does not say whether tokens weigh: see OPEN).

What is certain for any bootstrap method: the interval lies within [min d, max d], low <= high,
it is finite, and the mean is in it (for percentile and BCa on these data).
What holds for the percentile method with >= 1,000 resamples: low lies in `low_band`, high in
`high_band` (the exact bootstrap distribution from ALL n**n resamples, its quantiles at
0.8 % .. 5 % and 95 % .. 99.2 %); compare with a slack of 1e-9 * max(1, |mean|). Of BCa only the
certain part is asked.

Measured with scipy 1.17.1, and the reason for several cases: `scipy.stats.bootstrap` gives
(nan, nan) with its default method BCa where all differences are equal, and raises ValueError
("each sample in `data` must contain two or more observations along `axis`.") for one example.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any, TypedDict

import numpy as np

NAN = float("nan")
INF = float("inf")
LEVEL = 0.95


class Case(TypedDict):
    name: str
    why: str
    first: list[Any]
    second: list[Any]
    # "interval": mean and interval; "mean only": the mean, but None for the interval;
    # "none": nothing can be said (None, no crash); "refused": an error (ValueError)
    answer: str
    mean: float | None
    hull: tuple[float, float] | None
    low_band: tuple[float, float] | None
    high_band: tuple[float, float] | None
    exact: tuple[float, float] | None  # exact percentile interval, all resamples, inverted CDF
    excludes_zero: bool | None  # where sure for any method


def exact_mean(first: list[float], second: list[float]) -> float:
    """Mean of the differences of the given doubles, without any rounding on the way."""
    total = sum((Fraction(x) - Fraction(y) for x, y in zip(first, second, strict=True)), Fraction(0))
    return float(total / len(first))


def all_means(first: list[float], second: list[float]) -> list[float]:
    """Sorted means of all n**n resamples. Slow and obvious; n <= 6."""
    d = [x - y for x, y in zip(first, second, strict=True)]
    assert 1 <= len(d) <= 6
    return sorted(math.fsum(pick) / len(d) for pick in itertools.product(d, repeat=len(d)))


def quantile(sorted_values: list[float], p: float) -> float:
    """Inverted CDF: the smallest value with at least a share p at or below it."""
    index = max(0, math.ceil(p * len(sorted_values)) - 1)
    return sorted_values[index]


def brute(first: list[float], second: list[float]) -> tuple[float, float]:
    means = all_means(first, second)
    return quantile(means, (1 - LEVEL) / 2), quantile(means, 1 - (1 - LEVEL) / 2)


def sampled(
    first: list[float], second: list[float], resamples: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """The same by drawing, one resample at a time (for n > 6)."""
    d = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    draw = np.random.default_rng(seed)
    means = sorted(float(d[draw.integers(0, len(d), len(d))].mean()) for _ in range(resamples))
    return quantile(means, (1 - LEVEL) / 2), quantile(means, 1 - (1 - LEVEL) / 2)


_ROWS: list[tuple[str, str, list[Any], list[Any], str]] = [
    (
        "identical arrays",
        "Must be [0, 0]; scipy's BCa gives nan here.",
        [1.0, 2.0, 3.0],
        [1.0, 2.0, 3.0],
        "interval",
    ),
    (
        "constant shift",
        "Every example better by 1/2: [-0.5, -0.5]; scipy's BCa gives nan.",
        [0.5, 1.5, 2.5, 3.5],
        [1.0, 2.0, 3.0, 4.0],
        "interval",
    ),
    (
        "constant shift not exact in binary",
        "0.1 apart with rounding noise of 1e-16: nearly degenerate, BCa's acceleration is noise.",
        [0.3, 0.7, 1.1, 2.2],
        [0.2, 0.6, 1.0, 2.1],
        "interval",
    ),
    (
        "two examples of opposite sign",
        "n = 2: only three possible means; [-1, 1].",
        [0.0, 2.0],
        [1.0, 1.0],
        "interval",
    ),
    ("two examples", "The smallest n with an interval at all.", [1.0, 1.2], [1.1, 1.5], "interval"),
    (
        "three, all better",
        "All differences negative: any bootstrap interval is below zero.",
        [1.0, 1.5, 2.0],
        [1.1, 1.9, 2.2],
        "interval",
    ),
    ("three, all worse", "The mirror of it: sign errors show.", [1.1, 1.9, 2.2], [1.0, 1.5, 2.0], "interval"),
    (
        "six, mixed",
        "The largest brute force: 46,656 resamples.",
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [1.1, 1.8, 3.3, 4.1, 4.7, 6.4],
        "interval",
    ),
    (
        "six with ties",
        "Tied differences, two values only: a coarse bootstrap distribution.",
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [1.1, 1.1, 1.1, 1.1, 0.9, 0.9],
        "interval",
    ),
    (
        "one outlier",
        "One diverged example carries the mean; a skewed distribution.",
        [1.0, 1.0, 1.0, 1.0, 50.0],
        [1.01, 1.01, 1.01, 1.01, 1.0],
        "interval",
    ),
    (
        "paired noise cancels",
        "Levels spread over 0..9, differences -0.1 +- 0.02: unpaired it would span zero.",
        [0.88, 2.9, 4.92, 6.89, 8.91],
        [1.0, 3.0, 5.0, 7.0, 9.0],
        "interval",
    ),
    (
        "all but one equal",
        "Five zeros and one win: the upper bound is exactly 0, not below.",
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.4],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "interval",
    ),
    (
        "large level, small difference",
        "1e6 + small: the mean must come from differences.",
        [1e6 + 0.25, 1e6 + 0.5, 1e6 + 0.75],
        [1e6 + 0.5, 1e6 + 0.5, 1e6 + 1.5],
        "interval",
    ),
    (
        "tiny differences",
        "Differences of 1e-12 are still differences.",
        [1e-12, 2e-12, 3e-12],
        [2e-12, 4e-12, 6e-12],
        "interval",
    ),
    (
        "losses of zero",
        "A perfectly learnt example has loss 0; no division by it.",
        [0.0, 0.0, 0.0],
        [0.0, 0.5, 1.0],
        "interval",
    ),
    ("integers", "Whole numbers must not be divided as integers.", [1, 2, 4], [2, 2, 2], "interval"),
    (
        "one example",
        "An interval from one example is none; the mean may be given.",
        [1.0],
        [1.5],
        "mean only",
    ),
    ("empty", "No examples: None, and neither nan nor a crash nor a warning.", [], [], "none"),
    (
        "lengths differ",
        "Not paired at all; numpy would broadcast one against many.",
        [1.0, 2.0, 3.0],
        [1.0, 2.0],
        "refused",
    ),
    (
        "one against many",
        "Length 1 against 3 broadcasts silently in numpy.",
        [1.0],
        [1.0, 2.0, 3.0],
        "refused",
    ),
    (
        "nan in the first",
        "One NaN loss: refused, or None with the count; never dropped unsaid.",
        [1.0, NAN, 3.0],
        [1.0, 2.0, 3.0],
        "refused",
    ),
    (
        "nan in both at the same place",
        "An example without learnt tokens (0/0) in both models.",
        [1.0, NAN, 3.0],
        [1.0, NAN, 3.0],
        "refused",
    ),
    (
        "infinite in the second",
        "x - inf = -inf: would make AITP look infinitely better.",
        [1.0, 2.0, 3.0],
        [1.0, INF, 3.0],
        "refused",
    ),
    ("infinite in both", "inf - inf = nan.", [1.0, INF, 3.0], [1.0, INF, 3.0], "refused"),
    (
        "a string among the losses",
        "A report re-read with a number as text.",
        [1.0, "2.0", 3.0],
        [1.0, 2.0, 3.0],
        "refused",
    ),
    (
        "two dimensions",
        "A (n, 1) array minus an (n,) array is (n, n) in numpy.",
        [[1.0], [2.0], [3.0]],
        [1.0, 2.0, 3.0],
        "refused",
    ),
]


def _case(row: tuple[str, str, list[Any], list[Any], str]) -> Case:
    name, why, first, second, answer = row
    case: Case = {
        "name": name,
        "why": why,
        "first": first,
        "second": second,
        "answer": answer,
        "mean": None,
        "hull": None,
        "low_band": None,
        "high_band": None,
        "exact": None,
        "excludes_zero": None,
    }
    if answer in ("interval", "mean only"):
        case["mean"] = exact_mean(first, second)
    if answer == "interval":
        d = [x - y for x, y in zip(first, second, strict=True)]
        means = all_means(first, second)
        case["hull"] = (min(d), max(d))
        case["exact"] = brute(first, second)
        case["low_band"] = (quantile(means, 0.008), quantile(means, 0.05))
        case["high_band"] = (quantile(means, 0.95), quantile(means, 0.992))
        if max(d) < 0 or min(d) > 0:
            case["excludes_zero"] = True
        elif case["exact"][0] <= 0 <= case["exact"][1]:
            case["excludes_zero"] = False  # sure for percentile only
    return case


CASES: list[Case] = [_case(row) for row in _ROWS]


class Property(TypedDict):
    name: str
    why: str
    first: list[float]
    second: list[float]
    # what is done to the input, and what must hold between the results before and after
    change: str
    first_after: list[float]
    second_after: list[float]
    holds: str
    tolerance: float


def _made(n: int, mean: float, spread: float, seed: int) -> tuple[list[float], list[float]]:
    draw = np.random.default_rng(seed)
    level = draw.uniform(0.5, 4.0, n)
    d = draw.normal(mean, spread, n)
    return [float(x) for x in level + d], [float(x) for x in level]


def _properties() -> list[Property]:
    first, second = _made(40, -0.05, 0.1, 1)
    order = [int(i) for i in np.random.default_rng(2).permutation(40)]
    short = _made(25, -0.05, 0.1, 3)
    times16 = (short[0] * 16, short[1] * 16)
    exact = _made(40, 0.0, 0.1, 4)
    return [
        {
            "name": "same seed twice",
            "why": "A report must be repeatable to the last digit.",
            "first": first,
            "second": second,
            "change": "nothing; the same seed",
            "first_after": first,
            "second_after": second,
            "holds": "mean, low and high are identical",
            "tolerance": 0.0,
        },
        {
            "name": "other seed",
            "why": "Another seed is another draw, not another verdict.",
            "first": first,
            "second": second,
            "change": "nothing; seeds 0 and 1",
            "first_after": first,
            "second_after": second,
            "holds": "mean identical; low and high within tolerance * (high - low)",
            "tolerance": 0.15,
        },
        {
            "name": "order of the pairs",
            "why": "The order of held-out examples carries nothing.",
            "first": first,
            "second": second,
            "change": "both permuted alike",
            "first_after": [first[i] for i in order],
            "second_after": [second[i] for i in order],
            "holds": "mean equal to 1e-12; low and high within tolerance * (high - low)",
            "tolerance": 0.15,
        },
        {
            "name": "only one side permuted",
            "why": "Pairs that are broken must show: it IS paired.",
            "first": first,
            "second": second,
            "change": "first permuted, second not",
            "first_after": [first[i] for i in order],
            "second_after": second,
            "holds": "mean equal to 1e-12; the interval at least 5 times as wide",
            "tolerance": 0.0,
        },
        {
            "name": "models swapped",
            "why": "B minus A is minus (A minus B).",
            "first": first,
            "second": second,
            "change": "first and second swapped",
            "first_after": second,
            "second_after": first,
            "holds": "mean negated to 1e-12; low ~ -high and high ~ -low within tolerance * width",
            "tolerance": 0.15,
        },
        {
            "name": "both shifted alike",
            "why": "Adding 3 to both losses changes no difference.",
            "first": first,
            "second": second,
            "change": "3.0 added to both",
            "first_after": [x + 3.0 for x in first],
            "second_after": [x + 3.0 for x in second],
            "holds": "same seed: mean, low and high equal to 1e-12",
            "tolerance": 1e-12,
        },
        {
            "name": "one shifted",
            "why": "Adding 3 to the first moves mean and bounds by 3.",
            "first": first,
            "second": second,
            "change": "3.0 added to the first",
            "first_after": [x + 3.0 for x in first],
            "second_after": second,
            "holds": "same seed: mean, low and high each larger by 3 to 1e-12",
            "tolerance": 1e-12,
        },
        {
            "name": "both scaled",
            "why": "Nats to bits is a scaling.",
            "first": first,
            "second": second,
            "change": "both divided by ln 2",
            "first_after": [x / math.log(2) for x in first],
            "second_after": [x / math.log(2) for x in second],
            "holds": "same seed: mean, low and high divided by ln 2 to 1e-12",
            "tolerance": 1e-12,
        },
        {
            "name": "sixteen times the data",
            "why": "The interval shrinks as 1/sqrt(n): by four.",
            "first": short[0],
            "second": short[1],
            "change": "every pair sixteen times",
            "first_after": times16[0],
            "second_after": times16[1],
            "holds": "mean equal to 1e-12; width / 4 within 20 % of the new width",
            "tolerance": 0.2,
        },
        {
            "name": "no true difference",
            "why": "Made with mean 0 and seed 4: contains zero.",
            "first": exact[0],
            "second": exact[1],
            "change": "nothing",
            "first_after": exact[0],
            "second_after": exact[1],
            "holds": "low <= 0 <= high",
            "tolerance": 0.0,
        },
        {
            "name": "resampling leaves the inputs alone",
            "why": "Called twice on the same arrays.",
            "first": first,
            "second": second,
            "change": "nothing; called twice",
            "first_after": first,
            "second_after": second,
            "holds": "the given lists/arrays are unchanged and so is numpy's global random state",
            "tolerance": 0.0,
        },
    ]


PROPERTIES: list[Property] = _properties()


class Huge(TypedDict):
    name: str
    why: str
    n: int
    mean: float
    spread: float
    seed: int  # make with `_made(n, mean, spread, seed)` in the test
    holds: str


HUGE: list[Huge] = [
    {
        "name": "a hundred thousand examples",
        "why": "n x 9,999 resamples at once is 8 GB in scipy unless `batch` is given.",
        "n": 100_000,
        "mean": -0.01,
        "spread": 0.5,
        "seed": 5,
        "holds": "under 1 GB; mean +- 1.96 s/sqrt(n) to 10 % of the width; excludes zero",
    },
    {
        "name": "a thousand examples",
        "why": "The usual size; near the normal interval.",
        "n": 1000,
        "mean": -0.05,
        "spread": 0.1,
        "seed": 6,
        "holds": "within a few seconds; mean +- 1.96 s/sqrt(n) to 10 % of the width; excludes zero",
    },
]

OPEN: list[str] = [
    "Mean over examples, or over tokens (an example's loss weighted by its learnt tokens)?",
    "Method: percentile, basic or BCa (scipy's default; nan where all differences are equal)?",
    "How few examples are 'too small' for an interval? (here: one; 2 to 6 give a very coarse one)",
    "An example with no learnt tokens (nan in both): refused here; skipping it AND counting it "
    "would also be defensible.",
    "Level (95 % here) and number of resamples.",
    "Several pairs of one document are not independent: by the words pairs are resampled; a "
    "cluster bootstrap over documents would be wider.",
]


def check() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
    for case in CASES:
        if case["answer"] != "interval":
            continue
        assert case["mean"] is not None
        assert case["hull"]
        assert case["exact"]
        low, high = case["exact"]
        slack = 1e-9 * max(1.0, abs(case["mean"]))
        assert case["hull"][0] - slack <= low <= case["mean"] + slack
        assert case["mean"] - slack <= high <= case["hull"][1] + slack
    by_name = {item["name"]: item for item in PROPERTIES}

    def width(first: list[float], second: list[float]) -> float:
        low, high = sampled(first, second)
        return high - low

    one = by_name["only one side permuted"]
    assert width(one["first_after"], one["second_after"]) > 5 * width(one["first"], one["second"])
    many = by_name["sixteen times the data"]
    ratio = width(many["first"], many["second"]) / width(many["first_after"], many["second_after"])
    assert abs(ratio / 4 - 1) < 0.2, ratio
    none = by_name["no true difference"]
    low, high = sampled(none["first"], none["second"])
    assert low <= 0 <= high


if __name__ == "__main__":
    check()
    print(len(CASES) + len(PROPERTIES) + len(HUGE), "cases")
