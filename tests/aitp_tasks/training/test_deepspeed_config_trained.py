"""With a team's own file, offloaded or not, a training is the same, and goes on from its states."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aitp_tasks.training import states
from aitp_tasks.training.job import Job
from tests.aitp_tasks.training import tiny

pytestmark = pytest.mark.slow

_STEP = 3
_FILE = {
    "zero_optimization": {"allgather_bucket_size": 200_000, "reduce_bucket_size": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}},
}


def _told(job: Job) -> dict[str, Any]:
    """What DeepSpeed got."""
    found: dict[str, Any] = json.loads((job.folder / "arguments.json").read_bytes())["deepspeed"]
    return found


@pytest.fixture(scope="module")
def trained(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    root = tmp_path_factory.mktemp("trained")
    model = tiny.make_model(root / "tiny", smollm2)
    ways: dict[str, dict[str, Any]] = {
        "plain": {"zero_stage": 2},
        "file": {"zero_stage": 2},
        "optimizer": {"zero_stage": 2, "offload": "optimizer", "save_steps": _STEP},
        "optimizer again": {"zero_stage": 2, "offload": "optimizer"},
        "parameters": {"zero_stage": 3, "offload": "parameters", "save_steps": _STEP},
        "parameters again": {"zero_stage": 3, "offload": "parameters"},
        "lora": {"zero_stage": 3, "offload": "parameters", "lora": {}},
    }
    jobs = {
        name: tiny.make_job(
            root / name.replace(" ", "-"),
            model,
            tiny.pairs(24),
            **{"processes": 2, "epochs": 1, "weight_decay": 0.1, "learning_rate": 1e-3, **own},
        )
        for name, own in ways.items()
    }
    jobs["file"] = jobs["file"].model_copy(update={"deepspeed": _FILE})
    jobs["file"].write()
    for name in ("optimizer", "parameters"):
        jobs[f"{name} again"].resumed.symlink_to(jobs[name].states / states.name(_STEP))
    tiny.train(list(jobs.values()))
    return jobs


@pytest.mark.parametrize("name", ["optimizer", "optimizer again", "parameters", "parameters again"])
def test_it_is_the_same_training(trained: dict[str, Job], name: str) -> None:
    plain, offloaded = trained["plain"], trained[name]
    assert _told(offloaded)["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    losses = zip(tiny.losses(plain), tiny.losses(offloaded), strict=True)
    assert max(abs(one - other) / one for one, other in losses) <= 1e-3
    ours, theirs = (load_file(job.checkpoint / "model.safetensors") for job in (offloaded, plain))
    assert ours.keys() == theirs.keys()
    base = load_file(Path(plain.finetune.model) / "model.safetensors")
    for key, tensor in ours.items():
        # Apart by less than what was learnt.
        assert (tensor - theirs[key]).abs().max() <= 0.1 * (theirs[key] - base[key]).abs().max() + 1e-2, key
        assert torch.isfinite(tensor).all()


def test_deepspeed_is_told_what_the_file_has(trained: dict[str, Job]) -> None:
    told = _told(trained["file"])["zero_optimization"]
    assert (told["allgather_bucket_size"], told["stage"]) == (200_000, 2)
    assert tiny.losses(trained["file"]) == tiny.losses(trained["plain"])


def test_an_adapter_is_trained_too(trained: dict[str, Job]) -> None:
    losses = tiny.losses(trained["lora"])
    assert losses[-1] < losses[0]
    assert (trained["lora"].checkpoint / "adapter" / "adapter_model.safetensors").exists()
