"""Nights after a rollback, and after marks of people: what a next version builds on, holds and leaves out."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import lease, pairs, promoted, versions
from aitp_tasks.records.lease import Holder
from aitp_tasks.stages import assemble
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools import line
from aitp_tasks.tools.dataset import diff, mark, rollback
from tests.aitp_tasks.tools import nights
from tests.aitp_tasks.tools.dataset.catalog_cases import MARKS, ROLLBACK
from tests.aitp_tasks.tools.nights import Nights
from tests.aitp_tasks.world import LINE

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

CASES = {case["id"]: case for case in [*MARKS, *ROLLBACK]}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return nights.of(tmp_path, monkeypatch, tmp_path_factory)


def storage_of(made: Nights) -> Storage:
    return open_storage(f"file://{made.world.root}")


def config_of(made: Nights) -> RunConfig:
    return RunConfig.load(made.config, [])


def held(made: Nights, version: versions.Version | None = None) -> set[str]:
    return {pair["pair_id"] for pair in made.world.pairs_of(version or made.world.latest())}


def go_back(made: Nights, name: str) -> dict[str, Any]:
    return rollback.execute(config_of(made), made.names[name])


def follow(made: Nights, dump: dict[str, Any] | None = None, **more: Any) -> versions.Version:
    """One more night."""
    made.world.night(made.night({"far": 1, "home": 1} if dump is None else dump, **more))
    latest = made.world.latest()
    assert latest is not None
    return latest


def test_the_next_night_builds_on_what_latest_went_back_to(made: Nights) -> None:
    told = go_back(made, "v1")
    assert told["next_run_builds_on"] == made.names["v1"]
    assert told["taken_back"] == [made.names["v2"], made.names["v3"]]
    latest = follow(made)
    assert latest.ancestors == (made.names["v1"],)
    assert made.world.runs[-1].plan.base is not None
    assert made.world.runs[-1].plan.base.name == made.names["v1"]
    # North left later, and is marked bad in part; what the versions taken back brought is not there.
    assert held(made) >= set(made.pairs["west"])
    assert not held(made) & {*made.pairs["ne"], *made.pairs["sw"], *made.pairs["se"]}
    # The nights after it go on from there.
    assert follow(made, {"nw": 1, "home": 1}).ancestors == (made.names["v1"], latest.name)
    # All that was taken back is there as it was.
    for name in ("v2", "v3"):
        assert held(made, versions.load(storage_of(made), LINE, made.names[name]))


def test_a_stage_that_is_run_again_does_not_bring_back_what_a_person_has_taken_back(
    made: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    go_back(made, "v2")
    told = assemble.execute(made.run("v3"))
    assert not told["is_latest"]
    assert "was rolled back at" in caplog.text
    assert made.world.latest() == versions.load(storage_of(made), LINE, made.names["v2"])
    # Nor do the same inputs that are planned again: they are the same run.
    again = made.world.begin_again(made.run("v3"))
    assert again.digest == made.run("v3").digest
    made.world.go_on(again)
    assert versions.is_latest(storage_of(made), LINE, made.names["v2"])
    assert not versions.is_latest(storage_of(made), LINE, made.names["v3"])
    # By the same command a person does.
    assert go_back(made, "v3")["taken_back"] == []
    assert versions.is_latest(storage_of(made), LINE, made.names["v3"])


def test_a_night_that_is_under_way_is_neither_lost_nor_the_latest(
    made: Nights, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    under_way = made.world.begin(made.night({"far": 1, "home": 1}))
    made.world.go_on(under_way, "answer")
    storage = storage_of(made)
    assert lease.take(storage, LINE, Holder(name="by hand", dump="night-9"), alone=True).taken
    told = go_back(made, "v2")
    assert told["under_way"] == {"name": "by hand", "dump": "night-9"}
    assert "by hand is under way for night-9" in capsys.readouterr().err
    caplog.set_level(logging.WARNING)
    assert not assemble.execute(under_way)["is_latest"]
    assert f"builds on {made.names['v3']}, but {made.names['v2']} is the latest version now" in caplog.text
    assert versions.load(storage, LINE, assemble.version(under_way)).ancestors[-1] == made.names["v3"]
    assert versions.is_latest(storage, LINE, made.names["v2"])
    # Planned again, it builds on what latest names, and finds what it had generated.
    again = made.world.begin_again(under_way)
    assert again.plan.base is not None
    assert again.plan.base.name == made.names["v2"]
    made.world.go_on(again)
    latest = made.world.latest()
    assert latest is not None
    assert latest.name == assemble.version(again)
    assert held(made) & {row["pair_id"] for row in made.world.pairs_of(latest)}


def test_a_night_that_had_changed_nothing_of_what_was_taken_back_is_not_found_settled(made: Nights) -> None:
    unchanged = made.world.runs[-1]
    assert unchanged.require_manifest("assemble").figures["unchanged"]
    assert unchanged.plan.base is not None
    assert unchanged.plan.base.name == made.names["v3"]
    assert made.world.begin_again(unchanged).digest == unchanged.digest
    go_back(made, "v2")
    again = made.world.begin_again(unchanged)
    assert again.plan.base is not None
    assert again.plan.base.name == made.names["v2"]


def test_dumps_that_were_taken_in_are_named_and_no_night_takes_them_in_again(
    made: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = storage_of(made)
    told = go_back(made, "v2")
    # Of v3, and of the night that has changed nothing of it.
    assert told["dumps_that_stay_taken_in"] == ["night-003", "night-004"]
    assert "no night takes these dumps in again: night-003, night-004" in capsys.readouterr().err
    for dump in told["dumps_that_stay_taken_in"]:
        (made.world.root / f"corpus/{dump}/_SUCCESS").touch()
    config = config_of(made).model_copy(update={"dump": "night-004"})
    found, left = line.due(storage, config, "nightly")
    assert found is None
    assert left["night-004"] == "it was taken in before"
    assert line.due(storage, config, "manual")[0] == "night-004"
    assert line.due(storage, config, "backfill")[0] == "night-004"


def test_the_checkpoint_goes_back_and_forth_with_the_version(made: Nights) -> None:
    storage = storage_of(made)
    assert promoted.named(storage, LINE) == made.names["v3"]
    assert go_back(made, "v2")["checkpoint"] == {"before": made.names["v3"], "latest": made.names["v2"]}
    told = json.loads((made.world.root / f"models/{LINE}/latest.json").read_text())
    assert told == {
        "version": made.names["v2"],
        "run": made.run("v2").prefix,
        "checkpoint": made.run("v2").require_manifest("finetune").output("checkpoint"),
    }
    # Of two checkpoints of one version, the one that was promoted last comes back.
    go_back(made, "v3")
    again = made.night({"home": 1, "nw": 2}, 89, assemble={"max_answer_words": 1}, finetune="b")
    assert not made.world.night(again)["version"]
    told = json.loads((made.world.root / f"models/{LINE}/latest.json").read_text())
    assert (told["version"], told["run"]) == (made.names["v3"], made.world.runs[-1].prefix)
    go_back(made, "v2")
    go_back(made, "v3")
    assert json.loads((made.world.root / f"models/{LINE}/latest.json").read_text()) == told
    # A version that was never promoted has none to offer.
    (made.world.root / made.run("v2").key("finetune", "promoted")).unlink()
    go_back(made, "v3")
    assert promoted.named(storage, LINE) == made.names["v3"]
    assert go_back(made, "v2")["checkpoint"]["latest"] == made.names["v1"]


@pytest.mark.parametrize("what", ["pairs", "shard", "geometry", "cut off"])
def test_a_version_that_is_not_whole_is_refused(made: Nights, what: str) -> None:
    storage, name = storage_of(made), made.names["v2"]
    version = versions.load(storage, LINE, name)
    shard = next(path for path in version.files if path.endswith(".parquet"))
    key = {
        "pairs": version.pairs[0],
        "geometry": version.geometry.key,
    }.get(what, f"datasets/{LINE}/{name}/{shard}")
    path = made.world.root / key
    if what == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(InputError, match=Path(key).name):
        go_back(made, "v2")
    assert versions.is_latest(storage, LINE, made.names["v3"])


def test_marks_of_people_act_in_the_next_night_and_survive_a_rollback(made: Nights) -> None:
    case = CASES["mark-bad"]
    storage, config = storage_of(made), config_of(made)
    (bad,), (good, back) = made.pairs["west"], made.pairs["ne"]
    mark.execute(config, bad, "bad", case["want"]["note_kept"])
    mark.execute(config, good, "good", "")
    mark.execute(config, back, "bad", "")
    mark.execute(config, back, "good", "")
    assert bad in held(made)
    latest = follow(made)
    found = diff.execute(config, made.names["v3"], latest.name)
    assert found["removed"] == {case["want"]["reason"][_only(case)]: {"pairs": 1, "ids": [bad]}}
    # mark-bad, mark-good and mark-bad-then-good, in this order.
    assert bad not in held(made)
    assert {good, back} <= held(made)
    assert bad in held(made, versions.load(storage, LINE, made.names["v3"]))
    assert pairs.marks_of(storage, LINE)[bad] == pairs.Mark(mark="bad", note="wrong law")
    # rollback-keeps-a-mark: both that are marked bad are in v1.
    first = versions.load(storage, LINE, made.names["v1"])
    marked = set(pairs.marked_bad(storage, LINE))
    assert len(marked & held(made, first)) == 2
    go_back(made, "v1")
    after = follow(made, {"nw": 1, "home": 1})
    assert after.ancestors == (first.name,)
    assert not marked & held(made)
    done = made.world.runs[-1].require_manifest("assemble")
    left = pq.read_table(made.world.root / done.output("left_out")).to_pylist()
    assert {row["pair_id"] for row in left if row["reason"] == "marked_bad"} >= marked & held(made, first)


def _only(case: dict[str, Any]) -> str:
    (pair,) = case["want"]["next_version_has_not"]
    return str(pair)
