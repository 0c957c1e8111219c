"""The sample is the same whatever the shards; strata and caps do what they say."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.config import Criterion, Difference, RunConfig, Sampling
from aitp_tasks.densities.field import Field, Window
from aitp_tasks.densities.geometry import ROLES, Geometry
from aitp_tasks.densities.grid import SparseGrid
from aitp_tasks.densities.moments import Moments
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import digest, kept
from aitp_tasks.selection import criteria, sample
from aitp_tasks.selection.sample import Quotas, Sample
from tests.aitp_tasks.conftest import Configure

CORPUS = np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float16)
SFT = (np.random.default_rng(1).normal(size=(500, 6)) * 0.7 + 0.5).astype(np.float16)
IDS = [digest.of_text(str(number)) for number in range(len(CORPUS))]


def select(config: RunConfig, order: Any, cuts: list[int]) -> tuple[bytes, list[dict[str, Any]]]:
    """Geometry and selection when the corpus comes in shards: ``order`` cut at ``cuts``."""
    pieces = [piece for piece in np.split(order, sorted(set(cuts))) if len(piece)]
    total = Moments.of(CORPUS[pieces[0]])
    for piece in pieces[1:]:
        total += Moments.of(CORPUS[piece])
    geometry = Geometry.fit(config.density, {"corpus": total, "sft": Moments.of(SFT)})
    points = [geometry.projections["corpus"].apply(CORPUS[piece]) for piece in pieces]
    grids = {"corpus": SparseGrid.empty(2, geometry.step)}
    for some in points:
        grids["corpus"] = grids["corpus"] + SparseGrid.of(some, geometry.step)
    grids["sft"] = SparseGrid.of(geometry.projections["sft"].apply(SFT), geometry.step)
    window = Window.around(list(grids.values()), 1.0)
    fields = {role: Field.of(grids[role], 1.0, window) for role in ROLES}
    chosen = Sample(config.difference, 1.0)
    for number, (piece, some) in enumerate(zip(pieces, points, strict=True)):
        scores = criteria.score(Criterion.DENSITY_RATIO, fields["corpus"].at(some), fields["sft"].at(some))
        table = _table([IDS[place] for place in piece], some, scores, f"shard-{number:04d}")
        chosen.add(table.filter(pa.array(scores < config.difference.tau)))
    drawn = chosen.documents().select(["doc_id", "x", "y", "score", "copies"]).to_pylist()
    return geometry.to_bytes(), drawn


def _table(ids: list[str], points: Any, scores: Any, shard: str) -> pa.Table:
    return pa.table(
        {
            "doc_id": ids,
            "source": pa.array([name[0] for name in ids]).dictionary_encode(),
            "shard": pa.array([shard] * len(ids)).dictionary_encode(),
            "row": np.arange(len(ids)),
            "x": points[:, 0],
            "y": points[:, 1],
            "score": scores,
        }
    )


SAMPLINGS = [
    {},
    {"sampling": "stratified"},
    {"max_per_source": 9},
    {"sampling": "stratified", "max_per_source": 9},
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_thousand_shards_in_any_order_select_the_same_bits(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any]
) -> None:
    monkeypatch.setattr(sample, "_PENDING", 200)
    config = configure(difference={"tau": 0.8, "max_documents": 120, **sampling})
    whole = select(config, np.arange(len(CORPUS)), [])
    assert len(whole[1]) == 120

    @settings(max_examples=3)
    @given(st.integers(0, 2**32 - 1))
    def same(seed: int) -> None:
        random = np.random.default_rng(seed)
        cuts = random.choice(np.arange(1, len(CORPUS)), 999, replace=False)
        assert select(config, random.permutation(len(CORPUS)), cuts.tolist()) == whole

    same()


def _points(count: int, crowded: int) -> Any:
    """``crowded`` points in one cell, the others in cells of their own."""
    return np.array([[0.5, 0.5] if i < crowded else [i + 0.5, 0.5] for i in range(count)])


def _drawn(**settings: Any) -> list[dict[str, Any]]:
    chosen = Sample(Difference(**settings), 1.0)
    chosen.add(_table(IDS[:200], _points(200, 180), np.zeros(200), "a"))
    return chosen.documents().to_pylist()


def test_strata_share_the_budget() -> None:
    cells = Counter(int(row["x"]) for row in _drawn(max_documents=60, sampling="stratified"))
    assert cells[0] == 40
    assert sum(count for cell, count in cells.items() if cell) == 20
    assert Counter(int(row["x"]) for row in _drawn(max_documents=60))[0] > 45


def by_quotas(table: pa.Table, quotas: Quotas, cap: int | None, stratified: bool) -> list[str]:
    """What is drawn of each region, in plain Python."""
    draws: dict[str, int] = {
        row["doc_id"]: -1 if row["doc_id"] in quotas.first else kept.draw(0, row["doc_id"])
        for row in table.to_pylist()
    }
    rows = {row["doc_id"]: row for row in table.to_pylist()}
    regions = dict(zip(table["doc_id"].to_pylist(), quotas.partition.at(_places(table)), strict=True))
    of_source, found, seen = Counter[str](), list[tuple[int, int, int, str]](), Counter[tuple[int, int]]()
    for name in sorted(rows, key=draws.__getitem__):
        row = rows[name]
        of_source[row["source"]] += 1
        if cap is None or of_source[row["source"]] <= cap:
            cell = (int(regions[name]), int(np.floor(row["x"])))
            found.append((int(regions[name]), seen[cell] if stratified else 0, draws[name], name))
            seen[cell] += 1
    drawn = list[str]()
    for region, wanted in enumerate(quotas.documents):
        drawn += [name for *_, name in sorted(one for one in found if one[0] == region)][:wanted]
    return sorted(drawn)


def _places(table: pa.Table) -> Any:
    return np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("documents", [(5, 0, 30, 1000), (0, 0, 0, 0), (1, 1, 1, 1)])
def test_each_region_gives_its_quota_whatever_the_shards(
    monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any], documents: tuple[int, ...]
) -> None:
    monkeypatch.setattr(sample, "_PENDING", 40)
    random = np.random.default_rng(5)
    points, count = random.normal(size=(400, 2)) * 3, 400
    table = _table(IDS[:count], points, np.zeros(count), "a")
    first = frozenset(IDS[7:9]) if max(documents) > 1 else frozenset()
    quotas = Quotas(Partition.of(points, 4), documents, first)
    settings = Difference(**sampling)
    stratified, cap = settings.sampling is Sampling.STRATIFIED, settings.max_per_source
    # Cells of the plain program go by their first coordinate alone.
    monkeypatch.setattr(sample, "_strata", lambda found, _: np.floor(found[:, 0]).astype(np.int64))
    for shards in (1, 7, 90):
        chosen = Sample(settings, 1.0, quotas=quotas)
        for some in np.array_split(random.permutation(count), shards):
            chosen.add(table.take(some))
        drawn = chosen.documents()
        assert drawn["doc_id"].to_pylist() == by_quotas(table, quotas, cap, stratified)
        assert "quota" not in drawn.column_names
        assert chosen.seen.tolist() == np.bincount(quotas.partition.at(points), minlength=4).tolist()
        assert not chosen.wants_more(drawn) or cap is not None


def test_more_is_wanted_where_a_region_falls_short_that_has_more() -> None:
    points = _points(200, 180)
    quotas = Quotas(Partition(((0, 1.0),)), (10, 50))
    chosen = Sample(Difference(), 1.0, quotas=quotas)
    chosen.add(_table(IDS[:200], points, np.zeros(200), "a"))
    drawn = chosen.documents()
    # The crowded region has more, of the other one all are drawn.
    assert not chosen.wants_more(drawn)
    assert chosen.wants_more(drawn.filter(pa.array(drawn["x"].to_numpy() > 1)))
    assert not chosen.wants_more(drawn.filter(pa.array(drawn["x"].to_numpy() < 1)))


def test_no_source_gives_more_than_its_cap() -> None:
    sources = Counter(row["source"] for row in _drawn(max_documents=100, max_per_source=4))
    assert set(sources.values()) == {4}


def test_equal_texts_are_drawn_once_and_counted() -> None:
    chosen = Sample(Difference(), 1.0)
    for shard in ("b", "a", "c"):
        chosen.add(_table(IDS[:5], _points(5, 5), np.zeros(5), shard))
    assert [(row["shard"], row["copies"]) for row in chosen.documents().to_pylist()] == [("a", 3)] * 5


@pytest.mark.parametrize("wanted", [1, 10, 99, 100, 1000])
def test_as_many_as_wanted_are_below(wanted: int) -> None:
    scores = np.random.default_rng(0).random(100)
    pieces = np.split(scores, 4)
    tables = [_table(IDS[:25], np.zeros((25, 2)), some, f"{some[0]}") for some in pieces]
    threshold = criteria.threshold(
        Difference(target_documents=wanted), lambda: iter(zip(tables, pieces, strict=True))
    )
    selected = [threshold.below(table, some) for table, some in zip(tables, pieces, strict=True)]
    assert np.concatenate(selected).sum() == min(wanted, 100)
