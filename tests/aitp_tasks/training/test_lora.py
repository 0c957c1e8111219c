"""LoRA: the merged checkpoint is what peft says of base and adapter, and nothing else is touched."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from aitp_tasks.config import Finetune, Lora
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model
from aitp_tasks.training import checks, lora, memory, states
from aitp_tasks.training.job import Job
from tests.aitp_tasks.training import tiny

_ANSWER = "Seven."
_CONVERSATION = [{"role": "user", "content": "Five?"}, {"role": "assistant", "content": _ANSWER}]
_LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
_STEP = 3


def _gpt2(folder: Path, tokenizer: Path) -> Path:
    """A model whose layers have their weights the other way round."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=49152, n_positions=128, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def trained(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Adapters trained in several ways by one pair of ranks."""
    root = tmp_path_factory.mktemp("trained")
    tied = tiny.make_model(root / "tied", smollm2)
    untied = tiny.make_model(root / "untied", smollm2, tie_word_embeddings=False, max_shard_size="1MB")
    wide = tiny.make_model(root / "wide", smollm2, dtype="float32")
    # Its embeddings stay as they are, and have to be far enough from each other.
    deep = tiny.make_model(root / "deep", smollm2, hidden_size=64, initializer_range=0.5)
    settings: dict[str, dict[str, Any]] = {
        "zero 0": {"model": tied, "zero_stage": 0, "lora": {}},
        "zero 2": {
            **{"model": wide, "zero_stage": 2, "gradient_checkpointing": True},
            "lora": {"rank": 3, "alpha": 5, "dropout": 0.1, "target_modules": ["q_proj", "mlp.down_proj"]},
        },
        "zero 3": {"model": untied, "zero_stage": 3, "gradient_checkpointing": True, "lora": {"rank": 2}},
        "gpt2": {"model": _gpt2(root / "turned", smollm2), "zero_stage": 2, "lora": {}},
        "over-fitted": {"model": deep, "lora": {}, "max_steps": 40, "max_grad_norm": 0},
    }
    jobs = {
        name: tiny.make_job(
            root / name.replace(" ", "-"),
            conversations=[_CONVERSATION] * 4,
            **{"processes": 2, "max_steps": 2, **own},
        )
        for name, own in settings.items()
    }
    for stage in (2, 3):
        own = {
            "processes": 2,
            "zero_stage": stage,
            "lora": {"dropout": 0.1},
            "save_steps": _STEP,
            "epochs": 1,
        }
        jobs[f"whole {stage}"] = tiny.make_job(root / f"whole-{stage}", tied, tiny.pairs(24), **own)
        jobs[f"again {stage}"] = tiny.make_job(root / f"again-{stage}", tied, tiny.pairs(24), **own)
        # There is one when the second begins.
        left = jobs[f"whole {stage}"].states / states.name(_STEP)
        jobs[f"again {stage}"].resumed.symlink_to(left)
    tiny.train(list(jobs.values()))
    return jobs


