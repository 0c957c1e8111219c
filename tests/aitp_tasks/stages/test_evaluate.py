"""The stage over tiny models: what is compared, and what is kept."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from aitp_tasks.config import Finetune, RunConfig
from aitp_tasks.dataset import evaluation
from aitp_tasks.dataset.apart import Apart
from aitp_tasks.dataset.export import Export
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.evaluation import benchmarks, intervals, task_files
from aitp_tasks.evaluation.benchmarks import Asked, Told
from aitp_tasks.inputs.examples import Example
from aitp_tasks.machine import models
from aitp_tasks.records import data_files, digest, evaluated, held_out, tables, versions
from aitp_tasks.records.held_out import DOCUMENTS, PAIRS, SFT
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.stages import evaluate, finetune
from aitp_tasks.storage import open_storage
from aitp_tasks.training import kept, launcher, session
from aitp_tasks.training.examples import ExampleMaker
from aitp_tasks.training.job import Job, Outcome
from tests.aitp_tasks.training import tiny

LINE, SHARE = "aitp", 0.3
#: Characters of a document's id, with which a pair's begins.
_ID = len(digest.of_text(""))
_NIGHTS: tuple[tuple[str, dict[str, Any]], ...] = (("usual", {}), ("chosen", {"eval_steps": 1}))
Leave = Callable[..., Run]
Messages = list[dict[str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("base") / "model", smollm2)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prepared() -> Callable[..., tuple[Job, ExampleMaker]]:
    """What makes examples, once for all: it takes seconds."""
    made: dict[int, tuple[Job, ExampleMaker]] = {}
    really = session.prepare

    def prepare(settings: Finetune, folder: Path, node: None = None) -> tuple[Job, ExampleMaker]:
        if settings.max_length not in made:
            made[settings.max_length] = really(settings, folder)
        job, maker = made[settings.max_length]
        return job.model_copy(update={"folder": folder, "finetune": settings}), maker

    return prepare


@pytest.fixture(autouse=True)
def quick(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "prepare", prepared)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few examples are enough here."""
    monkeypatch.setattr(intervals, "FEWEST", 5)


def _pair(number: int) -> dict[str, Any]:
    document = digest.of_text(f"document {number}")
    turns = tiny.pairs(number + 1)[number]
    return {"pair_id": f"{document}-q", "doc_id": document, "messages": turns}


@pytest.fixture
def leave(tmp_path: Path, base: Path) -> Leave:
    """Leaves what evaluate reads; settings of its section, and of the fine-tune."""

    def make(
        night: str = "one", before: str | None = None, training: dict[str, Any] | None = None, **settings: Any
    ) -> Run:
        config = RunConfig.model_validate(
            {
                "root": f"file://{tmp_path}/storage",
                "dump": night,
                "sft": "sums",
                "encoder": {"model": "/none"},
                "engine": {"model": "/none"},
                "prompts": {"folder": "/none"},
                "evaluate": {"held_out": SHARE, "max_examples": 12, "generations": 0, **settings},
                "finetune": {
                    "model": str(base),
                    "processes": 1,
                    "batch_size": 2,
                    "gradient_accumulation": 1,
                    "max_steps": 2,
                    "learning_rate": 1e-2,
                    "max_length": 96,
                    **(training or {}),
                },
            }
        )
        plan = Plan(
            config=config,
            encoder_identity="e",
            engine_identity="e",
            finetune_identity=models.identity(config.finetune),
            prompts={},
            groups=(),
            tasks_identity=task_files.identity(config.evaluate),
        )
        run = Run.create(open_storage(config.root), plan)
        _leave_version(run, tmp_path, before)
        return run

    return make


