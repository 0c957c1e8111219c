"""How much a run has to do, and what of it is done."""

from dataclasses import replace
from typing import Any

import pytest

from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.units import units
from aitp_tasks.forecast.work import Done, Forecast, Places, Sizes, forecast, steps
from aitp_tasks.records import embedded
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Group, Shard
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from tests.aitp_tasks.conftest import Configure, write_shard
from tests.aitp_tasks.forecast.conftest import MEASURED, SIZES, Line, difference, whole

pytestmark = pytest.mark.slow


def test_the_forecast_follows_the_shares_of_the_sample(configure: Configure) -> None:
    config = configure(difference={"max_documents": 1000, "documents_per_part": 400})
    places = Places(333, 1000)
    expected = forecast(config, SIZES, replace(MEASURED, below=0.25), places)
    assert expected == Forecast(
        documents=10_000, sft_examples=3000, below_tau=2500, selected=1000, parts=3, questions=1500, kept=750,
        answers=750,
        # A tenth of the dataset: 333 of the 600 pairs. 3,333 examples make 105 steps an epoch.
        pairs=333, steps=315,
    )  # fmt: skip
    few = forecast(config, SIZES, replace(MEASURED, below=0.01), places)
    assert (few.selected, few.parts, few.pairs) == (100, 1, 60)
    none = forecast(config, SIZES, replace(MEASURED, below=0.0), places)
    assert (none.selected, none.parts, none.pairs) == (0, 0, 0)


def test_each_question_gets_its_answers_and_gives_one_pair_at_most(configure: Configure) -> None:
    folder = configure().prompts.folder
    config = configure(prompts={"folder": folder, "answers_per_question": 4, "sampling": {"temperature": 1}})
    places = Places(10_000, 1000)
    for share, pairs in ((0.1, 300), (0.25, 750), (1.0, 750), (None, 750)):
        expected = forecast(config, SIZES, replace(MEASURED, below=0.25, answered=share), places)
        assert (expected.kept, expected.answers, expected.pairs) == (750, 3000, pairs)


@pytest.mark.parametrize(
    ("share", "most", "pairs", "documents"),
    # Half a pair of a document is expected, and a quarter more are drawn.
    [
        (0.2, 732_000, 2.0, 5),
        (0.5, 732_000, 8.0, 20),
        (0.5, 12, 8.0, 12),
        (1.0, 12, float("inf"), 12),
        (0.0, 9, 0.0, 0),
    ],
)
def test_no_more_documents_are_expected_than_the_dataset_has_room_for(
    configure: Configure, share: float, most: int, pairs: float, documents: int
) -> None:
    config = configure(assemble={"max_rewritten_share": share}, difference={"max_documents": most})
    planned = Run.open(plan.execute(config)["run"]).plan
    assert Places.of(planned, sft=8) == Places(pairs, documents)


@pytest.mark.parametrize(
    ("settings", "examples", "count"),
    [
        ({"max_steps": 24}, 999, 24),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 3}, 96, 9),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 3}, 97, 12),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 1, "processes": 8}, 52_000, 204),
        (
            {"batch_size": 4, "gradient_accumulation": 8, "epochs": 1, "processes": 4, "nodes": 2},
            *(52_000, 204),
        ),
        ({"epochs": 0.5}, 320, 5),
        ({}, 0, 3),
    ],
)
def test_steps(configure: Configure, settings: dict[str, float], examples: int, count: int) -> None:
    config = configure(finetune={"model": "/model", **settings})
    assert steps(config.finetune, examples) == count


def test_what_was_not_measured_counts_as_many_as_there_can_be(configure: Configure) -> None:
    config = configure(
        difference={"max_documents": 20_000}, prompts={"folder": "/p", "questions_per_document": 3}
    )
    expected = forecast(config, SIZES, Measured(), Places(float("inf"), 20_000))
    assert (expected.below_tau, expected.selected, expected.questions) == (10_000, 10_000, 30_000)
    assert (expected.kept, expected.pairs) == (30_000, 30_000)


@pytest.mark.parametrize(
    ("target", "below"),
    [({"target_share": 0.02}, 200), ({"target_documents": 7}, 7), ({"target_documents": 99_999}, 10_000)],
)
def test_a_target_says_how_many_are_below(configure: Configure, target: dict[str, Any], below: int) -> None:
    config = configure(difference=target)
    assert forecast(config, SIZES, Measured(), Places(float("inf"), 732_000)).below_tau == below


def test_no_input_is_no_work(configure: Configure) -> None:
    expected = forecast(configure(), Sizes(()), MEASURED, Places(0.0, 0))
    assert (expected.documents, expected.selected, expected.parts, expected.pairs) == (0, 0, 0, 0)


