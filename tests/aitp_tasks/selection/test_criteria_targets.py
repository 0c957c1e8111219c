"""Thresholds and targets against sorting; written from the promise alone, not from the code."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aitp_tasks.config import Criterion, Difference
from aitp_tasks.densities.field import Field, Window, cells_per_bandwidth
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.selection import criteria

Floats = NDArray[np.float64]
Shards = list[tuple[pa.Table, Floats]]
Key = tuple[str, str, int]

FLOOR = 1e-10
CRITERIA = [Criterion.DENSITY_RATIO, Criterion.SFT_DENSITY]


def doc_ids(count: int) -> list[str]:
    """Distinct ids of 32 hex digits, in no order."""
    return [hashlib.md5(str(number).encode()).hexdigest() for number in range(count)]


def shard(name: str, ids: Sequence[str], scores: Floats) -> tuple[pa.Table, Floats]:
    """One shard of documents and their scores."""
    table = pa.table(
        {
            "doc_id": pa.array(list(ids), pa.string()),
            "shard": pa.array([name] * len(ids), pa.string()),
            "row": pa.array(range(len(ids)), pa.int64()),
        }
    )
    return table, np.asarray(scores, np.float64)


def cut(ids: Sequence[str], scores: Floats, parts: int) -> Shards:
    """The documents in ``parts`` shards of nearly the same size, some of them empty where there are few."""
    borders = [len(ids) * part // parts for part in range(parts + 1)]
    return [
        shard(
            f"s-{part:05d}", ids[borders[part] : borders[part + 1]], scores[borders[part] : borders[part + 1]]
        )
        for part in range(parts)
    ]


def difference(**values: Any) -> Difference:
    """The section with ``values``."""
    return Difference(**values)


def threshold_of(shards: Shards, **values: Any) -> Any:
    """The threshold over ``shards``, which may be read more than once."""

    def documents() -> Iterator[tuple[pa.Table, Floats]]:
        return iter(shards)

    return criteria.threshold(difference(**values), documents)


def chosen(shards: Shards, **values: Any) -> list[Key]:
    """What is selected, in the order of the shards."""
    found = threshold_of(shards, **values)
    keys: list[Key] = []
    for table, scores in shards:
        below = found.below(table, scores)
        assert below.dtype == np.bool_
        assert below.shape == (len(table),)
        rows = table.filter(pa.array(below)).to_pylist()
        keys += [(row["doc_id"], row["shard"], row["row"]) for row in rows]
    return keys


def scores_by_key(shards: Shards) -> dict[Key, float]:
    """Every document's score."""
    return {
        (row["doc_id"], row["shard"], row["row"]): float(score)
        for table, scores in shards
        for row, score in zip(table.to_pylist(), scores, strict=True)
    }


def assert_smallest(shards: Shards, wanted: int, keys: Sequence[Key]) -> None:
    """``keys`` are as many as ``wanted``, or all, and none that is left out has a smaller score."""
    scores = scores_by_key(shards)
    assert len(keys) == len(set(keys)) == min(wanted, len(scores))
    ordered = np.sort(np.array(list(scores.values()), np.float64))
    np.testing.assert_array_equal(np.sort([scores[key] for key in keys]), ordered[: len(keys)])


# Scores that every target is tried on.


def _all_different(random: np.random.Generator, count: int) -> Floats:
    return random.permutation(np.geomspace(1e-12, 1e3, count))


def _all_zero(random: np.random.Generator, count: int) -> Floats:
    return np.zeros(count)


def _all_at_the_floor(random: np.random.Generator, count: int) -> Floats:
    return np.full(count, FLOOR)


def _all_one(random: np.random.Generator, count: int) -> Floats:
    return np.ones(count)


