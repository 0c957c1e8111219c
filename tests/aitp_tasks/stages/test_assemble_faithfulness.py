"""What a judge says of answers, in the version, in the removal report and on the page."""

import json
from pathlib import Path

import pytest

from aitp_tasks.dataset import funnel
from aitp_tasks.tools import lineage
from tests.aitp_tasks.world import World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]


def test_verdicts_are_told_with_the_pairs_and_what_they_leave_out_by_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.night(
        {
            "sft": {"home": 40},
            "dump": {"north": 6},
            "gates": {"min_faithfulness": "partly"},
            "verdicts": {"d0.0": "contradicted", "d0.1": "not_in_document", "d0.2": "partly"},
        }
    )
    (run,) = world.runs
    kept = {pair["doc_id"]: pair["faithfulness"] for pair in world.pairs_of(world.latest())}
    assert sorted(kept.values()) == ["partly", "supported", "supported", "supported"]
    done = run.require_manifest("assemble")
    left_out = {f"judged_{verdict}": 1 for verdict in ("contradicted", "not_in_document")}
    assert {rule: counts["new"] for rule, counts in done.figures["removed"].items()} == left_out
    told = json.loads(run.storage.read(done.output("removals")))
    assert all(one["settings"] == {"gates.min_faithfulness": "partly"} for one in told)
    assert all(one["examples"][0]["id"] not in kept for one in told)
    (partly,) = (pair for pair in world.pairs_of(world.latest()) if pair["faithfulness"] == "partly")
    gates = {gate["stage"]: gate for gate in lineage.execute(run.config, partly["pair_id"])["gates"]}
    assert gates["answer"]["scores"] == {"faithfulness": "partly"}
    assert gates["answer"]["settings"]["min_faithfulness"] == "partly"
    page = " ".join(world.page(run).split())
    # In the card's funnel: answers, known ones, left out, new pairs; none of what the judge has left out.
    steps = dict(funnel.of_run(run, done))
    assert list(steps.values())[-4:] == [4, 0, 0, 4]
    assert "<code>judged_contradicted</code>: 1" in page
    assert "<code>supported</code>&nbsp;3, <code>partly</code>&nbsp;1" in page
    assert "Kept are those of <code>partly</code> or better." in page
