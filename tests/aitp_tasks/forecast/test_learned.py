"""What is learnt from the manifests of earlier runs, against a plain re-implementation; and what is not."""

import math
import random
from typing import Any

import pytest

from aitp_tasks.forecast import learned, same
from aitp_tasks.forecast.costs import Cost, Measured
from aitp_tasks.forecast.learned import RUNS, learn
from aitp_tasks.forecast.observed import spread
from aitp_tasks.machine import models
from aitp_tasks.records import versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from tests.aitp_tasks.forecast.conftest import (
    GPU,
    Line,
    difference,
    embedded,
    evaluated,
    finetuned,
    prompted,
    whole,
)

STAGES = {
    "embed", "merge", "density", "index", "difference", "rewrite", "score", "answer", "assemble", "finetune",
    "report",
}  # fmt: skip


def test_one_run_is_learnt_as_it_was(line: Line) -> None:
    whole(line.night("one"))
    found = learn(line.planned("two"))
    assert set(found.basis) == STAGES
    assert set(found.basis.values()) == {RUNS}
    assert found.measured.costs["embed corpus"] == found.measured.costs["embed sft"] == Cost(5.0, 1.0)
    assert found.measured.costs["rewrite"] == Cost(30.0, 2.0)
    assert found.measured.costs["score"] == Cost(30.0, 0.5)
    assert found.measured.costs["answer"] == Cost(30.0, 3.0)
    # Of five steps the first is not measured; all take 2 s.
    assert found.measured.costs["finetune"] == Cost(90.0, 2.0)
    assert found.measured.costs["merge"] == Cost(2.0)
    assert (found.measured.questions, found.measured.kept, found.measured.answered) == (2.0, 0.5, 0.8)
    assert found.measured.below == 0.5
    assert found.measured.tokens == {"corpus": 7.0, "sft": 7.0}
    assert found.measured.generated == {"rewrite": 10.0, "score": 10.0, "answer": 10.0}
    assert found.measured.devices == dict.fromkeys(("embed", "rewrite", "score", "answer", "finetune"), 1)
    assert found.runs == 1


HELD_OUT = {"evaluate": {"held_out": 0.1}}


def test_an_evaluation_is_learnt_with_the_trainings_that_it_found_done(line: Line) -> None:
    """The newer run found its baseline: of a step, what both together took by their weights, 1 and 2."""
    evaluated(whole(line.night("one", **HELD_OUT)), 100.0, 60.0, steps=20)
    evaluated(whole(line.night("two", **HELD_OUT)), 40.0, 0.0, steps=20)
    found = learn(line.planned("three", **HELD_OUT))
    assert found.measured.costs["evaluate"].each == pytest.approx((1 * 60 + 2 * 0) / (1 * 20 + 2 * 20))
    assert found.measured.costs["evaluate"].fixed == pytest.approx(40.0)
    assert found.basis["evaluate"] == RUNS
    assert "evaluate" not in learn(line.planned("four")).basis


def test_an_evaluation_that_nobody_measured_counts_as_a_second_fine_tune(line: Line) -> None:
    whole(line.night("one"))
    found = learn(line.planned("two", **HELD_OUT))
    assert found.measured.costs["evaluate"] == found.measured.costs["finetune"] == Cost(90.0, 2.0)
    assert any("second fine-tune" in said for said in found.told)
    assert "evaluate" not in learn(line.planned("three")).measured.costs
    # Without any figure of a training there is none of it either.
    assert not {"evaluate", "finetune"} & learn(line.planned("two", **HELD_OUT), from_runs=False).basis.keys()


def test_judging_and_ranking_are_part_of_what_an_answer_costs(line: Line) -> None:
    prompts = line.config("one").prompts.model_dump()
    several = {"answers_per_question": 2, "sampling": {"max_tokens": 256, "temperature": 0.8}}
    both: dict[str, Any] = {"gates": {"min_faithfulness": "partly"}, "prompts": prompts | several}
    beside = {"judge": {"busy_seconds": 10.0, "generated_tokens": 50}, "ranking": {"busy_seconds": 5.0}}
    whole(line.night("one", **both), **beside)
    found = learn(line.planned("two", **both))
    # Of 60 s the engine had 30 s for 10 answers.
    assert found.measured.costs["answer"] == Cost(15.0, 4.5)
    assert found.measured.generated["answer"] == 15.0
    assert found.measured.answered == 0.8
    # Another threshold asks as much, and lets other answers through; what is asked decides the cost.
    stricter = learn(line.planned("three", **both | {"gates": {"min_faithfulness": "supported"}}))
    assert stricter.measured.costs["answer"] == Cost(15.0, 4.5)
    assert stricter.measured.answered is None
    for changes in (
        {"prompts": both["prompts"]},
        both | {"prompts": both["prompts"] | {"answers_per_question": 3}},
    ):
        other = learn(line.planned("four", **changes))
        assert "answer" not in other.basis
        assert {"rewrite", "score"} <= set(other.basis)