def _half_zero(random: np.random.Generator, count: int) -> Floats:
    return np.where(random.permutation(count) < count // 2, 0.0, random.uniform(1e-9, 2, count))


def _half_at_the_floor(random: np.random.Generator, count: int) -> Floats:
    return np.where(random.permutation(count) < count // 2, FLOOR, random.uniform(1e-9, 2, count))


def _half_largest(random: np.random.Generator, count: int) -> Floats:
    return np.where(random.permutation(count) < count // 2, 7.0, random.uniform(0, 7, count))


def _few_values(random: np.random.Generator, count: int) -> Floats:
    return random.choice([0.0, 1e-300, FLOOR, 0.25, 1.0], size=count)


def _both_zeros(random: np.random.Generator, count: int) -> Floats:
    """0.0 and -0.0 are one score."""
    return random.choice([0.0, -0.0], size=count)


def _neighbouring_floats(random: np.random.Generator, count: int) -> Floats:
    values = [np.nextafter(FLOOR, 0), FLOOR, np.nextafter(FLOOR, 1)]
    return random.choice(np.array(values), size=count)


def _subnormal(random: np.random.Generator, count: int) -> Floats:
    return random.integers(0, 4, size=count) * 5e-324


def _every_magnitude(random: np.random.Generator, count: int) -> Floats:
    return 10 ** random.uniform(-320, 300, size=count)


def _one_huge(random: np.random.Generator, count: int) -> Floats:
    scores = random.uniform(0, 1, size=count)
    scores[random.integers(count)] = 1e308
    return scores


def _cosines(random: np.random.Generator, count: int) -> Floats:
    return np.round(random.uniform(-1, 1, size=count), 2)


SCORES: list[Callable[[np.random.Generator, int], Floats]] = [
    _all_different,
    _all_zero,
    _all_at_the_floor,
    _all_one,
    _half_zero,
    _half_at_the_floor,
    _half_largest,
    _few_values,
    _both_zeros,
    _neighbouring_floats,
    _subnormal,
    _every_magnitude,
    _one_huge,
    _cosines,
]


def named(function: Callable[..., Any]) -> str:
    """The name of a case."""
    return function.__name__.strip("_")


# How many, and which.


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("make", SCORES, ids=named)
def test_target_documents(make: Callable[..., Floats], criterion: Criterion) -> None:
    """1, 2, the middle, n - 1, n, n + 1 and ten times n."""
    count = 240
    shards = cut(doc_ids(count), make(np.random.default_rng(1), count), 7)
    for wanted in (1, 2, 119, 120, 121, count - 1, count, count + 1, 10 * count):
        keys = chosen(shards, criterion=criterion, target_documents=wanted)
        assert_smallest(shards, wanted, keys)


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("make", SCORES, ids=named)
def test_target_share(make: Callable[..., Floats], criterion: Criterion) -> None:
    count = 200
    shards = cut(doc_ids(count), make(np.random.default_rng(2), count), 5)
    for share, wanted in ((0.001, 0), (0.01, 2), (0.29, 58), (0.5, 100), (0.57, 114), (0.999, 200)):
        keys = chosen(shards, criterion=criterion, target_share=share)
        assert_smallest(shards, wanted, keys)


@pytest.mark.parametrize(
    ("count", "share", "wanted"),
    [
        (10, 0.5, 5),
        (10, 0.04, 0),
        (10, 0.06, 1),
        (10, 0.94, 9),
        (10, 0.96, 10),
        (5, 0.5, 2),
        (7, 0.5, 4),
        (3, 1 / 3, 1),
        (100, 0.29, 29),
        (100, 0.58, 58),
        (1, 0.4, 0),
        (1, 0.6, 1),
        (1, 0.999, 1),
        (20_000, 0.05, 1000),
    ],
)
def test_a_share_is_rounded_as_python_rounds(count: int, share: float, wanted: int) -> None:
    """Halves to the even number; 0.29 of 100 is 29 although 0.29 * 100 < 29."""
    assert wanted == round(share * count)
    random = np.random.default_rng(3)
    for scores in (random.uniform(size=count), np.full(count, FLOOR)):
        shards = cut(doc_ids(count), scores, 3)
        keys = chosen(shards, criterion=Criterion.SFT_DENSITY, target_share=share)
        assert_smallest(shards, wanted, keys)


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_many_documents_most_of_them_equal(criterion: Criterion) -> None:
    """150,000 documents, 100,000 at exactly 0: targets inside the tie, at its end and after it."""
    count = 150_000
    random = np.random.default_rng(4)
    scores = np.where(random.permutation(count) < 100_000, 0.0, random.uniform(1e-9, 1, count))
    shards = cut(doc_ids(count), scores, 60)
    ordered = np.sort(scores)
    for wanted in (1, 12_345, 99_999, 100_000, 100_001, 149_999):
        found = threshold_of(shards, criterion=criterion, target_documents=wanted)
        taken = np.concatenate([found.below(table, values) for table, values in shards])
        assert taken.sum() == wanted
        np.testing.assert_array_equal(np.sort(scores[taken]), ordered[:wanted])


def test_any_scores_any_target() -> None:
    """Property: as sorting says, however few the values and however the shards are cut."""

    @settings(max_examples=120, derandomize=True, deadline=None, database=None)
    @given(
        scores=st.lists(
            st.one_of(
                st.sampled_from([0.0, -0.0, 1e-300, FLOOR, 1.0, 5e-324]),
                st.floats(0, 1e6, allow_nan=False),
            ),
            min_size=1,
            max_size=40,
        ),
        parts=st.integers(1, 9),
        wanted=st.integers(1, 45),
        seed=st.integers(0, 2**63 - 1),
        criterion=st.sampled_from(CRITERIA),
    )
    def holds(scores: list[float], parts: int, wanted: int, seed: int, criterion: Criterion) -> None:
        shards = cut(doc_ids(len(scores)), np.array(scores), parts)
        keys = chosen(shards, criterion=criterion, target_documents=wanted, seed=seed)
        assert_smallest(shards, wanted, keys)
        again = cut(doc_ids(len(scores)), np.array(scores), 1)
        one = chosen(again, criterion=criterion, target_documents=wanted, seed=seed)
        assert sorted(key[0] for key in one) == sorted(key[0] for key in keys)

    holds()


# Ties.


def order_of(shards: Shards, **values: Any) -> list[Key]:
    """Documents in the order in which growing targets take them."""
    count = sum(len(table) for table, _ in shards)
    taken: list[Key] = []
    for wanted in range(1, count + 1):
        keys = chosen(shards, target_documents=wanted, **values)
        assert len(keys) == wanted
        new = [key for key in keys if key not in taken]
        assert len(new) == 1, f"the {wanted} taken do not hold the {wanted - 1} before"
        taken += new
    return taken


@pytest.mark.parametrize("score", [0.0, 1e-300, FLOOR, 0.5, 1.0, 1e6])
def test_equal_documents_have_one_order_whatever_their_score(score: float) -> None:
    ids = doc_ids(14)
    reference = order_of(cut(ids, np.zeros(14), 1), criterion=Criterion.SFT_DENSITY, seed=5)
    assert sorted(key[0] for key in reference) == sorted(ids)
    found = order_of(cut(ids, np.full(14, score), 4), criterion=Criterion.DENSITY_RATIO, seed=5)
    assert [key[0] for key in found] == [key[0] for key in reference]


def test_the_seed_decides_among_equals() -> None:
    """Two seeds agree on as many of 1,000 out of 2,000 as chance would have it: 500, deviation 11.2."""
    shards = cut(doc_ids(2000), np.full(2000, FLOOR), 4)
    values = {"criterion": Criterion.SFT_DENSITY, "target_documents": 1000}
    first, second = (set(chosen(shards, seed=seed, **values)) for seed in (0, 1))
    assert abs(len(first & second) - 500) < 6 * 11.2
    assert set(chosen(shards, seed=0, **values)) == first


@pytest.mark.parametrize("kind", ["by_shard", "by_row", "by_id"])
def test_no_half_is_preferred_among_equals(kind: str) -> None:
    """Neither early shards, early rows nor small ids: 500 of 1,000 from each half, deviation 11.2."""
    ids = sorted(doc_ids(2000)) if kind == "by_id" else doc_ids(2000)
    shards = cut(ids, np.zeros(2000), 20)
    keys = set(chosen(shards, criterion=Criterion.SFT_DENSITY, target_documents=1000))
    everything = list(scores_by_key(shards))
    half = {
        key for place, key in enumerate(everything) if (key[2] < 50 if kind == "by_row" else place < 1000)
    }
    assert len(half) == 1000
    assert abs(len(keys & half) - 500) < 6 * 11.2


def test_a_tie_is_broken_only_where_it_must_be() -> None:
    """All documents below the tied score are in, whatever their hash, and none above it."""
    random = np.random.default_rng(6)
    scores = random.permutation(np.concatenate([np.full(300, 0.1), np.full(300, 0.2), np.full(300, 0.3)]))
    shards = cut(doc_ids(900), scores, 8)
    by_key = scores_by_key(shards)
    counts = Counter(by_key[key] for key in chosen(shards, target_documents=450))
    assert counts == {0.1: 300, 0.2: 150}


@pytest.mark.parametrize("part", ["head", "tail", "middle"])
def test_ids_that_differ_in_few_digits(part: str) -> None:
    """Ids that share 28 of 32 digits are as good as others."""
    digits = [f"{number:04x}" for number in range(1000)]
    places = {"head": 0, "tail": 28, "middle": 14}[part]
    ids = ["a" * places + four + "a" * (28 - places) for four in digits]
    shards = cut(ids, np.zeros(1000), 3)
    keys = chosen(shards, criterion=Criterion.SFT_DENSITY, target_documents=500)
    assert_smallest(shards, 500, keys)
    assert abs(sum(int(key[0][places : places + 4], 16) < 500 for key in keys) - 250) < 6 * 8


# Repeated ids.


@pytest.mark.parametrize("wanted", [1, 2, 3, 7, 50, 149, 150, 151])
def test_one_id_everywhere(wanted: int) -> None:
    """Equal scores and one id: shard, then row decide."""
    shards = [shard(f"s-{part}", ["0f" * 16] * 30, np.full(30, FLOOR)) for part in range(5)]
    keys = chosen(shards[::-1], criterion=Criterion.SFT_DENSITY, target_documents=wanted)
    right = [("0f" * 16, f"s-{part}", row) for part in range(5) for row in range(30)][:wanted]
    assert sorted(keys) == right


@pytest.mark.parametrize("wanted", [1, 5, 33, 100, 199, 200])
def test_repeated_ids_in_several_shards(wanted: int) -> None:
    """40 ids, each in five shards: whole ids are taken, and of one at most its first shards."""
    ids = doc_ids(40)
    shards = [shard(f"s-{part}", np.roll(ids, part).tolist(), np.zeros(40)) for part in range(5)]
    keys = chosen(shards, criterion=Criterion.SFT_DENSITY, target_documents=wanted, seed=9)
    assert len(keys) == wanted
    copies = Counter(key[0] for key in keys)
    assert sum(count < 5 for count in copies.values()) <= 1
    for doc_id, count in copies.items():
        assert sorted(key[1] for key in keys if key[0] == doc_id) == [f"s-{part}" for part in range(count)]
    assert sorted(keys) == sorted(
        chosen(shards[::-1], criterion=Criterion.SFT_DENSITY, target_documents=wanted, seed=9)
    )


def test_repeated_ids_of_different_scores() -> None:
    """A copy with a larger score is no better for its id."""
    ids = doc_ids(50)
    shards = [shard(f"s-{part}", ids, np.full(50, float(part))) for part in range(4)]
    for wanted in (1, 49, 50, 51, 120, 199):
        assert_smallest(shards, wanted, chosen(shards, target_documents=wanted))


# Shards.


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("make", [_all_zero, _half_at_the_floor, _few_values, _all_different], ids=named)
def test_one_shard_against_a_thousand(make: Callable[..., Floats], criterion: Criterion) -> None:
    ids, scores = doc_ids(1500), make(np.random.default_rng(7), 1500)
    for values in ({"target_documents": 431}, {"target_share": 0.6}):
        one = chosen(cut(ids, scores, 1), criterion=criterion, **values)
        thousand = chosen(cut(ids, scores, 1000), criterion=criterion, **values)
        assert sorted(key[0] for key in one) == sorted(key[0] for key in thousand)


@pytest.mark.parametrize("make", [_all_zero, _half_at_the_floor, _few_values, _all_different], ids=named)
def test_the_order_of_shards_and_rows_does_not_matter(make: Callable[..., Floats]) -> None:
    random = np.random.default_rng(8)
    ids, scores = doc_ids(600), make(random, 600)
    shards = cut(ids, scores, 13)
    wanted = {"criterion": Criterion.SFT_DENSITY, "target_documents": 217}
    right = sorted(chosen(shards, **wanted))
    assert sorted(chosen(shards[::-1], **wanted)) == right
    assert sorted(chosen([shards[place] for place in random.permutation(13)], **wanted)) == right
    order = random.permutation(600)
    mixed = cut([ids[place] for place in order], scores[order], 13)
    assert sorted(key[0] for key in chosen(mixed, **wanted)) == sorted(key[0] for key in right)


def test_empty_shards_between_others() -> None:
    ids, scores = doc_ids(90), np.full(90, FLOOR)
    full = cut(ids, scores, 3)
    empty = [shard(f"e-{part}", [], np.empty(0)) for part in range(4)]
    mixed = [empty[0], full[0], empty[1], empty[2], full[1], full[2], empty[3]]
    values = {"criterion": Criterion.SFT_DENSITY, "target_documents": 37}
    assert sorted(chosen(mixed, **values)) == sorted(chosen(full, **values))
    assert len(chosen(mixed, **values)) == 37


def test_below_is_decided_document_by_document() -> None:
    """Of any part of a shard the same documents are selected as of the whole."""
    shards = cut(doc_ids(400), np.repeat([0.0, FLOOR], 200), 2)
    found = threshold_of(shards, criterion=Criterion.SFT_DENSITY, target_documents=77)
    for table, scores in shards:
        whole = found.below(table, scores)
        single = [found.below(table.slice(row, 1), scores[row : row + 1])[0] for row in range(len(table))]
        np.testing.assert_array_equal(whole, single)
        backwards = found.below(table.take(pa.array(range(len(table) - 1, -1, -1))), scores[::-1])
        np.testing.assert_array_equal(backwards[::-1], whole)


def test_chunked_columns_and_further_ones() -> None:
    """A table of several chunks, with columns in another order, is the same documents."""
    ids, scores = doc_ids(60), np.zeros(60)
    [(table, _)] = cut(ids, scores, 1)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 0), table.slice(7, 53)])
    other = pieces.select(["row", "shard", "doc_id"]).append_column("text", pa.array(["x"] * 60))
    values = {"criterion": Criterion.SFT_DENSITY, "target_documents": 23}
    assert chosen([(other, scores)], **values) == chosen([(table, scores)], **values)


