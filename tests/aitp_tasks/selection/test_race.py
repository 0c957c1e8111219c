"""Who leaves where there is not room for all, against a plain re-implementation with exact sums."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aitp_tasks.config import OrderKey
from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.selection import race
from aitp_tasks.selection.race import Crowds

BANDWIDTH = 1.0
STEP = BANDWIDTH / 8
Floats = NDArray[np.float64]


def field(points: Floats) -> Field:
    grid = SparseGrid.of(points, STEP)
    return Field.of(grid, BANDWIDTH, Window.around([grid], 40 * BANDWIDTH))


def kernel(one: Floats, other: Floats) -> float:
    return math.exp(-((one - other) ** 2).sum() / (2 * BANDWIDTH**2))


def density(points: Floats, place: Floats) -> float:
    return sum(kernel(point, place) for point in points) / len(points) / (2 * math.pi * BANDWIDTH**2)


def crowd(sft: Floats, corpus: Floats, pairs: Floats, place: Floats) -> float:
    kernels = sum(kernel(one, place) for one in [*sft, *pairs])
    return kernels / density(corpus, place)


def crowds_of(sft: Floats, corpus: Floats, pairs: Floats, left: list[int]) -> dict[int, float]:
    """The crowds of those that are left, by nothing but the definition."""
    return {
        place: crowd(sft, corpus, pairs[[other for other in left if other != place]], pairs[place])
        for place in left
    }


def mixture(seed: int, count: int, spread: float) -> Floats:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(3, 2)) * spread
    return centres[random.integers(0, 3, count)] + random.normal(size=(count, 2))


@settings(max_examples=40)
@example(seed=1000000, count=11, spread=6.0, share=1.0)
@given(st.integers(0, 10**6), st.integers(1, 25), st.sampled_from([0.5, 2.0, 6.0]), st.floats(0, 1))
def test_those_leave_whose_places_are_best_covered_without_them(
    seed: int, count: int, spread: float, share: float
) -> None:
    sft, corpus, pairs = (
        mixture(seed, 30, spread),
        mixture(seed + 1, 60, spread),
        mixture(seed + 2, count, spread),
    )
    leaving = round(share * count)
    crowds = Crowds(field(sft), field(np.concatenate([corpus, pairs])))
    rows = [{"pair_id": f"{number:03d}"} for number in range(count)]
    found = race.leaving([OrderKey.RARITY], rows, pairs, crowds, leaving)
    assert len(set(found)) == leaving
    corpus = np.concatenate([corpus, pairs])
    # Of two whose crowds are as good as equal, either may leave; after that, others may be left.
    left = list(range(count))
    for place in found:
        exact = crowds_of(sft, corpus, pairs, left)
        assert exact[place] >= max(exact.values()) * (1 - 5e-3) - 1e-9
        left.remove(place)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.5, 6.0, 60.0]))
def test_crowds_are_the_exact_sums(seed: int, count: int, spread: float) -> None:
    sft, corpus, pairs = (
        mixture(seed, 30, spread),
        mixture(seed + 1, 60, spread),
        mixture(seed + 2, count, spread),
    )
    both = np.concatenate([corpus, pairs])
    crowds = Crowds(field(sft), field(both))
    exact = [crowd(sft, both, np.delete(pairs, place, axis=0), pairs[place]) for place in range(count)]
    assert crowds.among(pairs) == pytest.approx(exact, rel=5e-3, abs=1e-9)
    everyone = field(np.concatenate([sft, pairs]))
    assert crowds.at(corpus, everyone) == pytest.approx(
        [crowd(sft, both, pairs, place) for place in corpus], rel=5e-3, abs=1e-9
    )


def test_of_many_of_one_region_some_stay() -> None:
    """No region is emptied because it was full: ten far pairs and ten at home, half of them leave."""
    sft = mixture(0, 100, 0.0)
    far = np.array([[20.0, 0.0]]) + 0.1 * np.random.default_rng(1).normal(size=(10, 2))
    home = 0.1 * np.random.default_rng(2).normal(size=(10, 2))
    crowds = Crowds(field(sft), field(np.concatenate([sft, home, *[far] * 5])))
    rows = [{"pair_id": f"{number:03d}"} for number in range(20)]
    gone = race.leaving([OrderKey.RARITY], rows, np.concatenate([far, home]), crowds, 10)
    assert set(gone) == set(range(10, 20))
    gone = race.leaving([OrderKey.RARITY], rows, np.concatenate([far, home]), crowds, 19)
    assert set(range(20)) - set(gone) < set(range(10))


def pair(number: int, quality: int = 8, difficulty: int = 5, age: int = 0) -> dict[str, Any]:
    return {"pair_id": f"{number:03d}", "quality": quality, "difficulty": difficulty, "age": age}


SAME = np.zeros((4, 2))
APART = np.array([[0.0, 0.0], [30.0, 0.0], [60.0, 0.0], [90.0, 0.0]])


@pytest.mark.parametrize(
    ("order", "rows", "first"),
    [
        ("rarity,scores", [pair(0, 9), pair(1, 8, 6), pair(2, 8, 5), pair(3, 10)], [2, 1, 0, 3]),
        ("rarity,age", [pair(0, age=3), pair(1, age=1), pair(2, age=-1), pair(3, age=2)], [2, 1, 3, 0]),
        (
            "rarity,scores,age",
            [pair(0, age=3), pair(1, age=1), pair(2, 9, age=-1), pair(3, 7, age=2)],
            [3, 1, 0, 2],
        ),
        ("rarity", [pair(0), pair(1), pair(2), pair(3)], [3, 2, 1, 0]),
        ("scores", [pair(0, 9), pair(1, 8, 6), pair(2, 8, 5), pair(3, 10)], [2, 1, 0, 3]),
        ("age,scores", [pair(0, 9, age=1), pair(1, 8, age=1), pair(2, 1, age=2), pair(3, 10)], [3, 1, 0, 2]),
    ],
)
def test_each_key_decides_where_those_before_it_tie(
    order: str, rows: list[dict[str, Any]], first: list[int]
) -> None:
    keys = [OrderKey(name) for name in order.split(",")]
    crowds = Crowds(field(SAME), field(SAME))
    assert race.leaving(keys, rows, SAME, crowds, 4) == first


def test_a_key_before_rarity_goes_before_it() -> None:
    rows = [pair(0, 9), pair(1, 7), pair(2, 9), pair(3, 8)]
    crowds = Crowds(field(SAME), field(np.concatenate([APART, SAME])))
    keys = [OrderKey.SCORES, OrderKey.RARITY]
    assert race.leaving(keys, rows, APART, crowds, 3) == [1, 3, 0]
    assert race.leaving(keys[::-1], rows, APART, crowds, 1) == [0]


def test_a_pair_without_a_place_leaves_first_and_where_no_corpus_is_nothing_is_needed() -> None:
    rows, nowhere = [pair(number) for number in range(4)], APART.copy()
    nowhere[2] = np.nan
    crowds = Crowds(field(SAME), field(APART[:3]))
    assert race.leaving([OrderKey.RARITY], rows, nowhere, crowds, 2)[0] == 2
    # Beyond 38 bandwidths from any document float64 knows none.
    lost = np.concatenate([APART[:3], [[500.0, 0.0]]])
    assert race.leaving([OrderKey.RARITY], rows, lost, crowds, 1) == [3]


@given(
    st.lists(st.floats(0, 10), max_size=12),
    st.lists(st.floats(0, 10), max_size=30),
    st.sampled_from([0.25, 1.0, 3.0]),
    st.integers(0, 3),
)
def test_as_many_places_can_be_won_as_pairs_are_more_crowded_than_documents(
    own: list[float], documents: list[float], per_document: float, over: int
) -> None:
    over, own, documents = min(over, len(own)), sorted(own), sorted(documents)
    counts = np.searchsorted(np.array(documents), np.array(own)) if own else np.empty(0, np.int64)
    # One exchange after the other: the most crowded pair for the pairs of the rarest documents.
    best = 0
    for places in range(1, len(own) - over + 1):
        last = own[len(own) - over - places]
        rarer = sum(document < last for document in documents)
        if rarer * per_document >= places:
            best = places
    places, limit = race.winnable(np.array(own), counts, per_document, over)
    assert places == best
    if places:
        assert limit == own[len(own) - over - places]