def _tensors(folder: Path, start: str = "model") -> dict[str, torch.Tensor]:
    paths = folder.glob(f"{start}*.safetensors")
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero 0", "zero 2", "zero 3", "gpt2"])
def test_the_checkpoint_is_what_peft_makes_of_base_and_adapter(trained: dict[str, Job], name: str) -> None:
    job = trained[name]
    base, folder = Path(job.finetune.model), job.checkpoint
    made = {path.name for path in base.iterdir()} | {"adapter"}
    assert {path.name for path in folder.iterdir()} == made
    assert {path.name for path in (folder / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    ours, theirs = _tensors(folder), _tensors(base)
    assert {key: value.dtype for key, value in ours.items()} == {
        key: value.dtype for key, value in theirs.items()
    }
    changed = {key for key in ours if not ours[key].equal(theirs[key])}
    targets = json.loads((folder / "adapter" / "adapter_config.json").read_bytes())["target_modules"]
    wanted = {key for key in ours if key.removesuffix(".weight").endswith(tuple(targets))}
    assert changed == wanted - {key for key in wanted if key.endswith(".bias")} != set()

    adapted = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(adapted, folder / "adapter").eval()
    text = torch.arange(1, 60).reshape(1, -1) * 700
    with torch.no_grad():
        expected = adapted(text).logits
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(text).logits
        merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(text).logits
    moved = (expected - plain).abs().max()
    # Rounded to the base's dtype, once.
    tolerance = 1e-4 if theirs[next(iter(wanted))].dtype == torch.float32 else 0.1
    assert (merged - expected).abs().max() < tolerance * moved
    for key, tensor in adapted.merge_and_unload().state_dict().items():
        if key in wanted:
            assert tensor.to(ours[key].dtype).equal(ours[key]), key


@pytest.mark.slow
def test_it_learns(trained: dict[str, Job]) -> None:
    job = trained["over-fitted"]
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(job.checkpoint)
    prompt = tokenizer.apply_chat_template(
        _CONVERSATION[:1], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=30, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == f"{_ANSWER}<|im_end|>"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_it_goes_on_from_a_state_of_what_is_trained(trained: dict[str, Job], stage: int) -> None:
    whole, again = trained[f"whole {stage}"], trained[f"again {stage}"]
    left = _tensors(whole.states / states.name(_STEP), "tensors")
    # Matrix and two moments of each, in two layers.
    assert len(left) == 3 * 2 * 2 * len(_LINEAR)
    assert all("lora_" in name for name in left)
    assert not (again.states / states.name(_STEP)).exists()
    losses = zip(tiny.losses(whole), tiny.losses(again), strict=True)
    assert max(abs(one - other) / one for one, other in losses) <= 1e-3
    assert tiny.losses(whole)[-1] < tiny.losses(whole)[0]


@pytest.mark.parametrize("target", ["q_projection", "lm_head", "embed_tokens", "mlp", "proj", "norm"])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(smollm2: Path, target: str) -> None:
    settings = Finetune(model=str(smollm2), lora=Lora(target_modules=("q_proj", target)))
    with pytest.raises(InputError, match=f"names {target}, but .*: there are {', '.join(_LINEAR)}$"):
        lora.require(settings)
    with pytest.raises(InputError, match=f"names {target}, but "):
        memory.require(settings)


def test_a_layer_may_be_named_by_the_end_of_its_path(smollm2: Path) -> None:
    settings = Lora(target_modules=("self_attn.q_proj", "layers.0.mlp.up_proj"))
    lora.require(Finetune(model=str(smollm2), lora=settings))
    of = memory.shape(Finetune(model=str(smollm2), lora=settings))
    # 30 layers' queries, and one inner layer.
    assert of.trained == 16 * (30 * (576 + 576) + 576 + 1536)
    assert of.parameters == memory.shape(Finetune(model=str(smollm2))).parameters


def test_quantising_needs_its_library(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Finetune(model=str(smollm2), lora=Lora(quantised=True))
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    for require in (checks.require_quantising, lora.require):
        with pytest.raises(InputError, match="needs bitsandbytes, .*: run .* -m pip install 'bitsandbytes"):
            require(settings)
    lora.require(Finetune(model=str(smollm2), lora=Lora()))
    with pytest.raises(ValidationError, match="needs finetune.zero_stage=2 or less, and it is 3"):
        Finetune(model=str(smollm2), lora=Lora(quantised=True), zero_stage=3)
    with pytest.raises(InputError, match="computes in bfloat16, and this device does not"):
        base_model.load_model(settings, torch.float32)


@pytest.mark.slow
def test_beside_weights_in_four_bits(smollm2: Path, tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "tiny", smollm2, hidden_size=64, head_dim=32, initializer_range=0.05)
    settings = {"lora": {"quantised": True}, "zero_stage": 2, "processes": 2, "max_steps": 12}
    job = tiny.make_job(tmp_path / "job", model, tiny.pairs(24), **settings, learning_rate=3e-3, save_steps=6)
    again = tiny.make_job(tmp_path / "again", model, tiny.pairs(24), **settings, learning_rate=3e-3)
    again.resumed.symlink_to(job.states / states.name(6))
    tiny.finish(tiny.start([job, again]))
    losses = tiny.losses(job)
    assert losses[-1] < 0.95 * losses[0]
    gaps = [abs(one - other) / one for one, other in zip(losses, tiny.losses(again), strict=True)]
    assert max(gaps) <= 1e-3
    ours, theirs = _tensors(job.checkpoint), _tensors(model)
    changed = {key for key in ours if not ours[key].equal(theirs[key])}
    assert changed == {key for key in ours if key.split(".")[-2] in _LINEAR}
    # Merged into the base's own weights, and not into those of 4 bits.
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, job.checkpoint / "adapter").merge_and_unload().state_dict()
    for key in changed:
        assert adapted[key].bfloat16().equal(ours[key]), key