# τ.


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("tau", [1e-300, FLOOR, 0.2, 1.0, 50.0])
def test_without_a_target_scores_below_tau(tau: float, criterion: Criterion) -> None:
    scores = np.array([0.0, 1e-320, np.nextafter(tau, 0), tau, np.nextafter(tau, np.inf), 2 * tau, 1e300])
    shards = cut(doc_ids(len(scores)), scores, 3)
    found = threshold_of(shards, criterion=criterion, tau=tau)
    assert found.tau == tau
    taken = np.concatenate([found.below(table, values) for table, values in shards])
    assert taken.tolist() == [True, True, True, False, False, False, False]


@pytest.mark.parametrize("make", SCORES, ids=named)
def test_a_target_sets_tau_between_what_is_taken_and_what_is_not(make: Callable[..., Floats]) -> None:
    scores = make(np.random.default_rng(10), 150)
    shards = cut(doc_ids(150), scores, 4)
    for wanted in (1, 75, 149, 150):
        found = threshold_of(shards, criterion=Criterion.SFT_DENSITY, target_documents=wanted)
        taken = np.concatenate([found.below(table, values) for table, values in shards])
        assert scores[taken].max() <= found.tau
        assert wanted == 150 or found.tau <= scores[~taken].min()


# Scores.


def test_density_ratio_divides_sft_by_corpus() -> None:
    p_corpus, p_sft = np.array([1e-3, 0.2, 1e-6, 0.05]), np.array([2e-3, 0.1, 1e-3, 0.05])
    found = criteria.score(Criterion.DENSITY_RATIO, p_corpus, p_sft)
    np.testing.assert_allclose(found, [2.0, 0.5, 1000.0, 1.0], rtol=1e-15)


