"""Parts that a run goes on without."""

import logging
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import generated, selected
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, assemble, finetune, report, rewrite, score
from aitp_tasks.tools import skip
from tests.aitp_tasks.world import LINE, World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

NIGHT = {"sft": {"home": 40}, "dump": {"north": 12}, "documents_per_part": 4, "share": 0.5}
WHY = "its task rewrite was marked <by hand>"
STAGES = (rewrite, score, answer)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def begun(world: World) -> Run:
    """A run whose parts are drawn; each has documents."""
    run = world.begin(NIGHT)
    world.go_on(run, "difference")
    run = Run.open(run.uri)
    assert run.part_count > 2
    assert all(documents(run, unit) for unit in range(run.part_count))
    return run


def documents(run: Run, unit: int) -> int:
    return int(selected.table(run, run.part(unit), ["doc_id"]).num_rows)


def do(run: Run, units: Any, stages: Any = STAGES) -> None:
    for unit in units:
        for stage in stages:
            stage.execute(run, unit)


def test_a_run_goes_on_without_a_part_and_says_so_everywhere(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    run = begun(world)
    others = [unit for unit in range(run.part_count) if unit != 1]
    do(run, others)
    with pytest.raises(InputError, match="answer of part-0001.*has not been done"):
        assemble.execute(run)
    told = skip.execute(run, 1, "rewrite", WHY)
    assert (told["given_up"], told["documents"]) == (True, documents(run, 1))
    caplog.set_level(logging.WARNING)
    for stage in (score, answer):
        found = stage.execute(run, 1)
        assert found["given_up"]
        assert found["label"].endswith("part 2 of 3, given up")
    made = assemble.execute(run)
    left = sum(documents(run, unit) for unit in others)
    assert (made["parts_given_up"], made["pairs"]) == (1, left)
    done = run.require_manifest("assemble")
    assert done.figures["parts_given_up"] == {run.part(1): {"documents": documents(run, 1), "why": WHY}}
    assert done.ledger is not None
    assert done.ledger.rejected["document_of_a_part_given_up"] == documents(run, 1)
    assert done.ledger.rows_in == left + documents(run, 1) + 40
    assert f"{run.part(1)} was given up, {documents(run, 1)} documents: {WHY}" in caplog.text
    latest = world.latest()
    assert latest is not None
    # What was not tried says nothing of how many pairs a document gives.
    assert latest.measured.documents == left
    card = (world.root / f"datasets/{LINE}/{latest.name}/README.md").read_text()
    assert f"1 parts of the difference set were given up, {documents(run, 1)} documents" in card
    finetune.execute(run)
    report.execute(run)
    page = (world.root / run.key("report", "report.html")).read_text()
    assert "1 parts of the difference set were given up" in page
    assert "marked &lt;by hand&gt;" in page


@pytest.mark.parametrize("done", [0, 1, 2])
def test_whichever_stage_has_not_done_it(world: World, done: int) -> None:
    run = begun(world)
    do(run, [0, 2])
    do(run, [1], STAGES[:done])
    skip.execute(run, 1, generated.STAGES[done], WHY)
    # The stages after it have nothing to read; whoever is marked last is not run again.
    for stage in STAGES[done + 1 :]:
        assert stage.execute(run, 1)["given_up"]
    assert assemble.execute(run)["pairs"] == documents(run, 0) + documents(run, 2)
    finetune.execute(run)
    assert report.execute(run)["pairs"] == documents(run, 0) + documents(run, 2)


def test_all_parts_may_be_given_up(world: World) -> None:
    run = begun(world)
    for unit in range(run.part_count):
        skip.execute(run, unit, "rewrite", WHY)
    assert (assemble.execute(run)["pairs"], run.part_count) == (0, 3)


def test_a_part_that_is_done_after_all_comes_in(world: World) -> None:
    run = begun(world)
    skip.execute(run, 1, "rewrite", WHY)
    do(run, range(run.part_count))
    assert generated.without(run) == {}
    assert assemble.execute(run)["pairs"] == 12


def test_what_is_done_is_not_given_up(world: World) -> None:
    run = begun(world)
    do(run, range(run.part_count))
    assert skip.execute(run, 1, "rewrite", WHY)["given_up"] is False
    assert skip.execute(run, 1, "answer", WHY)["given_up"] is False
    assert assemble.execute(run)["pairs"] == 12
    # After that it is too late, whatever is asked.
    (world.root / run.manifest_key("answer", run.part(1))).unlink()
    with pytest.raises(InputError, match=r"the version of .* is made: part-0001-of-0003 cannot be given up"):
        skip.execute(run, 1, "answer", WHY)
    with pytest.raises(InputError, match="unit 3 does not exist: the difference set has 3 parts"):
        skip.execute(run, 3, "answer", WHY)


def test_a_part_that_is_done_while_the_version_is_made_is_told_as_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(world)
    do(run, [0, 2])
    skip.execute(run, 1, "rewrite", WHY)
    looked = generated.without

    def without(asked: Run) -> dict[str, str]:
        found = looked(asked)
        do(run, [1])
        return found

    monkeypatch.setattr(generated, "without", without)
    made = assemble.execute(run)
    assert (made["pairs"], made["parts_given_up"]) == (documents(run, 0) + documents(run, 2), 1)