def test_a_new_run_has_nothing_done(line: Line) -> None:
    done = Done.of(line.planned("new"))
    assert (done.stages, set(done.units.values()), done.embedded) == (frozenset(), {0}, (0.0, 0.0))
    assert (done.selected, done.parts) == (None, None)


def test_all_that_a_run_has_done_is_found(line: Line) -> None:
    done = Done.of(whole(line.planned("new")))
    assert done.stages == {"merge", "index", "difference", "assemble", "finetune", "report"}
    assert done.units == {"embed": 2, "density": 2, "rewrite": 1, "score": 1, "answer": 1}
    assert (done.embedded, done.selected, done.parts) == ((1.0, 1.0), 10, 1)


def test_a_shard_that_another_run_has_embedded_is_done(line: Line) -> None:
    run = line.planned("new")
    (shard,) = run.plan.groups_of("sft")[0].shards
    prefix = embedded.shard_prefix(run, "sft", shard.key, shard.etag)
    run.storage.write(f"{prefix}/manifest.json", Manifest(stage="embed", label="").model_dump_json().encode())
    assert Done.of(run).embedded == (0.0, 1.0)


def test_part_of_a_group_may_be_done(line: Line) -> None:
    write_shard(line.root / "corpus/new/1.parquet", [{"text": f"one more {row}"} for row in range(12)])
    run = line.planned("new")
    (group,) = run.plan.groups_of("corpus")
    shard = group.shards[0]
    prefix = embedded.shard_prefix(run, "corpus", shard.key, shard.etag)
    run.storage.write(f"{prefix}/manifest.json", b"{}")
    assert Done.of(run).embedded[0] == pytest.approx(shard.size / sum(one.size for one in group.shards))


def test_parts_that_are_done_are_found_one_by_one(line: Line) -> None:
    run = line.planned("new")
    difference(run, 12, 12, 12, 3)
    run.commit(Manifest(stage="rewrite", label=""), run.part(1))
    done = Done.of(run)
    assert (done.units["rewrite"], done.units["score"], done.parts) == (1, 0, 3)


def test_a_shard_that_tells_no_rows_counts_by_its_bytes(line: Line) -> None:
    run = line.planned("new")
    broken = Shard("corpus", "new", "corpus/new/9.parquet", "e", 2 * run.plan.groups[0].shards[0].size, -1)
    planned = run.plan.model_copy(update={"groups": (*run.plan.groups, Group(shards=(broken,)))})
    sizes = Sizes.of(planned)
    assert (sizes.units[-1], sizes.guessed) == (("corpus", 24), 1)
    alone = run.plan.model_copy(update={"groups": (Group(shards=(broken,)),)})
    assert Sizes.of(alone).units == (("corpus", 0),)


#: All documents are below tau.
MEASURED_ALL = Measured(costs={"difference": Cost(7.0)}, below=1.0)


@pytest.mark.parametrize(
    ("selected", "pilots", "parts"),
    # Of 20,000 documents 8 parts of 100 go first; of 800 half of an even share; of 15 none.
    [(20_000, 8, 8 + 4), (800, 8, 8 + 1), (16, 8, 8 + 1), (15, 0, 1), (0, 0, 0)],
)
def test_a_pilot_has_a_part_of_each_region(
    configure: Configure, selected: int, pilots: int, parts: int
) -> None:
    config = configure(difference={"tau": 1.0, "allocation": "yield", "max_documents": 20_000})
    sizes = Sizes((("corpus", selected), ("sft", 10)))
    places = Places(float("inf"), 20_000, has_pilot=True)
    expected = forecast(config, sizes, MEASURED_ALL, places)
    assert (expected.selected, expected.pilot_parts, expected.parts) == (selected, pilots, parts)
    held = units(config, sizes, expected, MEASURED_ALL)
    assert ("allocate" in held) == bool(pilots)
    assert len(held["rewrite"].seconds) == parts
    if pilots:
        # It passes over the documents as difference does, until it was measured itself.
        assert held["allocate"] == held["difference"]
    known = forecast(config, sizes, MEASURED_ALL, Places(float("inf"), 20_000))
    assert (known.pilot_parts, known.parts) == (0, -(-selected // 5000))


def test_a_pilot_that_is_drawn_is_found_with_the_parts_that_follow(line: Line) -> None:
    run = line.planned("new")
    figures = {"selected": 90, "parts": 5, "pilot_parts": 2}
    run.commit(Manifest(stage="difference", label="", figures=figures))
    run.commit(Manifest(stage="rewrite", label=""), "pilot-0001-of-0002")
    done = Done.of(run)
    assert (done.selected, done.parts, done.pilot_parts, done.units["rewrite"]) == (90, 5, 2, 1)
    assert run.parts[1:3] == ["pilot-0001-of-0002", "part-0000-of-0003"]
