"""Validations amid a training: the loss of each example alone, and what is chosen by it."""

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from aitp_tasks.machine import processors
from aitp_tasks.training import states, validation
from aitp_tasks.training.examples import IGNORED
from aitp_tasks.training.job import Job
from tests.aitp_tasks.training import tiny

_VOCABULARY, _STEPS = 64, 8
#: Nothing like what is trained on: the more of that is learnt, the less likely they are.
_UNLIKE = [
    [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}]
    for text in ("Violet thunder", "Zebras quarrel over marmalade", "Ox", "Quartz hums beneath glaciers " * 3)
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _model() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": _VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)
    return AutoModelForCausalLM.from_config(config).float().eval()


def _alone(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """By hand: each example read alone, minus the logarithm of each learnt token's probability."""
    nats, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            chances = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
            for place in range(1, len(row["labels"])):
                if row["labels"][place] != IGNORED:
                    nats -= chances[place - 1, row["labels"][place]].item()
                    count += 1
    return nats / count


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=9),
    batch_size=st.integers(1, 10),
    ranks=st.integers(1, 4),
)
def test_the_loss_is_that_of_learnt_tokens_whatever_is_read_together(
    lengths: list[int], batch_size: int, ranks: int
) -> None:
    model, drawn = _model(), torch.Generator().manual_seed(sum(lengths))
    rows = []
    for length in lengths:
        tokens = torch.randint(_VOCABULARY, (length,), generator=drawn).tolist()
        learnt = torch.rand(length, generator=drawn).tolist()
        labels = [token if chance < 0.5 else IGNORED for token, chance in zip(tokens, learnt, strict=True)]
        rows.append({"input_ids": tokens, "labels": [*labels[:-1], tokens[-1]]})
    examples = Dataset(pa.Table.from_pylist(rows))
    totals: list[torch.Tensor] = []
    reads = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_world_size", lambda: ranks)
        patch.setattr(dist, "all_reduce", lambda total: totals.append(total.clone()))
        for rank in range(ranks):
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            counted = Mock(wraps=model)
            validation.loss(counted, examples, batch_size, torch.device("cpu"))
            reads.add(counted.call_count)
    nats, count = torch.stack(totals).sum(0).tolist()
    assert nats / count == pytest.approx(_alone(model.eval(), rows), rel=1e-5)
    # Under ZeRO 3 a rank that reads less often than the others leaves them waiting.
    assert reads == {math.ceil(math.ceil(len(rows) / batch_size) / ranks)}


def _history(job: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(job.log_history.read_bytes())
    return found


def _validations(job: Job) -> dict[int, float]:
    return {entry["step"]: entry["eval_loss"] for entry in _history(job) if "eval_loss" in entry}


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in folder.glob("tensors-*") for name, value in load_file(path).items()}


