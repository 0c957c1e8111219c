"""The stage and LoRA: the adapter is stored with the checkpoint; what cannot be trained leases nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import published
from aitp_tasks.stages import finetune, plan
from aitp_tasks.training import launcher
from aitp_tasks.training.job import Job, Outcome
from tests.aitp_tasks.conftest import MODELS, Configure
from tests.aitp_tasks.training import tiny


def test_the_adapter_is_committed_with_the_checkpoint(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tiny.pairs(2), lora={"rank": 8})
    told: list[Job] = []

    def train(job: Job) -> Outcome:
        told.append(job)
        (job.checkpoint / "adapter").mkdir(parents=True)
        for name in ("config.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"):
            (job.checkpoint / name).write_text(name)
        job.log_history.write_text("[]")
        return Outcome(steps=1, train_loss_first=1.0, train_loss_last=1.0)

    monkeypatch.setattr(launcher, "run", train)
    finetune.execute(run, None)
    # No path of this machine.
    assert told[0].base == run.config.finetune.label == "SmolLM2-135M-Instruct"
    manifest = run.require_manifest("finetune")
    for prefix in (manifest.output("checkpoint"), manifest.output(published.ATTEMPT)):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert run.storage.read(f"{prefix}/adapter/{name}") == f"adapter/{name}".encode()
    card = run.storage.read(f"{manifest.output('checkpoint')}/README.md").decode()
    assert "`adapter/` holds the adapter alone" in card
    assert "| `lora` | {'rank': 8, 'alpha': 32, 'dropout': 0.0, 'quantised': False, " in card


def test_a_layer_that_is_not_there_is_refused_before_devices_are_leased(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tiny.pairs(2), lora={"target_modules": ["query"]})
    monkeypatch.setattr(finetune.devices, "lease", pytest.fail)
    with pytest.raises(InputError, match="finetune.lora.target_modules names query, but .*q_proj"):
        finetune.execute(run, None)


def test_a_layer_that_is_not_there_is_refused_at_plan(configure: Configure, root: Path) -> None:
    lora = {"target_modules": ["q_proj", "query"]}
    with pytest.raises(InputError, match="finetune.lora.target_modules names query, but .*q_proj"):
        plan.execute(configure(finetune={"model": str(MODELS / "SmolLM2-135M-Instruct"), "lora": lora}))
    assert not list((root / "runs").rglob("plan.json"))


def test_without_lora_the_settings_are_the_same_as_before(make_run: Any) -> None:
    identity = make_run(tiny.pairs(1)).config.identity()["finetune"]
    assert "lora" not in identity
    adapted = make_run(tiny.pairs(1), lora={}).config.identity()["finetune"]
    assert json.loads(json.dumps(adapted["lora"]))["rank"] == 16
