"""A pilot of each region, then the rest where it pays; nights after that need no pilot."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import generated, projected, selected
from aitp_tasks.records.run import Run
from aitp_tasks.selection.allocation import Region
from aitp_tasks.stages import allocate, answer, assemble, difference, rewrite, score
from aitp_tasks.tools import explain, lineage, skip
from tests.aitp_tasks.selection.test_allocation import by_bisection
from tests.aitp_tasks.world import World

pytestmark = pytest.mark.slow

REGIONS, BUDGET, PILOT = 4, 80, 6
#: Of a document's two questions, how many pass the gates, by its place.
GOOD = {"north": 2, "east": 1, "south": 0, "west": 0}
NIGHT: dict[str, Any] = {
    "sft": {"home": 40},
    "dump": dict.fromkeys(GOOD, 60),
    "share": 1.0,
    "questions": 2,
    "good": GOOD,
    "max_documents": BUDGET,
    "documents_per_part": 25,
    # All documents count as uncovered, those beside the pairs of earlier nights too.
    "difference": {"tau": 1e9, "allocation": "yield", "regions": REGIONS, "pilot_documents": PILOT},
}


def rows(run: Run, parts: list[str]) -> list[dict[str, Any]]:
    return [row for part in parts for row in selected.documents(run, part)]


def places(documents: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["text"].split()[0] for row in documents)


def region_of(row: dict[str, Any], cuts: list[tuple[int, float]], first: int, regions: int) -> int:
    """Where a document lies, walked down the cuts in plain Python."""
    if regions == 1:
        return first
    low, (axis, at) = regions // 2, cuts[0]
    if row["xyz"[axis]] < at:
        return region_of(row, cuts[1:low], first, low)
    return region_of(row, cuts[low:], first + low, regions - low)


def given(run: Run, parts: list[str]) -> dict[str, list[int]]:
    """What documents have given, counted from the tables of the stages and from what the stand-in does."""
    cuts = run.require_manifest("difference").figures["cuts"]
    found = {name: [0] * REGIONS for name in ("documents", "questions", "pairs", "tokens")}
    for part in parts:
        regions = {row["doc_id"]: region_of(row, cuts, 0, REGIONS) for row in rows(run, [part])}
        for region in regions.values():
            found["documents"][region] += 1
            # Five for each response: here is the rewritten document's.
            found["tokens"][region] += 5
        for row in generated.kept_rows(run, "rewrite", part):
            found["questions"][regions[row["doc_id"]]] += 1
        for stage in ("score", "answer"):
            for row in generated.rows(run, stage, part):
                found["tokens"][regions[row["doc_id"]]] += 5
        for row in generated.kept_rows(run, "answer", part):
            found["pairs"][regions[row["doc_id"]]] += 1
    return found


def prompt(run: Run, unit: int) -> None:
    """Rewrite, score and answer a part."""
    for stage in (rewrite, score, answer):
        stage.execute(run, unit)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which one night has a pilot that is drawn, and not yet rewritten."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("world"), patch)
        run = world.begin(NIGHT)
        world.runs.append(run)
        world.go_on(run, "difference")
        yield world


def first_night(world: World) -> Run:
    return Run.open(world.runs[0].uri)


def test_a_pilot_is_a_part_of_each_region_and_how_many_parts_follow_is_known(world: World) -> None:
    run = first_night(world)
    done = run.require_manifest("difference")
    assert run.pilot_parts == [f"pilot-{unit:04d}-of-{REGIONS:04d}" for unit in range(REGIONS)]
    assert run.parts == [*run.pilot_parts, *(f"part-{unit:04d}-of-0003" for unit in range(3))]
    told = difference.execute(run)
    assert (told["selected"], told["parts"], told["pilot_parts"]) == (BUDGET, 7, REGIONS)
    assert told["allocation"] == "yield, after a pilot"
    cuts = done.figures["cuts"]
    for region, part in enumerate(run.pilot_parts):
        documents = rows(run, [part])
        assert len(documents) == PILOT
        assert {region_of(row, cuts, 0, REGIONS) for row in documents} == {region}
        assert {row["region"] for row in documents} == {region}
    assert done.ledger is not None
    assert (done.ledger.rows_in, done.ledger.rows_out) == (240, REGIONS * PILOT)
    assert done.ledger.rejected["left_to_allocate"] == 240 - REGIONS * PILOT


def test_nothing_goes_on_before_the_pilot_is_answered(world: World) -> None:
    run = first_night(world)
    with pytest.raises(InputError, match="allocate has not been done in .*: run `aitp allocate` first"):
        rewrite.execute(run, REGIONS)
    with pytest.raises(InputError, match="rewrite of pilot-0000-of-0004 has not been done"):
        allocate.execute(run)
    with pytest.raises(InputError, match="has not been done"):
        assemble.execute(run)
    with pytest.raises(InputError, match="allocate has not been done"):
        skip.execute(run, REGIONS, "answer", "too early")
    assert generated.without(run) == {}
    assert run.find_manifest("allocate") is None


def test_the_rest_follows_what_the_pilot_has_given(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run = first_night(world)
    caplog.set_level(logging.INFO)
    world.go_on(run, "allocate")
    run = first_night(world)
    pilot, rest = rows(run, run.pilot_parts), rows(run, run.parts[REGIONS:])
    assert len(rest) == BUDGET - len(pilot)
    assert len({row["doc_id"] for row in [*pilot, *rest]}) == BUDGET
    measured = given(run, run.pilot_parts)
    cuts = run.require_manifest("difference").figures["cuts"]
    drawn = Counter(region_of(row, cuts, 0, REGIONS) for row in rest)
    regions = [
        Region(1000, *(measured[name][region] for name in ("documents", "pairs", "tokens")))
        for region in range(REGIONS)
    ]
    # A quarter of an even share of what is left.
    expected = by_bisection(regions, len(rest), len(rest) // REGIONS // 4)
    assert all(abs(drawn[region] - share) < 1 for region, share in enumerate(expected)), (drawn, expected)
    assert places(rest)["north"] > places(rest)["south"] > 0
    done = run.require_manifest("allocate")
    assert done.figures["by_region"] == [drawn[region] + PILOT for region in range(REGIONS)]
    assert done.ledger is not None
    assert (done.ledger.rows_in, done.ledger.rows_out) == (240 - len(pilot), len(rest))
    assert "allocate pilot=24 drawn=56" in caplog.text


def test_it_gives_the_same_again_and_does_nothing_twice(world: World) -> None:
    run = first_night(world)
    done, path = run.require_manifest("allocate"), world.root / run.manifest_key("allocate")
    written = path.stat().st_mtime_ns
    assert allocate.execute(run)["drawn"] == BUDGET - REGIONS * PILOT
    assert path.stat().st_mtime_ns == written
    path.unlink()
    allocate.execute(first_night(world))
    assert first_night(world).require_manifest("allocate").outputs == done.outputs


def test_a_part_that_is_done_again_has_spent_as_many_tokens(world: World) -> None:
    run = first_night(world)
    part = run.pilot_parts[0]
    tokens = generated.tokens(run, "rewrite", part)
    assert tokens == dict.fromkeys((row["doc_id"] for row in rows(run, [part])), 5)
    (world.root / run.manifest_key("rewrite", part)).unlink()
    rewrite.execute(run, 0)
    # Nothing was generated, as the responses were there.
    assert run.require_manifest("rewrite", part).figures["generated_tokens"] == 0
    assert generated.tokens(run, "rewrite", part) == tokens


def test_the_version_keeps_what_each_region_has_given(world: World) -> None:
    run = first_night(world)
    world.go_on(run, "report")
    run = first_night(world)
    measured, told = given(run, run.parts), run.require_manifest("assemble").figures["regions"]
    assert {name: told[name] for name in measured} == measured
    version = world.latest()
    assert version is not None
    assert version.regions is not None
    assert version.regions.pairs == tuple(measured["pairs"])
    assert version.regions.tokens == tuple(measured["tokens"])
    page = world.page(run)
    assert "Yield by region" in page
    for region in range(REGIONS):
        pairs, tokens = measured["pairs"][region], measured["tokens"][region]
        assert f'<td class="number">{1000 * pairs / tokens:.2f}</td>' in page
    # It shows what all parts hold, not the pilot's alone.
    assert f"({BUDGET} drawn)" not in page
    assert sum(source["selected"] for source in selected.told(run).figures["sources"]) == BUDGET


def test_the_next_night_needs_no_pilot_and_a_region_that_runs_out_passes_its_share_on(world: World) -> None:
    before = world.latest()
    assert before is not None
    assert before.regions is not None
    run = world.begin(NIGHT | {"dump": {"north": 5, "east": 60, "south": 60, "west": 60}})
    world.runs.append(run)
    world.go_on(run, "difference")
    run = Run.open(run.uri)
    told = difference.execute(run)
    assert (told["allocation"], told["pilot_parts"]) == ("yield, by earlier nights", 0)
    assert allocate.execute(run)["drawn"] == 0
    assert run.find_manifest("allocate") is None
    drawn = rows(run, run.parts)
    assert len(drawn) == BUDGET
    cuts = [list(cut) for cut in before.regions.cuts]
    assert run.require_manifest("difference").figures["cuts"] == cuts
    found = Counter(row["region"] for row in drawn)
    available = _available(run, before.regions.cuts)
    known = zip(available, before.regions.documents, before.regions.pairs, before.regions.tokens, strict=True)
    expected = by_bisection([Region(*one) for one in known], BUDGET, BUDGET // REGIONS // 4)
    assert all(abs(found[region] - share) < 1 for region, share in enumerate(expected)), (found, expected)
    # The best region runs out.
    best = max(range(REGIONS), key=before.regions.pairs.__getitem__)
    assert found[best] == available[best] < BUDGET // REGIONS
    world.go_on(run, "assemble")
    after = world.latest()
    assert after is not None
    assert after.regions is not None
    measured = given(Run.open(run.uri), run.parts)
    assert after.regions.documents == tuple(
        old / 2 + new for old, new in zip(before.regions.documents, measured["documents"], strict=True)
    )


def _available(run: Run, cuts: tuple[tuple[int, float], ...]) -> list[int]:
    """Documents of a run that lie in each region, counted over all coordinates."""
    found = [0] * REGIONS
    for _, table in projected.coordinates(run, "corpus"):
        for row in table.to_pylist():
            found[region_of(row, list(cuts), 0, REGIONS)] += 1
    return found


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of its own."""
    return World(tmp_path, monkeypatch)