def _leave_version(run: Run, scratch: Path, before: str | None) -> None:
    share, most = run.config.evaluate.held_out, run.config.evaluate.max_examples
    pairs = [_pair(number) for number in range(40)]
    apart = Apart(share, pairs)
    folder = scratch / f"version-{run.config.dump}"
    folder.mkdir(exist_ok=True)
    with Export(folder) as export:
        for turns in [
            [{**turn, "content": f"Say: {turn['content']}"} for turn in one] for one in tiny.pairs(60)
        ]:
            if not apart.takes(Example(turns)):
                export.write([{"messages": turns, "origin": "sft"}])
        learnt = [pair for pair in pairs if not held_out.is_held_out(pair["doc_id"], share)]
        export.write([{**pair, "origin": "aitp"} for pair in learnt])
        export.close(LINE)
    key = f"{versions.prefix(LINE, run.config.dump)}/{data_files.shard(0, 1)}"
    run.storage.upload(key, folder / data_files.shard(0, 1))
    made = versions.Version(
        name=run.config.dump,
        run=run.prefix,
        ancestors=(before,) if before else (),
        geometry=versions.Geometry(key="g", identity="i", corpus_grid="c"),
        sft="the set",
    )
    versions.write(run.storage, LINE, made)
    validated = run.config.finetune.eval_steps is not None
    aside = apart.write(run.storage, run.key("assemble", "held-out-"), most, validated)
    outputs = {data_files.output(key): key, **aside}
    figures = {"version": run.config.dump, "pairs": len(learnt), "earlier_pairs": 0, "sft_examples": 42}
    run.commit(Manifest(stage="assemble", label=run.config.dump, outputs=outputs, figures=figures))
    documents = [
        {
            "doc_id": digest.of_text(f"document {number}"),
            "text": f"Number {number} is told of. " * (number + 1),
        }
        for number in range(40)
    ]
    part = tables.write(run.storage, run.key("difference", "part"), pa.Table.from_pylist(documents))
    run.commit(
        Manifest(stage="difference", label="d", outputs={"part-0000-of-0001": part}, figures={"parts": 1})
    )


def _leave_checkpoint(run: Run, base: Path, name: str, sharper: float, **told: Any) -> None:
    """A checkpoint that says what the base says, more or less surely."""
    key = f"models/{LINE}/{name}"
    for path in sorted(base.iterdir()):
        run.storage.upload(f"{key}/{path.name}", path)
    weights = _scaled(base, sharper)
    own = Path(str(base) + f"-{name}.safetensors")
    save_file(weights, own, metadata={"format": "pt"})
    run.storage.upload(f"{key}/model.safetensors", own)
    figures = {"steps": 2, "train_loss_first": 2.0, "train_loss_last": 1.0, **told}
    run.commit(
        Manifest(
            stage="finetune", label=f"aitp {name}", ledger=Ledger(rows_in=0, rows_out=0),
            outputs={"checkpoint": key}, figures=figures,
        )
    )  # fmt: skip


def _scaled(base: Path, factor: float) -> dict[str, Any]:
    """Logits are smaller or larger: of a model at random, the smaller the better."""
    weights = load_file(base / "model.safetensors")
    name = "model.norm.weight"
    return weights | {name: weights[name] * factor}


def _trained(base: Path, asked: list[Job]) -> Callable[[Job], Outcome]:
    """In the place of ranks: the base's own weights."""

    def train(job: Job) -> Outcome:
        asked.append(job)
        shutil.copytree(base, job.checkpoint)
        job.log_history.write_text("[]")
        return Outcome(steps=job.finetune.max_steps, train_loss_first=1.0, train_loss_last=1.0)

    return train


def test_where_nothing_is_held_out_nothing_is_done(leave: Leave, monkeypatch: pytest.MonkeyPatch) -> None:
    run = leave(held_out=0.0)
    monkeypatch.setattr(launcher, "run", pytest.fail)
    before = {info.key for info in run.storage.list("")}
    result = evaluate.execute(run)
    assert (result["evaluated"], result["to_promote"], result["why"]) == (
        False, False, "evaluate.promote is always",
    )  # fmt: skip
    assert {info.key for info in run.storage.list("")} == before