def test_density_ratio_of_far_documents_is_small_and_finite() -> None:
    found = criteria.score(Criterion.DENSITY_RATIO, np.full(3, 1e-5), np.array([0.0, 1e-300, 9e-11]))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1.001e-5).all()


def test_sft_density_is_not_floored() -> None:
    p_sft = np.array([0.0, 5e-324, 1e-300, 1e-40, FLOOR, 0.1])
    np.testing.assert_array_equal(criteria.score(Criterion.SFT_DENSITY, np.ones(6), p_sft), p_sft)


# From points to what is selected.


def log_density(points: Floats, sources: Floats) -> Floats:
    """Natural logarithm of the exact kernel sum in one dimension, bandwidth 1."""
    exponents = -0.5 * (points[:, None] - sources[None]) ** 2
    largest = exponents.max(axis=1)
    sums = np.array([math.fsum(row) for row in np.exp(exponents - largest[:, None])])
    return np.log(sums) + largest - math.log(len(sources) * math.sqrt(2 * math.pi))


def told(corpus: Floats, sft: Floats) -> tuple[Floats, Floats]:
    """Estimated densities of corpus and SFT set at the corpus points, in one dimension, bandwidth 1."""
    step = 1.0 / cells_per_bandwidth(1e-3, 1.0, 2)
    grids = [SparseGrid.of(points[:, None], step) for points in (corpus, sft)]
    window = Window.around(grids, 1.0)
    p_corpus, p_sft = (Field.of(grid, 1.0, window).at(corpus[:, None]) for grid in grids)
    return p_corpus, p_sft