@pytest.mark.parametrize("seed", range(3))
def test_nights_are_weighed_as_a_plain_sum_weighs_them(line: Line, seed: int) -> None:
    """Reference: loops over the made-up figures, without the code's own classes."""
    numbers = random.Random(seed)
    nights: list[list[tuple[int, float, float]]] = []
    for night in range(3):
        run = line.night(f"night-{night}")
        units = []
        for group in run.plan.groups:
            rows, busy, start = numbers.randint(1, 900), numbers.uniform(0, 90), numbers.uniform(0, 9)
            run.commit(embedded(rows, busy + start, busy), group.digest)
            if group.role == "corpus":
                units.append((rows, busy, start))
        nights.append(units)
    found = learn(line.planned("next")).measured.costs["embed corpus"]
    busy = rows = start = count = 0.0
    # The run itself comes first, with nothing; the last night counts half.
    weight = 1.0
    for units in reversed(nights):
        weight /= 2
        for unit_rows, unit_busy, unit_start in units:
            rows += weight * unit_rows
            busy += weight * unit_busy
            start += weight * unit_start
            count += weight
    assert found.each == pytest.approx(busy / rows)
    assert found.fixed == pytest.approx(start / count)


def test_the_shares_fade_with_the_nights(line: Line) -> None:
    for dump, below in (("old", 100), ("new", 10)):
        difference(line.night(dump), 100, below, 5, 1)
    # A quarter of 100 and half of 10, of 75.
    assert learn(line.planned("next")).measured.below == pytest.approx(30 / 75)


def test_no_more_runs_are_read_than_count(line: Line) -> None:
    for night in range(learned.MOST_RUNS + 1):
        run = line.night(f"night-{night}")
        run.commit(Manifest(stage="merge", label="", seconds=1000.0 if night < 2 else 1.0))
    assert learn(line.planned("next")).measured.costs["merge"] == Cost(1.0)


def test_a_run_learns_from_what_it_has_done_itself(line: Line) -> None:
    run = line.planned("only")
    (corpus, _) = run.plan.groups
    run.commit(embedded(12, 17.0, 12.0), corpus.digest)
    found = learn(run)
    assert found.basis == {"embed": RUNS}
    assert found.measured.costs["embed sft"] == Cost(5.0, 1.0)
    assert found.runs == 1


ENDPOINT = {"url": "http://127.0.0.1:9/v1", "served_model": "model"}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"difference": {"max_documents": 3, "documents_per_part": 2, "seed": 9}}, set()),
        ({"plan": {"max_gpu_hours": 1, "group_bytes": 1}}, set()),
        ({"difference": {"tau": 0.5}}, {same.BELOW}),
        ({"gates": {"min_quality": 1}}, {same.KEPT, same.ANSWERED}),
        ({"encoder.max_tokens": 64}, {"embed", same.BELOW}),
        ({"encoder.batch_tokens": 512}, {"embed"}),
        ({"encoder.endpoint": ENDPOINT}, {"embed"}),
        ({"engine.endpoint": ENDPOINT}, {"rewrite", "score", "answer", same.KEPT, same.ANSWERED}),
        (
            {"engine.engine_args": {"max_num_seqs": 4}},
            {"rewrite", "score", "answer", same.KEPT, same.ANSWERED},
        ),
        ({"engine.speculation": "ngram"}, {"rewrite", "score", "answer", same.KEPT, same.ANSWERED}),
        ({"finetune.epochs": 1.0, "finetune.max_steps": 2, "finetune.learning_rate": 1e-5}, set()),
        ({"finetune.batch_size": 2}, {"finetune"}),
        ({"finetune.processes": 2}, {"finetune"}),
    ],
)
def test_what_holds_for_other_settings(line: Line, changes: dict[str, Any], lost: set[str]) -> None:
    whole(line.night("one"))
    sections: dict[str, Any] = {}
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        base = line.config("one").model_dump(mode="json")[section] if setting else value
        sections[section] = {**sections.get(section, base), **({setting: value} if setting else {})}
    found = learn(line.planned("two", **sections))
    missing = STAGES - set(found.basis)
    measured = found.measured
    shares = {same.BELOW: measured.below, same.KEPT: measured.kept, same.ANSWERED: measured.answered}
    assert missing | {name for name, share in shares.items() if share is None} == lost
    for stage in missing:
        assert any(f" of {stage} (other settings)" in said for said in found.told), found.told


