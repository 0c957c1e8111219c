"""Draws by yield, over documents in memory: sums, caps, floors, and who passes a share on to whom."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.config import Difference
from aitp_tasks.densities.partition import Partition
from aitp_tasks.records import digest, kept, versions
from aitp_tasks.selection.allocation import Region, floor_of
from aitp_tasks.selection.drawing import by_yield, counts, not_drawn
from aitp_tasks.selection.fit import Fit
from aitp_tasks.selection.sample import Quotas, Sample
from aitp_tasks.selection.sampled import Sampled
from tests.aitp_tasks.selection.test_allocation import by_bisection

COUNT, REGIONS = 300, 5


def documents(repeated: int = 0) -> pa.Table:
    """Documents of four sources, some of them twice, in two shards."""
    random = np.random.default_rng(11)
    ids = [digest.of_text(str(number)) for number in range(COUNT)]
    points = random.normal(size=(COUNT, 2)) * [3, 1]
    rows = np.append(np.arange(COUNT), np.arange(repeated))
    return pa.table(
        {
            "doc_id": [ids[row] for row in rows],
            "source": [f"site-{min(row % 7, 3)}" for row in rows],
            "shard": ["a"] * COUNT + ["b"] * repeated,
            "row": rows,
            "x": points[rows, 0],
            "y": points[rows, 1],
        }
    )


def drawing(table: pa.Table, settings: Difference) -> Any:
    """How a run draws, of a table."""

    def draw(quotas: Quotas | None) -> Fit:
        sample = Sample(settings, 1.0, quotas=quotas)
        for some in np.array_split(np.random.default_rng(2).permutation(len(table)), 4):
            sample.add(table.take(some))
        nothing = pa.table({"reason": pa.array([], pa.string())})
        return Fit(sample.documents(), nothing, 0, 0, sample.seen)

    return draw


def available(table: pa.Table, cap: int | None, partition: Partition) -> list[int]:
    """Documents of each region that a cap lets in, in plain Python."""
    seen, there = Counter[str](), set[str]()
    for row in sorted(table.to_pylist(), key=lambda row: kept.draw(0, row["doc_id"])):
        if row["doc_id"] in there or (cap is not None and seen[row["source"]] >= cap):
            continue
        there.add(row["doc_id"])
        seen[row["source"]] += 1
    rows = table.filter(pa.array([name in there for name in table["doc_id"].to_pylist()]))
    unique = {row["doc_id"]: (row["x"], row["y"]) for row in rows.to_pylist()}
    found = Counter(partition.at(np.array(list(unique.values()))).tolist())
    return [found[region] for region in range(partition.regions)]


@pytest.mark.parametrize("cap", [None, 30])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@pytest.mark.parametrize("size", [60, 250, 1000])
@pytest.mark.parametrize("pairs", [(1, 2, 4, 8, 40), (0, 0, 0, 0, 0), (0, 0, 3, 0, 0)])
def test_the_rest_is_drawn_as_the_shares_say(
    size: int, cap: int | None, sampling: str, pairs: tuple[int, ...]
) -> None:
    table = documents(repeated=40)
    settings = Difference.model_validate(
        {
            **{"max_documents": size, "max_per_source": cap, "sampling": sampling},
            **{"allocation": "yield", "regions": REGIONS, "pilot_documents": 4},
        }
    )
    draw = drawing(table, settings)
    even = draw(None).drawn
    sampled = Sampled.of(even, settings, 1.0, None, 5000)
    assert sampled.partition is not None
    assert sampled.is_pilot
    taken = counts(sampled.partition, sampled.written)
    assert taken.tolist() == [4] * REGIONS
    known = versions.Regions(
        cuts=sampled.partition.cuts,
        setup="",
        documents=(4,) * REGIONS,
        pairs=pairs,
        tokens=(100,) * REGIONS,
    )
    pilot = frozenset(sampled.written["doc_id"].to_pylist())
    left = len(even) - len(pilot)
    found = by_yield(settings, draw, left, known, tuple(taken.tolist()), pilot).drawn
    ids = found["doc_id"].to_pylist()
    # As many as even allocation would have drawn, each once, and the pilot's among them.
    assert len(ids) == len(set(ids)) == len(even) == min(size, sum(available(table, cap, sampled.partition)))
    assert pilot <= set(ids)
    assert cap is None or max(Counter(found["source"].to_pylist()).values()) <= cap
    there = [most - 4 for most in available(table, cap, sampled.partition)]
    regions = {str(number): Region(there[number], 4, pairs[number], 100) for number in range(REGIONS)}
    floor = floor_of(regions, left, settings.floor_share)
    drawn = counts(sampled.partition, found) - taken
    expected = by_bisection(list(regions.values()), left, floor)
    assert all(abs(got - share) < 1 for got, share in zip(drawn, expected, strict=True)), (drawn, expected)


def test_every_document_below_the_threshold_is_accounted_for() -> None:
    table = documents(repeated=40)
    found = drawing(table, Difference(max_documents=100))(None)
    told = not_drawn(found, len(table), is_short=False)
    assert sum(told.values()) + len(found.drawn) == len(table)
    assert not_drawn(found, len(table), is_short=True)["no_room"] == told["not_sampled"]
    everything = drawing(table, Difference())(None)
    assert not_drawn(everything, len(table), is_short=False)["repeated_text"] == 40
