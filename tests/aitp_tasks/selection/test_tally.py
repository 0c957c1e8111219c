"""Counts, quantiles and density errors against numpy, on tables made by hand."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from aitp_tasks.config import Criterion
from aitp_tasks.densities import loops
from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.grid import Points, SparseGrid
from aitp_tasks.records import digest
from aitp_tasks.selection import criteria
from aitp_tasks.selection.criteria import SWEEP, Threshold
from aitp_tasks.selection.tally import COSINES, PROBES, QUANTILES, Spread, Tally, measured_errors

Floats = NDArray[np.float64]


@pytest.mark.parametrize("count", [1, 2, 19, 20, 1000, 100_000])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 6.0])
def test_quantiles_and_mean_are_those_of_numpy(count: int, sigma: float) -> None:
    values = np.random.default_rng(count).lognormal(-9.0, sigma, count)
    spread = Spread()
    for some in np.array_split(values, 3):
        spread.add(some)
    figures = spread.figures()
    assert list(figures) == ["mean", "q05", "q25", "q50", "q75", "q95"]
    assert figures.pop("mean") == pytest.approx(values.mean(), rel=5e-4)
    expected = np.quantile(values, QUANTILES, method="inverted_cdf")
    assert list(figures.values()) == pytest.approx(expected.tolist(), rel=5e-3)


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-300, 2e-21, 1e-20, 1.0, 1e10, 3e30, 1e300])
def test_quantiles_of_numbers_as_small_and_as_large_as_densities_may_be(value: float) -> None:
    spread = Spread()
    spread.add(np.array([0.0, *[value] * 98, 1e300]))
    told = list(spread.figures().values())[1:]
    assert told == pytest.approx([value] * 5, rel=5e-3, abs=1e-319)


def test_documents_that_are_nowhere_near_are_told_as_0() -> None:
    spread = Spread()
    spread.add(np.zeros(3))
    assert spread.figures() == {"mean": 0.0, **dict.fromkeys(["q05", "q25", "q50", "q75", "q95"], 0.0)}


def test_no_numbers_have_no_quantiles() -> None:
    spread = Spread()
    spread.add(np.empty(0))
    assert spread.figures() == {}


def coarse(points: Points, bandwidth: float) -> Field:
    """A field on the coarsest grid that is allowed."""
    grid = SparseGrid.of(points, bandwidth / 2)
    return Field.of(grid, bandwidth, Window.around([grid], bandwidth))


def errors(field: Field, probes: Points, points: Points) -> tuple[Floats, Floats]:
    """Exact densities float64 (m,) by all pairs, and the field's relative errors."""
    squares = ((probes[:, None] - points[None]) ** 2).sum(axis=-1)
    norm = len(points) * (2 * np.pi * field.bandwidth**2) ** (points.shape[1] / 2)
    exact = np.exp(-squares / (2 * field.bandwidth**2)).sum(axis=1) / norm
    return exact, np.abs(field.at(probes) / exact - 1)


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("bandwidth", [0.4, 1.0])
def test_the_largest_error_is_that_against_all_pairs(
    monkeypatch: pytest.MonkeyPatch, components: int, bandwidth: float
) -> None:
    monkeypatch.setattr(loops, "_SLICE", 64)
    random = np.random.default_rng(components)
    points = random.normal(size=(700, components)) * bandwidth * 2
    probes = random.normal(size=(PROBES, components)) * bandwidth * 3
    field = coarse(points, bandwidth)
    exact, found = errors(field, probes, points)
    assert exact.min() > 1e-10
    assert found.max() > 1e-3
    told = measured_errors(field, probes, np.split(points, [1, 1, 300])).relative
    assert told == pytest.approx(found.max(), rel=5e-3)


def test_errors_count_above_1e_10_only() -> None:
    points = np.zeros((1, 2))
    probes = np.array([[0.3, 0.0], [3.0, 1.0], [6.1, 0.5], [0.1, 6.9]])
    field = coarse(points, 1.0)
    exact, found = errors(field, probes, points)
    assert (exact > 1e-10).tolist() == [True, True, True, False]
    told = measured_errors(field, probes, [points])
    assert told.relative == pytest.approx(found[:3].max(), rel=5e-3)
    assert told.below_floor == pytest.approx(found[3] * exact[3], rel=5e-3)
    assert measured_errors(field, probes[3:], [points]).relative == 0.0
    assert measured_errors(field, probes[:3], [points]).below_floor == 0.0


def shard(name: str, sources: str, p_corpus: Any, p_sft: Any) -> tuple[dict[str, str], pa.Table, Floats]:
    """Facts, documents in the order of their ids, and scores of a shard; one letter a source."""
    facts = {"source": "news", "shard": f"corpus/news/{name}", "etag": f"etag of {name}"}
    ids = sorted(digest.of_text(f"{name} {row}") for row in range(len(sources)))
    places = np.array([[int(doc_id[:4], 16), int(doc_id[4:8], 16)] for doc_id in ids], np.float64)
    corpus, sft = np.array(p_corpus, np.float64), np.array(p_sft, np.float64)
    scores = criteria.score(Criterion.DENSITY_RATIO, corpus, sft)
    table = pa.table(
        {
            "doc_id": pa.array(ids, pa.string()),
            "row": np.arange(len(ids)),
            "x": places.reshape(-1, 2)[:, 0],
            "y": places.reshape(-1, 2)[:, 1],
            "p_corpus": corpus,
            "p_sft": sft,
            "ratio": scores,
            **{
                column: pa.array([facts[fact]] * len(ids), pa.string()).dictionary_encode()
                for column, fact in (("dump", "source"), ("shard", "shard"), ("etag", "etag"))
            },
            "source": pa.array(list(sources), pa.string()).dictionary_encode(),
        }
    )
    return facts, table, scores