def test_another_model_tells_nothing_whatever_it_is_called(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(line.night("one"))
    monkeypatch.setattr(models, "identity", lambda settings: "another content")
    assert set(learn(line.planned("two")).basis) == STAGES - {
        "embed", "rewrite", "score", "answer", "finetune",
    }  # fmt: skip


def test_a_model_that_lies_elsewhere_is_the_same(line: Line) -> None:
    whole(line.night("one"))
    run = line.planned("two")
    moved = run.config.model_copy(update={"engine": run.config.engine.model_copy(update={"model": "/moved"})})
    elsewhere = Run(run.storage, run.plan.model_copy(update={"config": moved}), run.digest)
    assert learn(elsewhere).basis == learn(run).basis


def test_the_newest_device_counts(line: Line) -> None:
    whole(line.night("old"), slow=100.0, device="An old card")
    whole(line.night("older card again"[:5]), device="A card")
    found = learn(line.planned("next"))
    assert found.measured.costs["rewrite"] == Cost(30.0, 2.0)
    assert "not learnt from: 1 of rewrite (another device)" in found.told
    assert "not learnt from: 2 of embed (another device)" in found.told
    # What needs no device is of both.
    assert found.measured.costs["merge"].fixed > 2.0


def test_a_unit_holds_as_many_devices_as_the_newest(line: Line) -> None:
    whole(line.night("one"), devices=4)
    assert learn(line.planned("two")).measured.devices["rewrite"] == 4


@pytest.mark.parametrize(
    ("seconds", "busy"),
    [
        (-1.0, 0.0),
        (10.0, -3.0),
        (10.0, 90.0),
        (1e9, 1.0),
        (float("inf"), 1.0),
        (float("nan"), 1.0),
        (10.0, float("nan")),
        (10.0, "soon"),
        (10.0, None),
    ],
)
def test_impossible_figures_are_left_out_by_number(line: Line, seconds: float, busy: Any) -> None:
    run = whole(line.night("one"))
    bad = line.night("two")
    # As a hand or another release may have written it.
    made = prompted("rewrite", 10, 10, 0.0, 0.0, busy_seconds=busy)
    difference(bad, 100, 50, 10, 1)
    key = bad.manifest_key("rewrite", bad.part(0))
    text = made.model_dump_json().replace('"seconds":0.0', f'"seconds":{seconds}'.replace("inf", "1e999"))
    if isinstance(busy, float) and math.isnan(busy):
        text = text.replace('"busy_seconds":null', '"busy_seconds":"NaN"')
    bad.storage.write(key, text.encode())
    found = learn(line.planned("next"))
    assert found.measured.costs["rewrite"] == Cost(30.0, 2.0)
    assert any(
        "1 of rewrite (impossible figures)" in said or "1 of rewrite (unreadable)" in said
        for said in found.told
    )
    assert run.uri


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"stage": "rewrite"}', b"\xff"])
def test_an_unreadable_manifest_is_left_out_by_number(line: Line, data: bytes) -> None:
    whole(line.night("one"))
    bad = line.night("two")
    difference(bad, 100, 50, 10, 1)
    bad.storage.write(bad.manifest_key("rewrite", bad.part(0)), data)
    found = learn(line.planned("next"))
    assert found.measured.costs["rewrite"] == Cost(30.0, 2.0)
    assert "not learnt from: 1 of rewrite (unreadable)" in found.told


def test_a_manifest_of_an_earlier_release_names_no_device(line: Line) -> None:
    run = line.night("one")
    difference(run, 100, 50, 10, 1)
    made = prompted("rewrite", 10, 10, 50.0, 20.0)
    figures = {name: value for name, value in made.figures.items() if name not in GPU}
    run.commit(made.model_copy(update={"figures": figures}), run.part(0))
    found = learn(line.planned("next"))
    assert "rewrite" not in found.basis
    assert "not learnt from: 1 of rewrite (impossible figures)" in found.told


def test_what_was_found_done_teaches_nothing(line: Line) -> None:
    run = line.night("one")
    difference(run, 100, 50, 10, 1)
    run.commit(embedded(0, 1.0, 0.0), run.plan.groups[0].digest)
    run.commit(prompted("rewrite", 0, 0, 1.0, 0.0), run.part(0))
    finetuned(run, 0.0, [1.0], unchanged=True)
    found = learn(line.planned("next"))
    assert set(found.basis) == {"difference"}


def test_second_attempts_belong_to_their_requests(line: Line) -> None:
    run = line.night("one")
    difference(run, 100, 50, 10, 1)
    run.commit(prompted("rewrite", 10, 8, 40.0, 30.0, retried=5), run.part(0))
    assert learn(line.planned("next")).measured.costs["rewrite"] == Cost(10.0, 3.0)


