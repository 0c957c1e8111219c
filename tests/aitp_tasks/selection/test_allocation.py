"""Budgets by yield: cases from the words alone, and a plain re-implementation by bisection."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.selection.allocation import Region, allot, floor_of
from tests.aitp_tasks.conftest import REPOSITORY
from tests.aitp_tasks.selection.allocation_cases import CASES, RELATIONS, broken

Given = dict[str, tuple[int, int, int, int]]
BY_ID: dict[str, dict[str, Any]] = {case["id"]: case for case in CASES}


def found(given: Given, budget: int, floor: int, seed: int = 0) -> dict[str, int]:
    return allot({name: Region(*one) for name, one in given.items()}, budget, floor, seed)


def of(name: str, **changes: Any) -> dict[str, int]:
    """The allocation of a case, with another budget, floor or regions."""
    case = BY_ID[name] | changes
    return found(case["regions"], case["budget"], case["floor"], case.get("seed", 0))


@pytest.mark.parametrize("case", CASES, ids=BY_ID)
def test_cases(case: dict[str, Any]) -> None:
    if case["want"].get("refused"):
        with pytest.raises(ValueError, match="-1 is no number of documents, pairs or tokens: give 0 or more"):
            of(case["id"])
        return
    assert broken(case, of(case["id"])) == []


def changed(name: str, region: str, place: int, by: int, times: int = 1) -> Given:
    """The regions of a case, with one number of one region changed."""
    regions: Given = dict(BY_ID[name]["regions"])
    one = list(regions[region])
    one[place] = one[place] * times + by
    regions[region] = (one[0], one[1], one[2], one[3])
    return regions


def not_refused(names: list[str]) -> list[str]:
    return [name for name in names if not BY_ID[name]["want"].get("refused")]


def order_of_regions(name: str) -> None:
    regions = BY_ID[name]["regions"]
    for order in (reversed(regions), sorted(regions)):
        assert of(name, regions={one: regions[one] for one in order}) == of(name)


def tokens_in_another_unit(name: str) -> None:
    regions = {key: (*one[:3], one[3] * 10) for key, one in BY_ID[name]["regions"].items()}
    assert of(name, regions=regions) == of(name)


def one_more_pair(name: str) -> None:
    before = of(name)
    for region in BY_ID[name]["regions"]:
        after = of(name, regions=changed(name, region, 2, by=1))
        assert after[region] >= before[region]
        assert all(after[other] <= before[other] + 1 for other in after if other != region)


def dearer(name: str) -> None:
    for region in BY_ID[name]["regions"]:
        assert of(name, regions=changed(name, region, 3, by=0, times=2))[region] <= of(name)[region]


def more_budget(name: str) -> None:
    before = of(name)
    for more in (1, 10, 100):
        after = of(name, budget=BY_ID[name]["budget"] + more)
        assert all(after[region] >= before[region] - 1 for region in before)


def higher_floor(name: str) -> None:
    regions, budget = BY_ID[name]["regions"], BY_ID[name]["budget"]
    least = min(regions, key=lambda region: Fraction(regions[region][2], regions[region][3]))
    floors = range(0, budget // len(regions) + 1, 10)
    by_floor = [of(name, floor=floor) for floor in floors]
    spreads = [max(one.values()) - min(one.values()) for one in by_floor]
    assert [one[least] for one in by_floor] == sorted(one[least] for one in by_floor)
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] == 0


def unused_room(name: str) -> None:
    for region in BY_ID[name]["regions"]:
        assert of(name, regions=changed(name, region, 0, by=0, times=1000)) == of(name)


def empty_added(name: str) -> None:
    assert of(name, regions=BY_ID[name]["regions"] | {"none": (0, 0, 0, 0)}) == of(name) | {"none": 0}


def beats_even(name: str) -> None:
    regions = BY_ID[name]["regions"]
    even = of(name, regions={region: (one[0], 0, 0, 0) for region, one in regions.items()})

    def worth(allocation: Mapping[str, int]) -> Fraction:
        return sum(
            (count * Fraction(regions[r][2], regions[r][1]) for r, count in allocation.items()), Fraction()
        )

    assert worth(of(name)) >= worth(even)


def even_ignores_yield(name: str) -> None:
    # What nothing is measured of is what even allocation draws.
    regions = {region: (one[0], 0, 0, 0) for region, one in BY_ID[name]["regions"].items()}
    even = of(name, regions=regions).values()
    assert max(even) - min(even) <= 1


def other_seed(name: str) -> None:
    by_seed = [of(name, seed=seed) for seed in range(20)]
    assert all(sorted(one.values()) == [33, 33, 34] for one in by_seed)
    assert len({json.dumps(one, sort_keys=True) for one in by_seed}) == 3


HOLDS = {
    check.__name__.replace("_", "-"): check
    for check in (
        *(order_of_regions, tokens_in_another_unit, one_more_pair, dearer, more_budget, higher_floor),
        *(unused_room, empty_added, beats_even, even_ignores_yield, other_seed),
    )
}


@pytest.mark.parametrize(
    ("relation", "name"),
    [
        (relation["id"], name)
        for relation in RELATIONS
        if relation["id"] != "again"
        for name in not_refused(relation["of"])
    ],
)
def test_relations(relation: str, name: str) -> None:
    HOLDS[relation](name)


def test_another_process_with_other_hashes_gives_the_same() -> None:
    assert {relation["id"] for relation in RELATIONS} == {*HOLDS, "again"}
    code = (
        "import json\nfrom tests.aitp_tasks.selection.test_allocation import CASES, not_refused, of\n"
        "names = not_refused([case['id'] for case in CASES])\n"
        "print(json.dumps([of(name) for name in names], sort_keys=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "12345", "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [of(name) for name in not_refused([case["id"] for case in CASES])]
    assert json.loads(done.stdout.splitlines()[-1]) == here


REGION = st.builds(
    Region,
    available=st.integers(0, 60),
    documents=st.integers(0, 20),
    pairs=st.integers(0, 9),
    tokens=st.sampled_from([0, 1, 7, 100, 1000]),
)


@settings(max_examples=400)
@given(st.lists(REGION, min_size=1, max_size=7), st.integers(0, 300), st.integers(0, 40))
def test_plain_bisection_gives_the_same_shares(regions: list[Region], budget: int, floor: int) -> None:
    named = {str(number): region for number, region in enumerate(regions)}
    allotted = allot(named, budget, floor)
    total = min(budget, sum(region.available for region in regions))
    assert sum(allotted.values()) == total
    shares = dict(zip(named, by_bisection(regions, total, floor), strict=True))
    up, down = list[float](), list[float]()
    for name, share in shares.items():
        assert abs(allotted[name] - share) < 1 + 1e-6
        (up if allotted[name] > share + 1e-6 else down).append(share - math.floor(share + 1e-6))
    # Who was rounded up has no smaller remainder than who was rounded down.
    assert not up or max(down, default=0.0) <= min(up) + 1e-6


def by_bisection(regions: list[Region], total: int, floor: int) -> list[float]:
    """Water is let in until the regions hold the total: as high everywhere, over a width that is the rate."""
    while sum(min(floor, region.available) for region in regions) > total:
        floor -= 1
    told = any(region.tokens for region in regions)
    costs = [region.tokens if told else region.documents for region in regions]
    known = [region.pairs / cost if cost else None for region, cost in zip(regions, costs, strict=True)]
    best = max((rate for rate in known if rate is not None), default=0.0)
    rates = [1.0 if not best else best if rate is None else rate for rate in known]
    low = [float(min(floor, region.available)) for region in regions]
    high = [float(region.available) for region in regions]

    def at(level: float, widths: list[float]) -> list[float]:
        return [min(max(level * w, least), most) for w, least, most in zip(widths, low, high, strict=True)]

    if sum(at(1e12, rates)) < total:
        low = [most if rate else least for rate, least, most in zip(rates, low, high, strict=True)]
        rates = [0.0 if rate else 1.0 for rate in rates]
    dry, flooded = 0.0, 1e12
    for _ in range(200):
        middle = (dry + flooded) / 2
        dry, flooded = (middle, flooded) if sum(at(middle, rates)) < total else (dry, middle)
    return at(flooded, rates)


@pytest.mark.parametrize(
    ("available", "budget", "share", "floor"),
    [
        ([10, 10, 10, 10], 100, 0.25, 6),
        ([10, 10, 10, 10], 4, 0.25, 1),
        ([10, 10, 10, 10], 3, 0.25, 0),
        ([10, 0, 0, 0], 40, 0.25, 10),
        ([10, 10], 100, 1.0, 50),
        ([0, 0], 100, 0.5, 0),
        ([], 100, 0.5, 0),
    ],
)
def test_a_floor_is_a_share_of_an_even_share(
    available: list[int], budget: int, share: float, floor: int
) -> None:
    regions = {str(number): Region(count) for number, count in enumerate(available)}
    assert floor_of(regions, budget, share) == floor