def made() -> list[tuple[dict[str, str], pa.Table, Floats]]:
    """Three shards of six, none and three documents."""
    return [
        shard("first", "aaabbc", [1.0] * 6, [0.05, 0.1, 0.15, 0.5, 0.9, 3.0]),
        shard("second", "", [], []),
        shard("third", "cca", [0.5, 2.0, 4.0], [0.5, 1.0, 8.0]),
    ]


def test_documents_are_counted_by_threshold_shard_and_source() -> None:
    tally = Tally(Threshold(0.5))
    below = [tally.add(*one).tolist() for one in made()]
    assert below == [[True, True, True, False, False, False], [], [False, False, False]]
    figures = tally.figures()
    assert (figures["documents"], figures["below_tau"]) == (tally.documents, tally.below) == (9, 3)
    counts = [1, 3, 3, 5, 5, 6, 7, 7, 7]
    assert figures["sweep"] == [[tau, count] for tau, count in zip(SWEEP, counts, strict=True)]
    assert figures["p_corpus"]["mean"] == pytest.approx(12.5 / 9, rel=5e-4)
    assert figures["p_sft"]["q50"] == pytest.approx(0.5, rel=5e-3)

    facts, tables, _ = zip(*made(), strict=True)
    drawn = tables[0].slice(0, 2)
    assert tally.shard_table(drawn).to_pylist() == [
        {**facts[0], "documents": 6, "below_tau": 3, "selected": 2},
        {**facts[1], "documents": 0, "below_tau": 0, "selected": 0},
        {**facts[2], "documents": 3, "below_tau": 0, "selected": 0},
    ]
    assert tally.sources(drawn) == [
        {"source": "a", "documents": 4, "below_tau": 3, "selected": 2},
        {"source": "c", "documents": 3, "below_tau": 0, "selected": 0},
        {"source": "b", "documents": 2, "below_tau": 0, "selected": 0},
    ]


def test_the_largest_sources_are_told() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    sources = "".join(letter * (1 + number // 2) for number, letter in enumerate(letters))
    tally = Tally(Threshold(1.0))
    _, table, scores = shard("many", sources, [1.0] * len(sources), [1.0] * len(sources))
    tally.add({}, table, scores)
    told = [(found["source"], found["documents"]) for found in tally.sources(table)]
    assert told == sorted(Counter(sources).items(), key=lambda item: (-item[1], item[0]))[:20]


@pytest.mark.parametrize("count", [5, 200])
def test_probes_are_the_same_however_the_shards_are_ordered(count: int) -> None:
    random = np.random.default_rng(count)
    shards = [
        shard(str(number), "a" * size, np.ones(size), random.integers(1, 30, size))
        for number, size in enumerate(random.multinomial(count, [0.02, 0.08, 0.2, 0.7]))
    ]
    ids = np.concatenate([table["doc_id"].to_numpy() for _, table, _ in shards])
    points = np.concatenate([np.stack([table["x"], table["y"]], axis=1) for _, table, _ in shards])
    ratios = np.concatenate([scores for _, _, scores in shards])
    chosen = [np.argsort(ids)[:PROBES], np.lexsort([ids, ratios])[:8], np.lexsort([ids, -ratios])[:8]]
    expected = points[np.concatenate(chosen)]
    for _ in range(4):
        tally = Tally(Threshold(1.0))
        for place in random.permutation(len(shards)):
            tally.add(*shards[place])
        assert np.array_equal(tally.probes(), expected)


def test_a_text_that_repeats_is_one_probe() -> None:
    facts, table, scores = shard("0", "a" * 100, np.ones(100), np.ones(100))
    repeated = pa.concat_tables([table.slice(0, 1)] * 50 + [table]).sort_by("doc_id")
    once, often = Tally(Threshold(1.0)), Tally(Threshold(1.0))
    once.add(facts, table, scores)
    for _ in range(2):
        often.add(facts, repeated, np.ones(len(repeated)))
    assert np.array_equal(often.probes()[:PROBES], once.probes()[:PROBES])


def test_quantiles_of_cosines_are_those_of_numpy() -> None:
    values = np.random.default_rng(3).uniform(-1, 1, 5000)
    spread = Spread(COSINES)
    spread.add(np.append(values, [1.0, -1.0]))
    figures = spread.figures()
    assert figures.pop("mean") == pytest.approx(values.mean(), abs=1e-3)
    expected = np.quantile(values, QUANTILES, method="inverted_cdf")
    assert list(figures.values()) == pytest.approx(expected.tolist(), abs=2e-3)