def test_a_part_of_the_pilot_that_is_given_up_tells_nothing_of_its_region(another: World) -> None:
    run = another.begin(NIGHT)
    another.go_on(run, "difference")
    run = Run.open(run.uri)
    best = max(range(REGIONS), key=lambda unit: places(rows(run, [run.part(unit)]))["north"])
    for unit in set(range(REGIONS)) - {best}:
        prompt(run, unit)
    skip.execute(run, best, "answer", "a test")
    allocate.execute(run)
    pilot = run.require_manifest("allocate").figures["pilot"]
    assert pilot["documents"][best] == pilot["tokens"][best] == 0
    drawn = run.require_manifest("allocate").figures["by_region"]
    # It counts as the best that is known.
    others = [count for region, count in enumerate(drawn) if region != best]
    assert drawn[best] >= max(others) - 1
    for unit in range(REGIONS, run.part_count):
        prompt(run, unit)
    assemble.execute(run)
    told = run.require_manifest("assemble").figures
    assert told["regions"]["documents"][best] == drawn[best] - PILOT
    assert told["parts_given_up"][run.part(best)]["documents"] == PILOT


@pytest.mark.parametrize(
    ("night", "allocation"),
    [
        ({"difference": {"tau": 1e9, "regions": REGIONS}}, "even"),
        ({"max_documents": 5}, "even, as there are too few documents for a pilot"),
        ({"difference": {"tau": 1e-250, "allocation": "yield"}}, "even"),
    ],
)
def test_without_a_pilot_there_is_nothing_to_do(
    another: World, night: dict[str, Any], allocation: str
) -> None:
    run = another.begin(NIGHT | night)
    another.go_on(run, "difference")
    told = allocate.execute(Run.open(run.uri))
    assert (told["allocation"], told["drawn"]) == (allocation, 0)
    assert not list(another.root.glob("runs/*/*/allocate"))
    assert difference.execute(run)["pilot_parts"] == 0


