"""Nights of which some are better: what is held out, what becomes the latest, on what the next builds."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.evaluation.intervals import Difference
from aitp_tasks.records import data_files, held_out
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import assemble, evaluate
from tests.aitp_tasks.evaluation.promotion_cases import SEQUENCES, Nights
from tests.aitp_tasks.world import LINE, World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

_SFT = {"home": 20, "east": 10, "south": 10}
_PLACES = ("north", "west", "ne", "nw", "se")
_SHARE = 0.3


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def _night(place: str, **settings: Any) -> dict[str, Any]:
    dump = {"home": 4, "south": 2, "east": 2, place: 24}
    return {"sft": _SFT, "dump": dump, "share": 0.5, "evaluate": {"held_out": _SHARE, **settings}}


def _measured(better: bool) -> Any:
    """In the place of models: a difference on the pairs."""

    def measure(run: Run) -> Manifest:
        none, pairs = Difference(50, 0.0, 0.0, 0.0), Difference(50, -0.2, -0.3, -0.1)
        found = {SFT: none, PAIRS: pairs if better else none, DOCUMENTS: none}
        loss = dict.fromkeys((evaluate.BASE, evaluate.SFT_ONLY, evaluate.AITP), 1.0)
        figures = {
            name: {"n": 50, "loss": loss, "aitp_minus_sft_only": difference.figures()}
            for name, difference in found.items()
        }
        return run.commit(Manifest(stage="evaluate", label="e", figures={"sets": figures}))

    return measure


@pytest.mark.parametrize("case", SEQUENCES[:2], ids=lambda case: case["name"])
def test_the_next_night_builds_on_what_was_promoted(
    case: Nights, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str | None, str] = {}
    for number, promoted in enumerate(case["nights"]):
        monkeypatch.setattr(evaluate, "_evaluate", _measured(promoted))
        world.night(_night(_PLACES[number], promote="when_better"))
        run = world.runs[-1]
        base = run.plan.base
        assert (base and names[base.name]) == case["base_of_night"][number]
        names[assemble.version(run)] = f"v{number + 1}"
        latest = world.latest()
        assert (latest and names[latest.name]) == case["latest_after"][number]
        pointer = world.root / f"models/{LINE}/latest.json"
        told = json.loads(pointer.read_text())["version"] if pointer.exists() else None
        assert told == (latest and latest.name)
        # It is there, whatever becomes of it; and nobody takes the dump for a late one.
        assert (world.root / assemble.version_key(run) / "version.json").exists()
        assert (world.root / f"datasets/{LINE}/dumps/taken-in/{run.config.dump}.json").exists()
        # The same inputs are the same run again.
        assert world.begin_again(run).digest == run.digest


def test_nothing_that_is_held_out_comes_in_and_what_is_in_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_evaluate", _measured(True))
    world.night({**_night("north"), "evaluate": {}})
    first = world.pairs_of(world.latest())
    assert any(held_out.is_held_out(pair["doc_id"], _SHARE) for pair in first)
    assert "held_out" not in world.runs[0].require_manifest("assemble").figures
    world.night(_night("west"))
    run = world.runs[1]
    done = run.require_manifest("assemble")
    held = [pair for pair in world.pairs_of(world.latest()) if held_out.is_held_out(pair["doc_id"], _SHARE)]
    assert held == []
    gone = {pair["pair_id"] for pair in first if held_out.is_held_out(pair["doc_id"], _SHARE)}
    assert {name: why for name, why in run.plan.left.items() if why == "held_out"}.keys() == gone
    assert done.figures["left"]["held_out"] == len(gone)
    # Every row is accounted for, by the reason; examples and new pairs together with those that left.
    told = done.figures["held_out"]
    assert min(told["sft"], told["pairs"], told["documents"]) > 0
    assert done.ledger is not None
    assert done.ledger.rejected["held_out"] == told["sft"] + told["pairs"] + len(gone)
    assert done.figures["sft_examples"] + told["sft"] == 40
    data = pq.read_table(world.root / data_files.folder(done) / "data").to_pylist()
    trained = {json.dumps(row["messages"]) for row in data}
    for kind, count in (("sft", told["sft"]), ("pairs", told["pairs"])):
        rows = pq.read_table(world.root / done.output(f"held_out_{kind}")).to_pylist()
        assert len(rows) == count
        assert trained.isdisjoint(json.dumps(row["messages"]) for row in rows)
    # A night that changes nothing is still one.
    assert not world.night({**_night("west"), "good": 0})["version"]
