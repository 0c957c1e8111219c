"""What becomes the latest, by what evaluate has measured and a person has said, and what is told of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Evaluate, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation.intervals import Difference
from aitp_tasks.records import promoted, rollback, versions
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.stages import promote
from aitp_tasks.storage import open_storage

LINE = "aitp"
BETTER, WORSE = -0.1, 0.1
Leave = Callable[..., Run]


@pytest.fixture
def leave(tmp_path: Path) -> Leave:
    """Leaves what promote reads: a version, a checkpoint, and differences around a mean in all three sets."""

    def make(night: str, mean: float = BETTER, root: str = "storage", **settings: Any) -> Run:
        config = RunConfig.model_validate(
            {
                "root": f"file://{tmp_path}/{root}",
                "dump": night,
                "sft": "sums",
                **{name: {"model": "/none"} for name in ("encoder", "engine", "finetune")},
                "prompts": {"folder": "/none"},
                "evaluate": {"held_out": 0.1, "promote": "when_better", **settings},
            }
        )
        plan = Plan(
            config=config,
            encoder_identity="e",
            engine_identity="e",
            finetune_identity="f",
            prompts={},
            groups=(),
        )
        run = Run.create(open_storage(config.root), plan)
        made = versions.Version(
            name=night,
            run=run.prefix,
            geometry=versions.Geometry(key="g", identity="i", corpus_grid="c"),
        )
        versions.write(run.storage, LINE, made)
        figures = {"version": night, "pairs": 7, "earlier_pairs": 0, "sft_examples": 42}
        sets = {
            name: {"aitp_minus_sft_only": Difference(50, mean, mean - 0.01, mean + 0.01).figures()}
            for name in (SFT, PAIRS, DOCUMENTS)
        }
        run.commit(Manifest(stage="assemble", label=night, outputs={}, figures=figures))
        outputs = {"checkpoint": f"models/{LINE}/{night}"}
        run.commit(Manifest(stage="finetune", label=night, outputs=outputs, figures={"steps": 2}))
        run.commit(Manifest(stage="evaluate", label=f"{LINE} {night}", figures={"sets": sets}))
        return run

    return make


def _with(run: Run, **settings: Any) -> Run:
    """The same run, planned with other settings by which nothing is computed."""
    config = run.plan.config
    changed = Evaluate.model_validate(config.evaluate.model_dump() | settings)
    again = run.plan.model_copy(update={"config": config.model_copy(update={"evaluate": changed})})
    found = Run.create(run.storage, again)
    assert found.digest == run.digest
    return found


def _json(run: Run, key: str) -> dict[str, Any] | None:
    return json.loads(run.storage.read(key)) if run.storage.find(key) else None


def _latest(run: Run) -> tuple[str | None, str | None]:
    """Names of the versions that both pointers name."""
    found = [_json(run, f"{kind}/{LINE}/latest.json") for kind in ("datasets", "models")]
    dataset, model = (one and one["version"] for one in found)
    return dataset, model


def _objects(run: Run) -> dict[str, str]:
    return {info.key: info.etag for info in run.storage.list("")}


def test_a_better_version_becomes_the_latest_and_a_worse_one_does_not(leave: Leave) -> None:
    worse = leave("worse", WORSE)
    result = promote.execute(worse)
    assert (result["promoted"], result["is_latest"], result["refused"]) == (False, False, False)
    assert "worse than the SFT set alone by more than tolerance=0.02: SFT examples (+0.1000" in result["why"]
    assert _latest(worse) == (None, None)

    better = leave("better")
    result = promote.execute(better)
    assert (result["promoted"], result["is_latest"], result["refused"]) == (True, True, False)
    assert result["dataset"] == f"{better.storage.root}/datasets/{LINE}/better"
    assert {name: result[name] for name in ("pairs", "earlier_pairs", "sft_examples", "parts_given_up")} == {
        "pairs": 7, "earlier_pairs": 0, "sft_examples": 42, "parts_given_up": 0
    }  # fmt: skip
    assert _json(better, f"models/{LINE}/latest.json") == {
        "version": "better", "run": better.prefix, "checkpoint": f"models/{LINE}/better"
    }  # fmt: skip
    assert _latest(better) == ("better", "better")

    # A second time nothing moves.
    before = _objects(better)
    assert promote.execute(better) == result
    assert _objects(better) == before

    # The worse one again, when the tolerance says so: it does not build on what is the latest now.
    assert promote.execute(_with(worse, tolerance=100.0))["why"].startswith("it is not shown to be better")


def test_what_was_not_promoted_is_when_it_is_decided_otherwise(leave: Leave) -> None:
    run = leave("one", promote="never")
    result = promote.execute(run)
    assert (result["promoted"], result["why"], _latest(run)) == (
        False, "evaluate.promote is never", (None, None),
    )  # fmt: skip
    assert promoted.noted(run) == (False, "evaluate.promote is never")
    again = _with(run, promote="when_better")
    assert promote.execute(again)["promoted"]
    assert _latest(run) == ("one", "one")
    assert promoted.noted(run) == (True, promote.execute(again)["why"])


def test_another_version_came_in_between(leave: Leave) -> None:
    first, late = leave("first"), leave("late")
    results = [promote.execute(run) for run in (first, late)]
    assert [result["promoted"] for result in results] == [True, False]
    assert (results[1]["why"], results[1]["is_latest"]) == ("another version came in between", False)
    assert _latest(late) == ("first", "first")
    assert promoted.noted(late) == (False, "another version came in between")


def test_what_a_person_has_rolled_back_is_not_promoted_again(leave: Leave) -> None:
    first = leave("first")
    promote.execute(first)
    storage, before = first.storage, versions.load(first.storage, LINE, "first")
    on_it = before.model_copy(update={"name": "second", "ancestors": ("first",)})
    versions.write(storage, LINE, on_it)
    second = leave("second")
    assert promote.execute(second)["is_latest"]
    seen = versions.seen(storage, LINE)
    assert seen is not None
    rollback.move(storage, LINE, rollback.allowed(storage, LINE, "first", seen), seen, "now")
    result = promote.execute(second)
    assert (result["promoted"], result["why"], result["is_latest"]) == (False, "it was rolled back", False)
    assert promoted.noted(second) == (False, "it was rolled back")
    latest = versions.latest(storage, LINE)
    assert latest is not None
    assert latest.name == "first"


def test_what_a_person_has_not_approved_is_not_promoted_until_somebody_does(leave: Leave) -> None:
    run = leave("one")
    result = promote.execute(run, "Ada <b>")
    assert (result["promoted"], result["is_latest"], result["refused"], result["why"]) == (
        False, False, True, "Ada <b> has not approved it",
    )  # fmt: skip
    assert promoted.noted(run) == (False, "Ada <b> has not approved it")
    assert _latest(run) == (None, None)
    before = _objects(run)
    assert promote.execute(run, "Ada <b>") == result
    assert _objects(run) == before
    # The next night builds on nothing, as before.
    assert versions.latest(run.storage, LINE) is None
    assert promote.execute(run)["promoted"]
    assert _latest(run) == ("one", "one")


def test_a_refusal_that_comes_too_late_changes_nothing(
    leave: Leave, caplog: pytest.LogCaptureFixture
) -> None:
    run = leave("one")
    result, before = promote.execute(run), _objects(run)
    assert promote.execute(run, "Ada") == result
    assert _objects(run) == before
    assert "Ada has not approved the promotion, but the version was promoted before" in caplog.text


def test_what_is_not_better_is_not_promoted_whoever_says_what(leave: Leave) -> None:
    result = promote.execute(leave("one", WORSE), "Ada")
    assert (result["promoted"], result["refused"]) == (False, False)
    assert "worse than the SFT set alone" in result["why"]


@pytest.mark.parametrize("setting", ["always", "never"])
def test_where_nothing_is_decided_nothing_can_be_refused(leave: Leave, setting: str) -> None:
    run = leave("one", promote=setting)
    before = _objects(run)
    with pytest.raises(InputError, match=f"evaluate.promote={setting} there is nothing to refuse"):
        promote.execute(run, "Ada")
    assert _objects(run) == before


def test_what_was_not_evaluated_is_named(leave: Leave) -> None:
    run = leave("one")
    run.storage.delete([run.manifest_key("evaluate")])
    with pytest.raises(InputError, match="run `aitp evaluate` first"):
        promote.execute(run)


def test_where_nothing_is_held_out_nothing_is_done(leave: Leave) -> None:
    run = leave("one", promote="always", held_out=0.0)
    run.storage.delete([run.manifest_key("evaluate")])
    before = _objects(run)
    result = promote.execute(run)
    assert (result["promoted"], result["why"]) == (True, "evaluate.promote is always")
    assert _objects(run) == before


def test_a_result_can_be_handed_on_however_long_the_addresses_are(leave: Leave) -> None:
    result = promote.execute(leave("one", root="/".join(["a" * 100] * 2)))
    assert len(json.dumps(result)) <= 1000
    assert result["promoted"]