def test_other_prompts_or_other_regions_want_a_pilot_again(another: World) -> None:
    another.night(NIGHT)
    first = another.latest()
    assert first is not None
    for night, same_cuts in (
        ({"questions": 1}, True),
        ({"difference": NIGHT["difference"] | {"regions": 3}}, False),
    ):
        run = another.begin(NIGHT | night)
        another.go_on(run, "difference")
        told = Run.open(run.uri).require_manifest("difference").figures
        assert told["pilot_parts"] > 0
        assert first.regions is not None
        assert (told["cuts"] == [list(cut) for cut in first.regions.cuts]) == same_cuts


def test_lineage_finds_pairs_of_a_pilot_and_of_what_was_drawn_behind_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    run = first_night(world)
    for unit in range(REGIONS, run.part_count):
        prompt(run, unit)
    assemble.execute(run)
    for parts in (run.pilot_parts, run.parts[REGIONS:]):
        part, pair = next((part, pair) for part in parts for pair in generated.kept_rows(run, "answer", part))
        told = lineage.execute(run.config, pair["pair_id"])
        (document,) = (row for row in rows(run, [part]) if row["doc_id"] == pair["doc_id"])
        assert {name: told[name] for name in ("shard", "row", "text", "density_ratio")} == {
            "density_ratio": document["ratio"],
            **{name: document[name] for name in ("shard", "row", "text")},
        }
        assert told["answer"] == pair["answer"]
        assert [gate["stage"] for gate in told["gates"]] == ["rewrite", "score", "answer", "assemble"]
    capsys.readouterr()


def test_explain_tells_what_a_pilot_has_left(world: World) -> None:
    run = first_night(world)
    drawn = rows(run, run.parts)[-1]
    assert explain.execute(run, drawn["doc_id"])["part"] in run.parts[REGIONS:]
    assert explain.execute(run, rows(run, run.pilot_parts)[0]["doc_id"])["part"] == run.pilot_parts[0]
    manifest = world.root / run.manifest_key("allocate")
    kept = manifest.read_bytes()
    manifest.unlink()
    told = explain.execute(first_night(world), drawn["doc_id"])
    manifest.write_bytes(kept)
    assert (told["selected"], told["part"]) == (False, None)
    assert told["reason"] == "below tau, and left to allocate, which has not been run: a pilot is under way"