@pytest.fixture(scope="module")
def line() -> tuple[Floats, Floats]:
    """400 SFT examples within 3 of the origin; 500 documents there, 1,500 from 11 to 60 away."""
    random = np.random.default_rng(11)
    sft = np.clip(random.normal(size=400), -3, 3)
    near = np.clip(random.normal(size=500), -3, 3)
    return np.concatenate([near, random.choice([-1, 1], 1500) * random.uniform(14, 63, 1500)]), sft


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("wanted", [1, 100, 750, 1499, 1500, 1501, 1750, 1999, 2000])
def test_far_documents_are_selected_first(
    line: tuple[Floats, Floats], wanted: int, criterion: Criterion
) -> None:
    """Exactly as many as asked, though three in four lie below the floor; far ones before near ones."""
    corpus, sft = line
    scores = criteria.score(criterion, *told(corpus, sft))
    shards = cut(doc_ids(len(corpus)), scores, 11)
    found = threshold_of(shards, criterion=criterion, target_documents=wanted)
    taken = np.concatenate([found.below(table, values) for table, values in shards])
    assert taken.sum() == wanted
    far = np.exp(log_density(corpus, sft)) < FLOOR
    assert far.sum() == 1500
    assert (taken & far).sum() == min(wanted, 1500)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.74, 0.75, 0.76])
