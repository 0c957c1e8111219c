"""Embedding an SFT set: what holds no example is left out by reason, and what is not kept is counted."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.encoder import chunks
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.records import embedded
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed
from aitp_tasks.stages.plan import execute as plan
from tests.aitp_tasks.conftest import Configure

pytestmark = pytest.mark.slow

NO_TURNS = {"id": "x", "conversations": []}
NO_USER = {"id": "x", "conversations": [{"from": "gpt", "value": "a"}]}
BAD = {"id": "x", "conversations": [{"from": "human", "value": 7}, {"from": "gpt", "value": "a"}]}


def good(number: int) -> dict[str, Any]:
    turns = [
        {"from": "gpt", "value": "Greetings"},
        {"from": "human", "value": f"q{number}"},
        {"from": "gpt", "value": "a"},
    ]
    return {"id": "x", "conversations": turns}


def write(root: Path, rows: list[Any]) -> None:
    path = root / "sft/odd/a.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


def embedded_set(config: Any) -> tuple[Run, Manifest]:
    run = Run.open(plan(config)["run"])
    number = next(number for number, group in enumerate(run.plan.groups) if group.role == "sft")
    embed.execute(run, number)
    (shard,) = embedded.shards_of(run, "sft")
    return run, shard


def test_examples_without_a_pair_cost_no_budget(configure: Configure, root: Path) -> None:
    write(root, [good(0), NO_TURNS, NO_USER, good(1), NO_TURNS, good(2), good(3)])
    run, shard = embedded_set(configure(sft="odd", failure_budget=0.0))
    assert shard.ledger is not None
    assert (shard.ledger.rows_in, shard.ledger.rows_out) == (7, 4)
    assert shard.ledger.rejected == {"no_turns": 2, "no_user_turn": 1}
    assert shard.figures["first_rejected"]["no_turns"] == "row 1: the example has no turns"
    assert shard.figures["not_kept"] == {"id": 4}
    (unit,) = (run.require_manifest("embed", group.digest) for group in run.plan.groups_of("sft"))
    assert unit.figures["not_kept"] == {"id": 4}
    assert unit.figures["first_rejected"]["no_user_turn"].startswith("sft/odd/a.jsonl row 2: ")


def test_the_set_has_a_budget_of_its_own(configure: Configure, root: Path) -> None:
    write(root, [good(0), BAD, good(1)])
    with pytest.raises(BudgetExceededError, match=r"a.jsonl: 1 of 3 rows .*'not_text': 1.*=0.01"):
        embedded_set(configure(sft="odd"))
    _, shard = embedded_set(configure(sft="odd", examples={"failure_budget": 0.5}))
    assert shard.ledger is not None
    assert shard.ledger.quarantined == {"not_text": 1}


def test_a_set_of_which_most_rows_give_nothing_is_refused(configure: Configure, root: Path) -> None:
    write(root, [good(0), NO_TURNS, NO_TURNS, NO_USER])
    with pytest.raises(
        BudgetExceededError,
        match=r"3 of 4 rows \(75%\) hold no example .*'no_turns': 2.*row 1: the example has no turns",
    ):
        embedded_set(configure(sft="odd", examples={"failure_budget": 1.0}))


def test_a_preference_set_is_refused_by_plan_or_its_answers_are_taken(
    configure: Configure, root: Path
) -> None:
    write(root, [{"prompt": f"q{number}", "completion": "a", "label": number == 1} for number in range(4)])
    with pytest.raises(InputError, match=r"a.jsonl: none of its first 4 rows .*examples.preference: chosen"):
        plan(configure(sft="odd"))
    _, shard = embedded_set(configure(sft="odd", examples={"preference": "chosen"}))
    assert shard.ledger is not None
    assert (shard.ledger.rows_out, shard.ledger.rejected) == (1, {"not_preferred": 3})


def test_counts_are_whole_after_an_interruption(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 3)
    write(root, [NO_TURNS, good(0), good(1), good(2), NO_USER, good(3), good(4)])
    config = configure(sft="odd")
    _, whole = embedded_set(config)
    # As if the unit had been killed after its first chunk.
    for path in sorted((root / "embeddings").rglob("*")):
        if path.is_file() and "rows-000000000000" not in path.name:
            path.unlink()
    for path in (root / "runs").rglob("embed*"):
        for found in [path] if path.is_file() else sorted(path.rglob("*.json")):
            found.unlink()
    _, resumed = embedded_set(config)
    assert "shard=sft/odd/a.jsonl goes on after row 3" in caplog.text
    assert resumed.ledger == whole.ledger
    for name in ("not_kept", "first_rejected", "tokens", "form"):
        assert resumed.figures[name] == whole.figures[name]


def test_other_rules_of_reading_give_other_vectors_a_place(configure: Configure) -> None:
    def prefix(**settings: Any) -> str:
        run = Run.open(plan(configure(examples=settings))["run"])
        shard = run.plan.groups_of("sft")[0].shards[0]
        return embedded.shard_prefix(run, "sft", shard.key, shard.etag)

    mapping = {"columns": {"prompt": "instruction", "response": "output"}}
    assert len({prefix(), prefix(preference="chosen"), prefix(mapping=mapping)}) == 3
    assert prefix(failure_budget=0.5) == prefix()