def test_a_baseline_is_shared_and_what_was_measured_is_not_measured_again(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(launcher, "run", _trained(base, asked))
    for name, sharper, to_promote in (("worse", 1.5, False), ("better", 0.5, True)):
        run = leave(name, promote="when_better")
        _leave_checkpoint(run, base, name, sharper)
        result = evaluate.execute(run)
        assert result["to_promote"] is to_promote, result["why"]
        assert len(json.dumps(result)) <= 1000
        # The version knows it too, for whoever hands it on without its run.
        told = evaluated.of_version(run.storage, LINE, name)
        assert told == {key: run.require_manifest("evaluate").figures[key] for key in ("sets", "steps")}
        assert "| SFT examples | 12 |" in evaluation.told(told or {})
    # One baseline for both: same SFT set, settings and steps.
    assert [job.finetune.max_steps for job in asked] == [2]

    before = {info.key: info.etag for info in run.storage.list("")}
    monkeypatch.setattr(evaluate, "_evaluate", pytest.fail)
    assert evaluate.execute(run) == result
    assert {info.key: info.etag for info in run.storage.list("")} == before
    # It is promote that lets it become the latest.
    assert versions.latest(run.storage, LINE) is None


def test_the_losses_of_every_example_are_kept_and_add_up(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "run", _trained(base, []))
    run = leave(max_examples=9)
    _leave_checkpoint(run, base, "one", 0.5)
    result = evaluate.execute(run)
    done = run.require_manifest("evaluate")
    rows = tables.read(run.storage, done.output("losses")).to_pylist()
    sets = done.figures["sets"]
    assert set(sets) == {SFT, PAIRS, DOCUMENTS}
    for name, told in sets.items():
        own = [row for row in rows if row["set"] == name]
        assert told["n"] == len(own) == 9
        assert told["tokens"] == sum(row["tokens"] for row in own)
        for model in ("base", "sft_only", "aitp"):
            assert told["loss"][model] == pytest.approx(sum(row[model] for row in own) / 9, abs=1e-5)
        # The stand-in of the baseline is the base.
        assert told["loss"]["base"] == told["loss"]["sft_only"] > told["loss"]["aitp"]
        difference = told["aitp_minus_sft_only"]
        assert difference == told["aitp_minus_base"]
        assert difference["low"] <= difference["mean"] <= difference["high"] < 0
        assert result["sets"][name][0] == 9
    share = run.config.evaluate.held_out
    ids = {row["id"] for row in rows if row["set"] == DOCUMENTS}
    every = sorted((digest.of_text(f"document {number}") for number in range(40)), key=held_out.place)
    assert ids == set(every[:9])
    assert all(held_out.is_held_out(one, share) for one in ids)
    assert {row["id"] for row in rows if row["set"] == PAIRS} == {f"{one}-q" for one in every[:9]}


def test_the_same_questions_are_answered_by_all_three_models(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "run", _trained(base, []))
    run = leave(max_examples=6, generations=7, generated_tokens=3)
    # Of a model whose every state is 0, all tokens are as likely: the first one is the likeliest, and ends.
    _leave_checkpoint(run, base, "one", 0.0)
    evaluate.execute(run)
    done = run.require_manifest("evaluate")
    assert done.figures["questions"] == {"asked": 7, "left": {}}
    rows = tables.read(run.storage, done.output("generations")).to_pylist()
    assert [row["set"] for row in rows] == [SFT] * 4 + [PAIRS] * 3
    for name in (SFT, PAIRS):
        asked = {row["id"]: (row["text"], row["reference"]) for row in rows if row["set"] == name}
        held = tables.read(
            run.storage, run.require_manifest("assemble").output(f"held_out_{name}")
        ).to_pylist()
        # The first ones of those that are held out.
        assert asked == {
            row["id"]: tuple(turn["content"] for turn in row["messages"]) for row in held[: len(asked)]
        }
    for row in rows:
        # The stand-in of the baseline is the base.
        for what in ("", "_finish", "_tokens"):
            assert row[f"base{what}"] == row[f"sft_only{what}"]
        assert (row["aitp"], row["aitp_finish"], row["aitp_tokens"]) == ("", "stop", 0)
        assert 0 <= row["base_tokens"] <= 3
    assert any(row["base"] for row in rows)


def test_nobody_is_asked_where_no_questions_are_wanted(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "run", _trained(base, []))
    run = leave(max_examples=2)
    _leave_checkpoint(run, base, "one", 0.5)
    evaluate.execute(run)
    done = run.require_manifest("evaluate")
    assert "generations" not in done.outputs
    assert done.figures["questions"] == {"asked": 0, "left": {}}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """In the place of the harness's process, which evaluation/test_benchmarks.py runs: what it was asked."""
    asked: list[Asked] = []

    def told(one: Asked) -> Told:
        asked.append(one)
        if one.model is None:
            return Told(version="1")
        assert (Path(one.model.model) / "model.safetensors").exists()
        results = {"quiz": {"acc,none": len(asked) / 10, "acc_stderr,none": 0.25}}
        return Told(version="1", results=results, counts={"quiz": {"effective": 12}})

    monkeypatch.setattr(benchmarks, "_run", told)
    return asked


def test_all_three_models_are_put_to_the_tasks(
    leave: Leave, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: list[Asked]
) -> None:
    monkeypatch.setattr(launcher, "run", _trained(base, []))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/quiz.yaml").write_text("task: quiz")
    tasks = {"tasks": ["quiz"], "task_folder": str(tmp_path / "tasks"), "task_limit": 5}
    # Whether or not there is anything else to read.
    run = leave(held_out=1e-9, **tasks)
    _leave_checkpoint(run, base, "one", 0.5)
    assert len(json.dumps(evaluate.execute(run))) <= 1000
    assert run.require_manifest("evaluate").figures["tasks"] == {
        "harness": "1",
        "limit": 5,
        "results": {
            "quiz": {
                "n": 12,
                "metrics": {"acc": {"base": [0.2, 0.25], "sft_only": [0.3, 0.25], "aitp": [0.4, 0.25]}},
            }
        },
    }
    first, *others = harness
    assert (first.model, first.load, first.limit) == (None, True, 5)
    models_of = [one.model.model for one in others if one.model is not None]
    assert models_of[0] == str(base)
    assert len(set(models_of)) == 3

    (tmp_path / "tasks/quiz.yaml").write_text("task: other")
    again = leave("two", held_out=1e-9, **tasks)
    changed = again.plan.model_copy(update={"tasks_identity": run.plan.tasks_identity})
    with pytest.raises(InputError, match="are not those that the run was planned with"):
        evaluate._evaluate(Run(again.storage, changed, changed.digest))


def test_a_task_that_cannot_be_used_is_refused_before_anything_is_trained(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "run", pytest.fail)
    monkeypatch.setattr(benchmarks, "_run", _refused)
    run = leave(tasks=["quiz"])
    _leave_checkpoint(run, base, "one", 0.5)
    with pytest.raises(InputError, match="no quiz"):
        evaluate.execute(run)
    assert run.find_manifest("evaluate") is None


def _refused(_: Asked) -> Told:
    raise InputError("no quiz")


def test_nothing_of_what_is_evaluated_is_trained_on(leave: Leave) -> None:
    run = leave()
    assembled = run.require_manifest("assemble")
    (key,) = data_files.keys(assembled)
    data = tables.read(run.storage, key).to_pylist()
    trained = {json.dumps(row["messages"]) for row in data}
    for name in (SFT, PAIRS):
        rows = tables.read(run.storage, assembled.output(f"held_out_{name}")).to_pylist()
        assert len(rows) > 5
        assert trained.isdisjoint(json.dumps(row["messages"]) for row in rows)


def test_a_pair_with_the_text_of_one_that_is_trained_on_is_not_evaluated() -> None:
    pairs = [_pair(number) for number in range(40)]
    held = [pair for pair in pairs if held_out.is_held_out(pair["doc_id"], SHARE)]
    apart = Apart(SHARE, pairs)
    apart.trained([{"messages": held[0]["messages"]}])
    assert apart.pairs == len(held)
    assert apart.also_trained() == {SFT: 0, PAIRS: 1}


def test_a_loss_that_is_no_number_is_told_and_promotes_nothing(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "run", _trained(base, []))
    run = leave(promote="when_better")
    _leave_checkpoint(run, base, "one", float("nan"))
    result = evaluate.execute(run)
    assert not result["to_promote"]
    assert result["why"] == (
        "the losses on SFT examples and held-out pairs and documents are not sound numbers"
    )
    json.dumps(result, allow_nan=False)
    told = Run.open(run.uri).require_manifest("evaluate").figures["sets"][SFT]
    assert (told["loss"]["aitp"], told["aitp_minus_base"]["mean"]) == (None, None)
    assert told["loss"]["base"] > 0


def test_nothing_that_was_chosen_by_is_evaluated(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(launcher, "run", _trained(base, asked))
    usual, chosen = (leave(name, training=training, max_examples=100) for name, training in _NIGHTS)
    for run in (usual, chosen):
        _leave_checkpoint(run, base, run.config.dump, 0.5)
        evaluate.execute(run)
    read: list[dict[str, set[str]]] = []
    for run in (usual, chosen):
        rows = tables.read(run.storage, run.require_manifest("evaluate").output("losses")).to_pylist()
        read.append(
            {name: {row["id"] for row in rows if row["set"] == name} for name in (SFT, PAIRS, DOCUMENTS)}
        )
    for name in (PAIRS, DOCUMENTS):
        assert read[1][name] == {one for one in read[0][name] if not held_out.is_validation(one[:_ID])}
        assert 0 < len(read[1][name]) < len(read[0][name])
    assert read[1][SFT] < read[0][SFT]
    outputs = chosen.require_manifest("assemble").outputs
    by = {
        row["id"]
        for name in (SFT, PAIRS)
        for row in tables.read(chosen.storage, outputs[f"validation_{name}"]).to_pylist()
    }
    assert by
    assert not by & set().union(*read[1].values())


def test_the_sft_set_alone_ends_where_the_version_did_and_is_chosen_like_it(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    validated: list[bool] = []
    train = _trained(base, asked)

    def look(job: Job) -> Outcome:
        validated.append(job.validation.exists())
        return train(job)

    monkeypatch.setattr(launcher, "run", look)
    stopped = {"eval_steps": 1, "patience": 1}
    nights: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("last", stopped, {"planned_steps": 9}),
        ("last-again", stopped, {"planned_steps": 9}),
        ("best", {**stopped, "keep_best": True}, {"planned_steps": 9}),
        ("whole", stopped, {"planned_steps": 2}),
    ]
    for name, training, told in nights:
        run = leave(name, training={"max_steps": 9, **training})
        _leave_checkpoint(run, base, name, 0.5, **told)
        evaluate.execute(run)
    kinds = [
        (job.finetune.max_steps, job.last_step, job.finetune.eval_steps, job.finetune.keep_best)
        for job in asked
    ]
    # The second night takes the first one's.
    assert kinds == [(9, 2, None, False), (9, 2, 1, True), (2, None, None, False)]
    assert validated == [False, True, False]
    assert all(job.finetune.patience is None for job in asked)


def test_sets_may_be_empty(leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "run", pytest.fail)
    # So little that nothing is held out.
    run = leave(held_out=1e-9, promote="when_better")
    _leave_checkpoint(run, base, "one", 0.5)
    result = evaluate.execute(run)
    assert (result["evaluated"], result["to_promote"]) == (True, False)
    assert result["why"] == "nobody knows whether it is worse on SFT examples (there is no example)"
    assert [numbers[0] for numbers in result["sets"].values()] == [0, 0, 0]


def test_a_baseline_whose_training_was_killed_goes_on(
    leave: Leave, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = leave()
    _leave_checkpoint(run, base, "one", 0.5)

    def killed(job: Job) -> Outcome:
        state = job.states / "step-00000001.unfinished"
        state.mkdir(parents=True)
        (state / "layout.json").write_text("{}")
        state.rename(state.with_suffix(""))
        while kept.newest(run, "evaluate") is None:
            pass
        raise TransientError("killed")

    monkeypatch.setattr(launcher, "run", killed)
    with pytest.raises(TransientError, match="killed"):
        evaluate.execute(run)
    resumed: list[bool] = []
    train = _trained(base, [])

    def goes_on(job: Job) -> Outcome:
        resumed.append((job.resumed / "layout.json").exists())
        return train(job)

    monkeypatch.setattr(launcher, "run", goes_on)
    evaluate.execute(run)
    assert resumed == [True]
    assert kept.newest(run, "evaluate") is None


@pytest.mark.slow
def test_the_baseline_is_trained_as_the_version_was(leave: Leave, base: Path, tmp_path: Path) -> None:
    run = leave(training={"max_steps": 3})
    # A version that is the SFT set alone: then both trainings are the same.
    assembled = run.require_manifest("assemble")
    (key,) = data_files.keys(assembled)
    path = Path(f"{run.storage.root}/{key}".removeprefix("file://"))
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.compute.equal(table["origin"], "sft")), path)
    versions.add(run.storage, LINE, versions.load(run.storage, LINE, "one"))
    finetune.execute(run)
    evaluate.execute(run)
    done = run.require_manifest("evaluate")
    ours, theirs = (
        run.storage.read(f"{prefix}/model.safetensors")
        for prefix in (f"models/{LINE}/one", done.output("baseline"))
    )
    assert ours == theirs
    assert ours != (base / "model.safetensors").read_bytes()
    for told in done.figures["sets"].values():
        difference = told["aitp_minus_sft_only"]
        assert (difference["low"], difference["mean"], difference["high"]) == (0.0, 0.0, 0.0)
    learnt = done.figures["sets"][SFT]["aitp_minus_base"]
    assert learnt["high"] < 0