def test_sft_density_ranks_far_documents_among_themselves(line: tuple[Floats, Floats], share: float) -> None:
    """No document is left out for one that is nearer by 13 bandwidths, unless it has the same score."""
    corpus, sft = line
    scores = criteria.score(Criterion.SFT_DENSITY, *told(corpus, sft))
    to_sft = np.abs(corpus[:, None] - sft[None]).min(axis=1)
    shards = cut(doc_ids(len(corpus)), scores, 1)
    found = threshold_of(shards, criterion=Criterion.SFT_DENSITY, target_share=share)
    taken = found.below(*shards[0])
    assert taken.sum() == round(share * len(corpus))
    for document in np.flatnonzero(taken):
        left_out = ~taken & (to_sft >= to_sft[document] + 13)
        # Only those that both are exactly 0, as float64 holds no smaller density.
        assert scores[document] == 0 or not left_out.any()
        assert (scores[left_out] == 0).all()


def test_twelve_is_taken_after_twenty_five() -> None:
    """A target of the half takes those at 25 bandwidths and leaves those at 12."""
    random = np.random.default_rng(12)
    corpus = random.permutation(np.concatenate([np.full(300, 12.0), np.full(300, -25.0)]))
    scores = criteria.score(Criterion.SFT_DENSITY, *told(corpus, np.zeros(5)))
    shards = cut(doc_ids(600), scores, 6)
    found = threshold_of(shards, criterion=Criterion.SFT_DENSITY, target_documents=300)
    taken = np.concatenate([found.below(table, values) for table, values in shards])
    # Unless both are exactly 0 in the estimate, which makes them equal.
    if (scores > 0).any():
        assert (corpus[taken] == -25.0).all()
    assert taken.sum() == 300