def test_a_run_that_failed_tells_what_it_has_done(line: Line) -> None:
    run = line.night("one")
    run.commit(embedded(12, 17.0, 12.0), run.plan.groups[0].digest)
    found = learn(line.planned("next"))
    assert set(found.basis) == {"embed"}
    assert found.measured.questions is None


def test_runs_that_are_gone_or_damaged_hold_nothing_up(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    whole(line.night("good"))
    gone, damaged = line.night("gone"), line.night("damaged")
    gone.storage.delete([f"{gone.prefix}/plan.json"])
    damaged.storage.write(f"{damaged.prefix}/plan.json", b"{}")
    found = learn(line.planned("next"))
    assert set(found.basis) == STAGES
    assert "nothing is learnt of version=gone: there is no plan" in caplog.text
    assert "nothing is learnt of version=damaged: the plan at" in caplog.text


def test_a_latest_that_names_nothing_holds_nothing_up(line: Line) -> None:
    run = line.planned("next")
    run.storage.write("datasets/aitp/latest.json", b"nonsense")
    assert learn(run).basis == {}


def test_another_line_tells_nothing(line: Line) -> None:
    whole(line.night("one"))
    other = {"assemble": {"dataset": "other", "max_rewritten_share": 1.0, "base": "none"}}
    assert learn(line.planned("two", **other)).basis == {}


def test_without_any_run_nothing_is_made_up(line: Line) -> None:
    found = learn(line.planned("first"))
    assert (found.measured, found.basis, found.told, found.runs) == (Measured(), {}, (), 0)


def test_more_rows_take_longer_where_no_model_runs_and_fewer_as_long(line: Line) -> None:
    whole(line.night("one", rows=12))
    grown = learn(line.planned("large", rows=92)).measured.costs
    # 92 and 8 rows after 12 and 8.
    assert grown["difference"] == Cost(2.0 * 5)
    assert grown["density"] == Cost(1.0 * 5)
    assert learn(line.planned("small", rows=1)).measured.costs["difference"] == Cost(2.0)


def test_of_many_units_a_few_are_read() -> None:
    assert spread(range(5), 16) == [0, 1, 2, 3, 4]
    assert spread([], 16) == []
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert len(set(spread(range(17), 16))) == 16


REHEARSED = Measured(
    costs={**dict.fromkeys(("embed corpus", "embed sft", "rewrite"), Cost(1.0, 9.0)), "merge": Cost(9.0)},
    questions=1.0,
    below=0.1,
    devices={"embed": 1, "rewrite": 2},
)  # fmt: skip


def test_a_rehearsal_counts_where_no_run_does(line: Line) -> None:
    run = line.planned("one")
    learned.keep_rehearsed(run, REHEARSED)
    kept = learned.rehearsed(run.storage, "aitp")
    assert kept is not None
    found = learn(run, kept)
    assert found.basis == dict.fromkeys(("embed", "rewrite", "merge"), learned.REHEARSAL)
    assert found.measured.costs == REHEARSED.costs
    assert (found.measured.questions, found.measured.below, found.runs) == (1.0, 0.1, 0)
    assert found.told == (f"from the rehearsal of {kept.on}: embed, rewrite, merge",)
    whole(line.night("night"))
    after = learn(line.planned("two"), kept)
    assert after.measured.costs["rewrite"] == Cost(30.0, 2.0)
    assert after.measured.below == 0.5
    assert set(after.basis.values()) == {RUNS}


def test_a_rehearsal_of_other_settings_counts_for_what_is_the_same(line: Line) -> None:
    kept = learned.keep_rehearsed(line.planned("one"), REHEARSED)
    found = learn(
        line.planned("one", prompts={**line.config("one").prompts.model_dump(), "questions_per_document": 1}),
        kept,
    )
    assert set(found.basis) == {"embed", "merge"}
    assert found.measured.questions is None


@pytest.mark.parametrize("data", [b"", b"{}", b'{"setups": 1, "measured": 2}'])
def test_a_damaged_rehearsal_is_none(line: Line, data: bytes) -> None:
    run = line.planned("one")
    run.storage.write("datasets/aitp/rehearsed.json", data)
    assert learned.rehearsed(run.storage, "aitp") is None


def test_versions_of_the_line_are_read_newest_first(line: Line) -> None:
    runs = [line.night(name) for name in ("a", "b", "c")]
    following = line.planned("next")
    assert [run.prefix for run in learned._runs(following)] == [
        following.prefix,
        *(run.prefix for run in reversed(runs)),
    ]
    assert versions.latest(following.storage, "aitp") is not None
