"""Cases for promotion: the three estimates, a tolerance and a mode -> promoted or not, and why.

Written by somebody who had not read the code. Every estimate is AITP minus the reference (SFT-only),
so NEGATIVE IS BETTER. An estimate is (mean, low, high), or None where the set is empty or too
small for an interval.

The words: "move only if AITP is better on (b) or (c) and not worse on (a) beyond a tolerance".

Decisions taken here (each also named in OPEN, as the request does not say):
  better        = the whole interval is below zero: high < 0. Touching zero is not better.
  not worse     = the whole interval is at or below the tolerance: high <= tolerance.
  missing (a)   = "not worse" was not shown -> not promoted. Missing (b) or (c) is simply not
                  better; the other one may still carry it.
  broken number = NaN, infinite, swapped bounds, mean outside the interval, in ANY of the three:
                  not promoted in when_better (a model whose loss is NaN on (c) is not good
                  because (b) is fine). A raised ValueError naming the set is as right.
  modes         = "always" and "never" do not look at the numbers.

`answer` is True / False / "refused" (the setting itself is bad: an error naming the setting).
`agreed` is False where another sensible reading of the request gives another answer; `readings`
then holds what the other readings give (computed by `decide`, below).
`reason_names` are groups: of every group at least one word has to be in the reason, whatever
its case. The run ends green in every case but "refused".
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

Estimate = tuple[Any, Any, Any]  # mean, low, high: floats, save in the hostile cases
SFT = ["(a)", "sft"]
PAIRS = ["(b)", "pair"]
DOCS = ["(c)", "document"]
NAN = float("nan")
INF = float("inf")


class Case(TypedDict):
    name: str
    why: str
    a: Estimate | None
    b: Estimate | None
    c: Estimate | None
    tolerance: Any
    mode: Any
    answer: bool | str
    reason_names: list[list[str]]
    agreed: bool
    readings: dict[str, bool | str]


def sound(estimate: Estimate) -> bool:
    """Three finite real numbers, low <= mean <= high."""
    for value in estimate:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if not math.isfinite(value):
            return False
    mean, low, high = estimate
    return bool(low <= mean <= high)


def decide(
    a: Estimate | None,
    b: Estimate | None,
    c: Estimate | None,
    tolerance: Any,
    mode: Any,
    better: str = "interval",
    worse: str = "interval",
    missing_a: str = "blocks",
    broken: str = "blocks",
) -> bool | str:
    """The plain reference. The last four arguments are the readings the request leaves open.

    better:    interval (high < 0) | mean (mean < 0)
    worse:     interval (worse unless high <= tol) | mean (mean > tol) | proven (low > tol)
    missing_a: blocks | passes
    broken:    blocks | ignored (a broken estimate counts as missing)
    """
    if mode not in ("always", "when_better", "never") or not isinstance(mode, str):
        return "refused"
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        return "refused"
    if not math.isfinite(tolerance) or tolerance < 0:
        return "refused"
    if mode == "always":
        return True
    if mode == "never":
        return False
    kept: list[Estimate | None] = []
    for estimate in (a, b, c):
        if estimate is not None and not sound(estimate):
            if broken == "blocks":
                return False
            kept.append(None)
        else:
            kept.append(estimate)
    first = kept[0]
    if first is None:
        if missing_a == "blocks":
            return False
    else:
        mean, low, high = first
        if worse == "interval" and not high <= tolerance:
            return False
        if worse == "mean" and mean > tolerance:
            return False
        if worse == "proven" and low > tolerance:
            return False
    for estimate in kept[1:]:
        if estimate is None:
            continue
        mean, low, high = estimate
        if better == "interval" and high < 0:
            return True
        if better == "mean" and mean < 0:
            return True
    return False


READINGS: dict[str, dict[str, str]] = {
    "better by the mean alone": {"better": "mean"},
    "worse by the mean alone": {"worse": "mean"},
    "worse only when proven": {"worse": "proven"},
    "missing (a) passes": {"missing_a": "passes"},
    "broken counts as missing": {"broken": "ignored"},
}

# name, why, a, b, c, tolerance, mode, answer, reason_names
_ROWS: list[
    tuple[str, str, Estimate | None, Estimate | None, Estimate | None, Any, Any, bool | str, list[list[str]]]
] = [
    (
        "plainly better on both",
        "The case everything is for: it has to be promoted.",
        (-0.01, -0.02, -0.001),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        True,
        [PAIRS + DOCS],
    ),
    (
        "better on pairs only",
        "The request says (b) OR (c); (c) undecided must not block.",
        (0.0, -0.01, 0.01),
        (-0.2, -0.25, -0.15),
        (0.0, -0.05, 0.05),
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "better on documents only",
        "The other half of the OR, so that (c) is not forgotten.",
        (0.0, -0.01, 0.01),
        (0.0, -0.05, 0.05),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        True,
        [DOCS],
    ),
    (
        "better on pairs, proven worse on documents",
        "By the words an OR: promoted; but the reason must not hide that (c) grew worse.",
        (0.0, -0.01, 0.01),
        (-0.2, -0.25, -0.15),
        (0.3, 0.2, 0.4),
        0.02,
        "when_better",
        True,
        [PAIRS, DOCS],
    ),
    (
        "better on neither",
        "The plain refusal: both intervals straddle zero.",
        (0.0, -0.01, 0.01),
        (-0.01, -0.05, 0.03),
        (0.0, -0.05, 0.05),
        0.02,
        "when_better",
        False,
        [PAIRS, DOCS],
    ),
    (
        "worse everywhere",
        "Nothing speaks for it; the reason must name (a) too.",
        (0.5, 0.4, 0.6),
        (0.5, 0.4, 0.6),
        (0.5, 0.4, 0.6),
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "better on both, worse on sft",
        "What was learnt before is forgotten: the guard on (a).",
        (0.1, 0.08, 0.12),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        False,
        [SFT, ["0.02", "tolerance"]],
    ),
    (
        "worse on sft but within tolerance",
        "Proven worse (low > 0) yet inside the tolerance: that is what a tolerance is for.",
        (0.01, 0.005, 0.015),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        True,
        [PAIRS + DOCS],
    ),
    (
        "sft upper bound exactly the tolerance",
        "Not BEYOND the tolerance: equality is allowed.",
        (0.01, 0.0, 0.02),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "sft upper bound a hair over the tolerance",
        "One float above: the border is a border (under the interval reading).",
        (0.01, 0.0, math.nextafter(0.02, 1)),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "sft mean exactly the tolerance, no spread",
        "All readings meet here: mean = low = high = tol.",
        (0.02, 0.02, 0.02),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "sft interval very wide",
        "Mean below tolerance but the interval says nothing: not shown, so not promoted here.",
        (0.0, -3.0, 3.0),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "sft mean over, lower bound under the tolerance",
        "Likely worse but not proven: two of three readings refuse it.",
        (0.05, -0.01, 0.11),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "pairs upper bound exactly zero",
        "Touching zero is not better; strict.",
        (0.0, 0.0, 0.0),
        (-0.1, -0.2, 0.0),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "pairs upper bound minus zero",
        "-0.0 is zero, not negative.",
        (0.0, 0.0, 0.0),
        (-0.1, -0.2, -0.0),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "pairs upper bound the smallest negative float",
        "Strictly below zero, however little.",
        (0.0, 0.0, 0.0),
        (-0.1, -0.2, -5e-324),
        None,
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "pairs mean below zero, interval straddles",
        "Chance: by the mean alone it would be promoted every second night.",
        (0.0, 0.0, 0.0),
        (-0.001, -0.1, 0.098),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "all differences exactly zero",
        "A model equal to the reference is not better than it.",
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        0.02,
        "when_better",
        False,
        [PAIRS, DOCS],
    ),
    (
        "better on sft only",
        "Better on (a) is not asked for and does not suffice.",
        (-0.5, -0.6, -0.4),
        (0.0, -0.05, 0.05),
        (0.0, -0.05, 0.05),
        0.02,
        "when_better",
        False,
        [PAIRS, DOCS],
    ),
    (
        "everything missing",
        "First night, nothing measured: green, not promoted, says so.",
        None,
        None,
        None,
        0.02,
        "when_better",
        False,
        [SFT + PAIRS + DOCS + ["no ", "missing"]],
    ),
    (
        "sft missing",
        "(a) empty: not worse was not shown.",
        None,
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "pairs missing, documents better",
        "A missing set is not a failed one.",
        (0.0, -0.01, 0.01),
        None,
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        True,
        [DOCS],
    ),
    (
        "documents missing, pairs better",
        "The same, the other way.",
        (0.0, -0.01, 0.01),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "pairs missing, documents undecided",
        "Neither shows better; the missing one is named too.",
        (0.0, -0.01, 0.01),
        None,
        (0.0, -0.05, 0.05),
        0.02,
        "when_better",
        False,
        [PAIRS, DOCS],
    ),
    (
        "pairs and documents missing",
        "Only (a) measured: nothing can be better.",
        (-0.1, -0.2, -0.05),
        None,
        None,
        0.02,
        "when_better",
        False,
        [PAIRS, DOCS],
    ),
    (
        "nan mean on sft",
        "NaN > tolerance is False in Python: a careless test promotes it.",
        (NAN, NAN, NAN),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "nan upper bound on sft only",
        "Half a NaN: the mean is fine, the interval is not.",
        (0.0, -0.01, NAN),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "nan on pairs, documents better",
        "A NaN loss is a broken model or data: not promoted.",
        (0.0, -0.01, 0.01),
        (NAN, NAN, NAN),
        (-0.1, -0.12, -0.08),
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "nan interval with a good mean on pairs",
        "scipy's BCa gives NaN bounds when all differences are equal: must not read as better.",
        (0.0, -0.01, 0.01),
        (-0.2, NAN, NAN),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "plus infinity on sft",
        "A loss that overflowed is worse than any tolerance.",
        (INF, INF, INF),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "minus infinity on pairs",
        "The REFERENCE overflowed: AITP minus inf looks infinitely good. Not promoted.",
        (0.0, -0.01, 0.01),
        (-INF, -INF, -INF),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "minus infinity as lower bound only",
        "An infinite bound is no interval.",
        (0.0, -0.01, 0.01),
        (-0.2, -INF, -0.1),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "swapped bounds on pairs",
        "low > high: 'high < 0' would be read off the wrong end.",
        (0.0, -0.01, 0.01),
        (-0.1, 0.05, -0.25),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "swapped bounds on sft",
        "The upper bound 0.12 hides in the lower's place.",
        (0.05, 0.12, -0.02),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [SFT],
    ),
    (
        "mean outside its interval",
        "Mean +0.3 with a wholly negative interval: sign mix-up.",
        (0.0, -0.01, 0.01),
        (0.3, -0.25, -0.15),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "numbers as strings",
        "Read from a report as text: '-0.2' < 0 raises or lies.",
        (0.0, -0.01, 0.01),
        ("-0.2", "-0.25", "-0.15"),
        None,
        0.02,
        "when_better",
        False,
        [PAIRS],
    ),
    (
        "tolerance zero, sft upper bound zero",
        "Tolerance 0 is a lawful wish; equality still passes.",
        (-0.01, -0.02, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        0.0,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "tolerance zero, sft a hair worse",
        "And with 0 nothing above zero passes.",
        (1e-9, 1e-10, 1e-8),
        (-0.2, -0.25, -0.15),
        None,
        0.0,
        "when_better",
        False,
        [SFT],
    ),
    (
        "tolerance an integer",
        "tolerance: 1 in YAML is an int.",
        (0.5, 0.4, 0.6),
        (-0.2, -0.25, -0.15),
        None,
        1,
        "when_better",
        True,
        [PAIRS],
    ),
    (
        "tolerance negative",
        "Would demand better on (a): surely a slip of sign. Refused.",
        (-0.5, -0.6, -0.4),
        (-0.2, -0.25, -0.15),
        None,
        -0.02,
        "when_better",
        "refused",
        [["tolerance"]],
    ),
    (
        "tolerance nan",
        "x <= NaN is always False, x > NaN too: silent either way. Refused.",
        (0.0, 0.0, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        NAN,
        "when_better",
        "refused",
        [["tolerance"]],
    ),
    (
        "tolerance infinite",
        "Switches the guard off unseen; `promote: always` is there for that.",
        (9.0, 8.0, 10.0),
        (-0.2, -0.25, -0.15),
        None,
        INF,
        "when_better",
        "refused",
        [["tolerance"]],
    ),
    (
        "tolerance true",
        "True is 1 in Python: a whole nat of slack by accident.",
        (0.5, 0.4, 0.6),
        (-0.2, -0.25, -0.15),
        None,
        True,
        "when_better",
        "refused",
        [["tolerance"]],
    ),
    (
        "always, though worse everywhere",
        "The person said always.",
        (0.5, 0.4, 0.6),
        (0.5, 0.4, 0.6),
        (0.5, 0.4, 0.6),
        0.02,
        "always",
        True,
        [["always"]],
    ),
    (
        "always, nothing measured",
        "Always does not need an evaluation.",
        None,
        None,
        None,
        0.02,
        "always",
        True,
        [["always"]],
    ),
    (
        "always, nan everywhere",
        "By the words promoted; the reason must at least say that the numbers are broken.",
        (NAN, NAN, NAN),
        (NAN, NAN, NAN),
        (NAN, NAN, NAN),
        0.02,
        "always",
        True,
        [["always"]],
    ),
    (
        "never, though better everywhere",
        "The person said never; green, and the reason says so.",
        (-0.1, -0.2, -0.05),
        (-0.2, -0.25, -0.15),
        (-0.1, -0.12, -0.08),
        0.02,
        "never",
        False,
        [["never"]],
    ),
    (
        "never, nothing measured",
        "Never with nothing: still green, still the same reason.",
        None,
        None,
        None,
        0.02,
        "never",
        False,
        [["never"]],
    ),
    (
        "mode misspelt",
        "A misspelling must not fall through to always or never.",
        (0.0, 0.0, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "when-better",
        "refused",
        [["promote"]],
    ),
    (
        "mode in capitals",
        "Refused, as any closed list; or accepted as when_better if documented.",
        (0.0, 0.0, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "Always",
        "refused",
        [["promote"]],
    ),
    (
        "mode empty",
        "An empty string from an unset variable.",
        (0.0, 0.0, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        "",
        "refused",
        [["promote"]],
    ),
    (
        "mode a yaml boolean",
        "`promote: no` in YAML is False, not 'never'.",
        (0.0, 0.0, 0.0),
        (-0.2, -0.25, -0.15),
        None,
        0.02,
        False,
        "refused",
        [["promote"]],
    ),
    (
        "huge but finite",
        "Finite numbers of any size are compared, not refused.",
        (-1e300, -1e301, -1e299),
        (-1e300, -1e301, -1e299),
        None,
        0.02,
        "when_better",
        True,
        [PAIRS],
    ),
]


def _case(row: tuple[Any, ...]) -> Case:
    name, why, a, b, c, tolerance, mode, answer, names = row
    others: dict[str, bool | str] = {}
    for title, change in READINGS.items():
        other = decide(a, b, c, tolerance, mode, **change)
        if other != answer:
            others[title] = other
    return {
        "name": name,
        "why": why,
        "a": a,
        "b": b,
        "c": c,
        "tolerance": tolerance,
        "mode": mode,
        "answer": answer,
        "reason_names": names,
        "agreed": not others,
        "readings": others,
    }


CASES: list[Case] = [_case(row) for row in _ROWS]


class Nights(TypedDict):
    name: str
    why: str
    nights: list[bool]  # promoted or not, in order; versions are v1, v2, ...
    latest_after: list[str | None]  # what `latest` is after each night
    base_of_night: list[str | None]  # what each night builds on


def follow(nights: list[bool]) -> tuple[list[str | None], list[str | None]]:
    latest: str | None = None
    after: list[str | None] = []
    base: list[str | None] = []
    for number, promoted in enumerate(nights, 1):
        base.append(latest)
        if promoted:
            latest = f"v{number}"
        after.append(latest)
    return after, base


def _nights(name: str, why: str, nights: list[bool]) -> Nights:
    after, base = follow(nights)
    return {"name": name, "why": why, "nights": nights, "latest_after": after, "base_of_night": base}


SEQUENCES: list[Nights] = [
    _nights(
        "second night fails", "The third builds on the first, not on the refused second.", [True, False, True]
    ),
    _nights(
        "first night fails",
        "There is no latest at all; the second starts from the base as the first did, and nothing dangles.",
        [False, True],
    ),
    _nights(
        "never promoted", "`latest` never comes to be; each night still ends green.", [False, False, False]
    ),
    _nights(
        "refused twice then promoted",
        "Two refused versions in a row are both skipped.",
        [True, False, False, True, True],
    ),
]

OPEN: list[str] = [
    "Is 'better' the mean below zero, or the whole interval? (here: the interval)",
    "Is 'worse beyond a tolerance' the mean, the upper bound, or only when the lower bound "
    "exceeds it? (here: the upper bound)",
    "What the reference is: SFT-only, or the model promoted last? (here: SFT-only)",
    "Better on (b) and proven worse on (c): promoted by the words.",
    "(a) missing: blocks or passes? (here: blocks)",
    "A broken number in (b) while (c) is good: blocks or counts as missing? (here: blocks)",
    "`always` with NaN losses (the request also says that NaN stops the run with the last good one).",
    "Is the tolerance absolute (nats) or relative? (here: absolute)",
    "Do models/latest and datasets/latest move together, or may one move alone? (here: together)",
]


def check() -> None:
    for case in CASES:
        got = decide(case["a"], case["b"], case["c"], case["tolerance"], case["mode"])
        assert got == case["answer"], case["name"]
        assert type(got) is type(case["answer"]), case["name"]
    assert len({case["name"] for case in CASES}) == len(CASES)


if __name__ == "__main__":
    check()
    print(len(CASES) + len(SEQUENCES), "cases;", sum(not c["agreed"] for c in CASES), "open")