def _of_state(job: Job, step: int) -> float:
    """The loss of a state's weights, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(job.finetune.model).eval()
    model.load_state_dict(_tensors(job.states / states.name(step)), strict=False)
    rows = Dataset.from_file(str(job.validation)).to_list()
    return _alone(model.to(torch.bfloat16 if processors.compute_bfloat16() else torch.float32), rows)


def _has_weights_of(job: Job, step: int) -> bool:
    """Whether the checkpoint has the weights of a state."""
    wanted = _tensors(job.states / states.name(step))
    found = load_file(job.checkpoint / "model.safetensors")
    return all(value.equal(wanted[name].to(value.dtype)) for name, value in found.items())


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model") / "tiny", smollm2, attention_dropout=0.1)


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """One rank, without ZeRO."""
    folder = tmp_path_factory.mktemp("alone")
    common = {"max_steps": _STEPS, "learning_rate": 0.1, "zero_stage": 0, "neftune_noise": 1.0}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "watched": {"eval_steps": 1, "save_steps": 1, "keep_best": True, "report_to": ["trackio"]},
        "patient": {"eval_steps": 1, "patience": 2},
        "packed": {"eval_steps": 3, "save_steps": 3, "packing": True, "batch_size": 1, "max_length": 96},
    }
    jobs = {
        name: tiny.make_job(folder / name, model, tiny.pairs(16), validated=_UNLIKE, **common | settings)
        for name, settings in kinds.items()
    }
    jobs["ended"] = tiny.make_job(folder / "ended", model, tiny.pairs(16), validated=_UNLIKE, **common)
    jobs["ended"] = jobs["ended"].model_copy(update={"last_step": 3})
    jobs["ended"].write()
    with pytest.MonkeyPatch.context() as patch:
        told = tiny.tracker(folder, patch)
        tiny.train([*jobs.values()])
        (folder / "told.json").write_text(json.dumps(told()))
    return jobs


@pytest.mark.slow
def test_validating_changes_nothing_of_the_training(alone: dict[str, Job]) -> None:
    assert len(tiny.losses(alone["plain"])) == _STEPS
    assert tiny.losses(alone["watched"]) == tiny.losses(alone["plain"])
    assert _validations(alone["plain"]) == {}
    entries = [(entry["step"], "loss" in entry) for entry in _history(alone["watched"])]
    assert entries == [(step, is_step) for step in range(1, _STEPS + 1) for is_step in (True, False)]


@pytest.mark.slow
def test_a_tracker_is_told_each_loss_of_the_log_history(alone: dict[str, Job]) -> None:
    job = alone["watched"]
    told = [entry.get("log", {}) for entry in json.loads((job.folder.parent / "told.json").read_bytes())]
    for name, key in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        found = [(entry["train/global_step"], entry[key]) for entry in told if key in entry]
        assert found == [(entry["step"], entry[name]) for entry in _history(job) if name in entry]
        assert len(found) == _STEPS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("watched", (1, 4, 7)), ("packed", (3, 6))])
def test_the_loss_is_that_of_the_weights_of_the_step(
    alone: dict[str, Job], name: str, steps: tuple[int, ...]
) -> None:
    found = _validations(alone[name])
    for step in steps:
        assert found[step] == pytest.approx(_of_state(alone[name], step), rel=2e-3)
    # The last step too, whatever divides it.
    assert max(found) == _STEPS


@pytest.mark.slow
def test_the_checkpoint_has_the_best_weights(alone: dict[str, Job]) -> None:
    job = alone["watched"]
    found = _validations(job)
    best = min(found, key=lambda step: found[step])
    assert best < _STEPS
    assert _has_weights_of(job, best)
    assert not _has_weights_of(job, _STEPS - 1)
    outcome = json.loads(job.outcome.read_bytes())
    assert outcome["best_step"] == best
    assert outcome["eval_loss_best"] == round(found[best], 4) < outcome["eval_loss_last"]


@pytest.mark.slow
def test_a_training_ends_when_nothing_gets_better(alone: dict[str, Job]) -> None:
    every, found = _validations(alone["watched"]), _validations(alone["patient"])
    expected: list[int] = []
    for step in range(1, _STEPS + 1):
        expected.append(step)
        best = min(expected, key=lambda one: every[one])
        if expected.index(best) <= len(expected) - 3:
            break
    assert list(found) == expected
    assert expected[-1] < _STEPS
    outcome = json.loads(alone["patient"].outcome.read_bytes())
    assert (outcome["steps"], outcome["planned_steps"]) == (expected[-1], _STEPS)


@pytest.mark.slow
def test_a_training_that_is_ended_early_has_the_rate_of_the_whole_one(alone: dict[str, Job]) -> None:
    assert tiny.losses(alone["ended"]) == tiny.losses(alone["plain"])[:3]
    rates = [[entry["learning_rate"] for entry in _history(alone[name])] for name in ("plain", "ended")]
    assert rates[1] == rates[0][:3]
    assert json.loads(alone["ended"].outcome.read_bytes())["planned_steps"] == _STEPS


@pytest.mark.slow
def test_the_best_and_patience_outlive_a_stop_under_zero_3(model: Path, tmp_path: Path) -> None:
    common = {
        **{"max_steps": _STEPS, "learning_rate": 0.1, "zero_stage": 3, "processes": 2, "batch_size": 1},
        **{"eval_steps": 1, "save_steps": 1, "keep_best": True},
    }
    whole, again = (
        tiny.make_job(tmp_path / name, model, tiny.pairs(16), validated=_UNLIKE, **common | settings)
        for name, settings in (("whole", {}), ("again", {"patience": 3}))
    )
    # As the stage leaves them; both are there when the second begins.
    again.resumed.symlink_to(whole.states / states.name(5))
    again.best.symlink_to(whole.best)
    tiny.train([whole, again])
    found = _validations(whole)
    best = min(found, key=lambda step: found[step])
    assert best <= 5
    assert found[4] == pytest.approx(_of_state(whole, 4), rel=2e-3)
    assert _has_weights_of(whole, best)
    # What was found before the stop counts.
    last = min(max(6, best + 3), _STEPS)
    assert _validations(again) == {step: loss for step, loss in found.items() if step <= last}
    files = [load_file(job.checkpoint / "model.safetensors") for job in (whole, again)]
    assert all(value.equal(files[1][name]) for name, value in files[0].items())
    assert states.best((whole.states / states.name(6) / states.LAYOUT).read_bytes()) == best
