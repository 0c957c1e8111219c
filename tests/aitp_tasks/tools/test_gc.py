"""gc: what it deletes nobody misses, however far a night has come; told by a storage that it has not seen."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks import cli
from aitp_tasks.config import Evaluate, Maintenance, RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import data_files, pairs, published
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.storage import open_storage
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools import compact, gc, indexes
from aitp_tasks.tools.dataset import mark
from aitp_tasks.tools.gc import runs, sweep
from tests.aitp_tasks.world import LINE, STAGES, World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

NIGHTS: list[dict[str, Any]] = [
    {"sft": {"home": 20, "east": 10, "south": 10}, "dump": {"home": 4, "south": 2, "east": 2, place: 6}}
    for place in ("north", "west", "ne", "sw", "nw")
]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def collect(world: World, keep: int = 0, days: float = 0.0, delete: bool = True) -> dict[str, Any]:
    config: RunConfig = world.runs[-1].config
    # The file system's clock ticks some hundred times a second: what was written is to be older.
    time.sleep(0.05)
    return gc.execute(config, keep, days, delete)


def objects(world: World, *folders: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(world.root)): path.read_bytes()
        for folder in folders or ("",)
        for path in (world.root / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".unfinished-")
    }


def told(pair: dict[str, Any]) -> tuple[Any, ...]:
    return (pair["pair_id"], pair["messages"][1]["content"], pair["shard"], pair["row"])


def test_by_default_it_only_tells(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    before = objects(world)
    result = collect(world, keep=1, delete=False)
    assert objects(world) == before
    assert result["objects"] > 10
    assert {"embeddings", "density", "index", "attempts"} <= result["kinds"].keys()
    deleted = collect(world, keep=1)
    assert {**deleted, "deleted": False, "seconds": 0} == {**result, "seconds": 0}
    gone = before.keys() - objects(world).keys()
    assert len(gone) >= result["objects"]
    assert sum(len(before[key]) for key in gone) >= result["bytes"]
    again = collect(world, keep=1)
    assert (again["objects"], again["responses_dropped"]) == (0, 0)


def test_versions_and_what_runs_have_told_stay(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    before = objects(world, "datasets", "models", "corpus", "sft", "runs")
    collect(world)
    after = objects(world)
    lost = {key for key in before if key not in after}
    assert all("/attempt-" in key for key in lost)
    assert {key: after[key] for key in before if key not in lost} == {
        key: data for key, data in before.items() if key not in lost
    }


# Without a pilot, allocate has nothing to do.
@pytest.mark.parametrize("last", [None, *(stage for stage in STAGES if stage != "allocate")])
def test_a_night_that_has_come_so_far_ends_as_if_nothing_had_been_deleted(
    world: World, last: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    run = world.begin(NIGHTS[2])
    if last is not None:
        world.go_on(run, last)
    shutil.copytree(world.root, tmp_path / "untouched")
    used = objects(world, run.prefix)
    collect(world)
    assert all(key in objects(world, run.prefix) or "/attempt-" in key for key in used)
    world.go_on(run)
    expected = _finished(tmp_path / "untouched", run, world)
    assert [told(pair) for pair in world.pairs_of(world.latest())] == expected
    # And the next night goes on from there.
    assert world.night(NIGHTS[3])["version"]


def _finished(root: Path, run: Run, world: World) -> list[tuple[Any, ...]]:
    """The pairs of the same night in a storage where nothing was deleted."""
    touched = world.root
    other = Run.open(f"file://{root}/{run.prefix}")
    world.root = root
    try:
        world.go_on(other)
        return [told(pair) for pair in world.pairs_of(world.latest())]
    finally:
        world.root = touched


def test_an_old_night_can_be_run_again(world: World) -> None:
    for night in NIGHTS:
        world.night(night)
    collect(world)
    held = [told(pair) for pair in world.pairs_of(world.latest())]
    for run in world.runs:
        world.go_on(run)
    assert [told(pair) for pair in world.pairs_of(world.latest())] == held


def test_a_night_whose_report_was_deleted_computes_what_is_gone_again(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    collect(world)
    first = world.runs[0]
    for stage in STAGES:
        for path in (world.root / first.prefix / stage).glob("*.json"):
            path.unlink()
    world.go_on(Run.open(first.uri))
    assert (world.root / first.prefix / "report/manifest.json").is_file()


def test_beside_nights_it_disturbs_none(world: World) -> None:
    world.night(NIGHTS[0])
    stop, failures = threading.Event(), list[BaseException]()

    def collecting() -> None:
        while not stop.is_set():
            try:
                collect(world, keep=1)
            except TransientError:
                continue
            except BaseException as failure:
                failures.append(failure)
                return

    thread = threading.Thread(target=collecting)
    thread.start()
    try:
        made = [world.night(night)["version"] for night in NIGHTS[1:]]
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert made[0]


def test_what_is_young_stays(world: World) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    before = objects(world)
    assert collect(world, days=1.0)["objects"] == 0
    assert objects(world) == before


def test_responses_of_runs_that_are_not_kept_are_dropped(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    whole = sum(map(len, objects(world, "generations").values()))
    result = collect(world)
    assert result["responses_dropped"] > 0
    assert sum(map(len, objects(world, "generations").values())) < whole
    # The newest night is kept: its parts find all that they have asked for.
    newest = world.runs[-1]
    for path in [*(world.root / newest.prefix / "rewrite").glob("*.json")]:
        path.unlink()
    world.go_on(Run.open(newest.uri), "rewrite")
    for part in newest.parts:
        assert newest.require_manifest("rewrite", part).figures["generated"] == 0


def test_verdicts_of_a_run_that_is_kept_stay(world: World) -> None:
    for night in NIGHTS[:2]:
        world.night({**night, "gates": {"min_faithfulness": "partly"}})
    newest = world.runs[-1]
    kept = [newest.require_manifest("answer", part).figures["judge"]["requests"] for part in newest.parts]
    collect(world)
    assert objects(world, "generations/judge")
    for path in [*(world.root / newest.prefix / "answer").glob("*.json")]:
        path.unlink()
    world.go_on(Run.open(newest.uri), "answer")
    again = [newest.require_manifest("answer", part).figures["judge"] for part in newest.parts]
    assert [figures["reused"] for figures in again] == kept
    assert sum(kept) > 0


def test_responses_stay_while_a_pilot_has_not_told_whose_are_wanted(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    # Other regions than those that the nights have measured.
    settings = {"tau": 1e9, "allocation": "yield", "regions": 2}
    run = world.begin(NIGHTS[3] | {"max_documents": 10, "difference": settings})
    world.go_on(run, "difference")
    assert Run.open(run.uri).pilot_parts
    before = objects(world, "generations")
    assert collect(world)["responses_dropped"] == 0
    assert objects(world, "generations") == before
    world.go_on(run, "allocate")
    assert collect(world)["responses_dropped"] > 0


def test_a_try_whose_objects_have_not_all_their_names_stays(world: World) -> None:
    world.night(NIGHTS[0])
    done = world.runs[0].require_manifest("assemble")
    (world.root / data_files.keys(done)[0]).unlink()
    before = objects(world, done.output(published.ATTEMPT))
    collect(world)
    assert objects(world, done.output(published.ATTEMPT)) == before != {}


def test_nothing_more_is_deleted_once_a_run_was_planned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    before = objects(world)
    real, calls = runs.plans, list[int]()

    def late(storage: Any) -> Any:
        calls.append(0)
        return real(storage) if len(calls) < 1 else frozenset()

    monkeypatch.setattr(runs, "plans", late)
    with pytest.raises(TransientError, match="a run was planned while"):
        collect(world)
    assert objects(world) == before


def test_what_cannot_be_meant_is_refused(world: World) -> None:
    world.night(NIGHTS[0])
    with pytest.raises(InputError, match="--keep -1"):
        collect(world, keep=-1)


def test_an_unfinished_run_is_named_with_its_remedy(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.night(NIGHTS[0])
    run = world.begin(NIGHTS[1])
    assert collect(world)["unfinished_runs"] == 1
    assert f"run={run.uri} is not finished" in caplog.text
    (world.root / run.prefix / "plan.json").unlink()
    assert collect(world)["unfinished_runs"] == 0


def test_a_pair_is_marked_by_the_beginning_of_its_id(world: World) -> None:
    world.night(NIGHTS[0])
    config, storage = world.runs[0].config, open_storage(f"file://{world.root}")
    (first, *others) = sorted(pair["pair_id"] for pair in world.pairs_of(world.latest()))
    result = mark.execute(config, first[:20], "bad", "it is not so")
    assert result["pair_id"] == first
    mark.execute(config, others[0], "good", "")
    assert pairs.marked_bad(storage, LINE) == (first,)
    mark.execute(config, first, "good", "it is after all")
    assert pairs.marked_bad(storage, LINE) == ()
    with pytest.raises(InputError, match=r"6 pairs of aitp \(.*\) have an id that begins with ''"):
        mark.execute(config, "", "bad", "")
    with pytest.raises(InputError, match="no pairs of aitp"):
        mark.execute(config, "nobody", "bad", "")
    (world.root / f"datasets/{LINE}/marks/{first}.json").write_text("[]")
    with pytest.raises(InputError, match="is no mark"):
        pairs.marked_bad(storage, LINE)
    # What is meant as a mark must not be passed over.
    (world.root / f"datasets/{LINE}/marks/{first}.json").write_text('{"mark": "terrible"}')
    with pytest.raises(InputError, match="is no mark"):
        pairs.marked_bad(storage, LINE)


@pytest.mark.parametrize("keep", [3, 4, 7])
def test_so_many_runs_are_kept_as_are_asked_for(world: World, keep: int) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    result = collect(world, keep=keep, delete=False)
    assert result["kept_runs"] == 3
    assert set(result["kinds"]) <= {"attempts"}


def test_a_mark_that_has_acted_can_be_taken_back(world: World) -> None:
    world.night(NIGHTS[0])
    (pair_id, *_) = (pair["pair_id"] for pair in world.pairs_of(world.latest()))
    mark.execute(world.runs[0].config, pair_id, "bad", "")
    world.night(NIGHTS[1])
    assert pair_id not in {pair["pair_id"] for pair in world.pairs_of(world.latest())}
    mark.execute(world.runs[0].config, pair_id, "good", "")
    assert pairs.marked_bad(open_storage(f"file://{world.root}"), LINE) == ()


def test_what_a_line_no_longer_needs_goes_and_what_it_needs_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    (pair_id, *_) = (pair["pair_id"] for pair in world.pairs_of(world.latest()))
    mark.execute(world.runs[0].config, pair_id, "bad", "")
    # This night is on the pairs that remain; of the one before it only its versions need something.
    world.night(NIGHTS[2])
    line = f"datasets/{LINE}"
    needed = objects(world, f"{line}/records", f"{line}/remaining")
    assert len(needed) > 4
    orphans = [
        f"{line}/{name}-{'0' * 32}.{ending}"
        for name, ending in (
            ("records/pairs", "parquet"),
            ("records/corpus-grid", "safetensors"),
            ("remaining/pairs", "parquet"),
        )
    ]
    for key in (*orphans, f"{line}/records/notes.txt"):
        (world.root / key).write_bytes(b"")
    # Of pairs that a run was planned on, the plan may be about to come.
    assert "remaining" not in collect(world, keep=1, delete=False)["kinds"]
    monkeypatch.setattr(sweep, "_PLANNING_SECONDS", 0.0)
    kinds = collect(world, keep=1)["kinds"]
    assert (kinds["records"]["objects"], kinds["remaining"]["objects"]) == (2, 1)
    left = objects(world, f"{line}/records", f"{line}/remaining")
    assert left.keys() == {*needed, f"{line}/records/notes.txt"}
    assert world.night(NIGHTS[3])["version"]


def test_records_of_a_version_in_the_making_stay(world: World) -> None:
    world.night(NIGHTS[0])
    unfinished = world.begin(NIGHTS[1])
    key = f"datasets/{LINE}/records/pairs-{'0' * 32}.parquet"
    (world.root / key).write_bytes(b"")
    assert "records" not in collect(world, keep=1)["kinds"]
    (world.root / unfinished.prefix / "plan.json").unlink()
    assert collect(world, keep=1)["kinds"]["records"]["objects"] == 1


def test_notes_on_plans_go_with_runs_that_were_given_up(world: World) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    # One that was begun and given up, and one that is still at it.
    given_up, unfinished = (world.begin(night) for night in NIGHTS[2:4])
    notes = objects(world, f"datasets/{LINE}/plans")
    assert len(notes) == 4
    shutil.rmtree(world.root / given_up.prefix)
    abandoned = f"datasets/{LINE}/plans/{given_up.plan.inputs}"
    (world.root / f"{abandoned}-unchanged-night-000-0123.json").write_text("{}")
    (world.root / f"datasets/{LINE}/plans/notes.txt").write_text("mine")
    assert collect(world)["kinds"]["plans"]["objects"] == 2
    left = {*notes, f"datasets/{LINE}/plans/notes.txt"} - {f"{abandoned}.json"}
    assert objects(world, f"datasets/{LINE}/plans").keys() == left
    # Those that ended, and the one that is at it, are found again.
    for run in (*world.runs, unfinished):
        assert world.begin_again(run).digest == run.digest


def test_notes_stay_while_a_plan_does_not_say_which_is_its_own(world: World) -> None:
    world.night(NIGHTS[0])
    run = world.runs[0]
    (world.root / f"datasets/{LINE}/plans/{'0' * 32}.json").write_text("{}")
    # As earlier releases have left both.
    for key in (f"{run.prefix}/plan.json", run.manifest_key("assemble")):
        path = world.root / key
        path.write_text(path.read_text().replace(f'"{run.plan.inputs}"', '""'))
    assert "plans" not in collect(world, days=0.0)["kinds"]


def test_states_go_with_the_run_that_was_given_up(world: World) -> None:
    world.night(NIGHTS[0])
    given_up = f"runs/{world.runs[0].config.dump}/{'0' * 32}/finetune/states/step-00000001-a"
    unfinished = Run.open(world.runs[0].uri)
    (world.root / f"{unfinished.prefix}/report/manifest.json").rename(world.root / "aside.json")
    kept = f"{unfinished.prefix}/finetune/states/step-00000001-a"
    for prefix in (given_up, kept):
        (world.root / prefix).mkdir(parents=True)
        (world.root / prefix / "complete.json").write_text("{}")
    assert collect(world, delete=True)["kinds"]["states"]["objects"] == 1
    assert not (world.root / given_up / "complete.json").exists()
    assert (world.root / kept / "complete.json").exists()


def test_fine_tunes_on_the_sft_set_alone_stay_while_a_kept_run_was_compared_with_them(world: World) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    *_, latest = world.runs
    used, other = (f"baselines/{digit * 32}" for digit in "ab")
    for prefix in (used, other):
        for name in ("attempt-1/config.json", "attempt-2/config.json"):
            (world.root / prefix / name).parent.mkdir(parents=True)
            (world.root / prefix / name).write_text("{}")
        (world.root / f"{prefix}.json").write_text("{}")
    (world.root / "baselines/notes").mkdir()
    (world.root / "baselines/notes/mine.txt").write_text("kept")
    latest.commit(Manifest(stage="evaluate", label="", outputs={"baseline": f"{used}/attempt-2"}))
    collect(world)
    left = objects(world, "baselines").keys()
    assert left == {f"{used}.json", f"{used}/attempt-2/config.json", "baselines/notes/mine.txt"}


def test_no_such_fine_tune_goes_while_a_run_may_come_to_it(world: World) -> None:
    world.night(NIGHTS[0])
    config = world.runs[0].config
    evaluated = config.model_copy(update={"evaluate": Evaluate(held_out=0.1)})
    plan.execute(evaluated)
    path = world.root / f"baselines/{'a' * 32}/attempt-1/config.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    collect(world)
    assert path.is_file()


class _Stopped(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("share", [0.4, 0.99])
def test_stopped_at_any_step_it_leaves_all_that_is_needed_and_the_next_time_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    settings = Maintenance(keep_runs=0, min_age_days=0.0, delete=True)
    config = world.runs[-1].config.model_copy(update={"maintenance": settings})
    whole = gc.execute(config, delete=False)["objects"]
    delete, left = LocalStorage.delete, int(share * whole)

    def deleting(self: LocalStorage, keys: list[str]) -> None:
        nonlocal left
        for key in keys:
            if left == 0:
                raise _Stopped
            left -= 1
            delete(self, [key])

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", deleting)
        with pytest.raises(_Stopped):
            gc.execute(config)
    assert indexes.execute(config)["indexes"] == 2
    assert compact.execute(config)["prefixes"] == 3
    assert gc.execute(config)["objects"] == whole - int(share * whole)
    assert gc.execute(config)["objects"] == 0
    assert indexes.execute(config)["indexes"] == 2
    # The first night, planned anew, computes what is gone, and the next goes on from the third.
    for stage in STAGES:
        for path in (world.root / world.runs[0].prefix / stage).glob("*.json"):
            path.unlink()
    world.go_on(Run.open(world.runs[0].uri))
    assert world.night(NIGHTS[3])["version"]
    assert indexes.execute(config)["runs"] == 1


def test_the_configuration_says_whether_it_deletes_and_what_it_keeps(world: World) -> None:
    for night in NIGHTS[:3]:
        world.night(night)
    before, config = objects(world), world.runs[-1].config
    told = gc.execute(config)
    assert (told["deleted"], told["objects"], told["kept_runs"]) == (False, 0, 3)
    one = config.model_copy(update={"maintenance": Maintenance(keep_runs=1, min_age_days=0.0)})
    assert gc.execute(one)["objects"] > 10
    assert objects(world) == before
    deleting = one.model_copy(update={"maintenance": one.maintenance.model_copy(update={"delete": True})})
    # A person at a shell deletes by a word of their own, whatever the configuration lets the DAG do.
    assert gc.execute(deleting, delete=False)["deleted"] is False
    assert objects(world) == before
    assert gc.execute(deleting)["deleted"] is True
    assert len(objects(world)) < len(before)


def test_at_a_shell_nothing_is_deleted_without_a_word() -> None:
    for words, delete in {"": False, "--delete": True, "--delete-if-configured": None}.items():
        arguments = cli.parser().parse_args(["gc", "--config", "c.yaml", *words.split()])
        assert (arguments.delete, arguments.keep, arguments.days) == (delete, None, None)
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["gc", "--config", "c.yaml", "--delete", "--delete-if-configured"])


def test_what_nobody_here_has_written_is_left_alone(world: World) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    # One that is under way, so that it is asked what it may come to use.
    world.begin(NIGHTS[2])
    names = [
        f"{kind}/README" for kind in ("embeddings", "density", "index", "generations", "datasets", "runs")
    ]
    names += ["generations/rewrite/notes.txt", "generations/\x1b[2J/a-b.parquet", "notes/x"]
    names += [f"{folder}/mine/notes/x" for folder in ("embeddings", "density", "index")]
    for name in names:
        path = world.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert collect(world)["deleted"] is True
    assert [name for name in names if not (world.root / name).is_file()] == []


def test_a_damaged_object_of_responses_is_named(world: World) -> None:
    world.night(NIGHTS[0])
    damaged, *_ = sorted((world.root / "generations").glob("*/*/*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(InputError, match="is no whole table of responses .*: delete it"):
        collect(world)


@pytest.mark.operation("clock-jumps")
def test_a_clock_that_jumps_makes_nothing_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for night in NIGHTS[:2]:
        world.night(night)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30 * 86_400)
    assert collect(world, days=3)["objects"] == 0
    assert collect(world, days=0)["objects"] > 0
