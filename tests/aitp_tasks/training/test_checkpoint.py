"""The checkpoint is the base's twin, stops where a turn ends, and loads without a word."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aitp_tasks.training.job import Job
from tests.aitp_tasks.training import tiny

pytestmark = pytest.mark.slow

_ANSWER = "Seven."
_CONVERSATION = [{"role": "user", "content": "Five?"}, {"role": "assistant", "content": _ANSWER}]
_SETTINGS = {
    "scheduler": "cosine",
    "warmup_share": 0.25,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "neftune_noise": 5.0,
    "gradient_checkpointing": True,
    "seed": 7,
}
#: A template of its own, so that the checkpoint has to carry it.
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def trained(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Models trained in several ways, by one pair of ranks; the last learns a turn end of its own."""
    root = tmp_path_factory.mktemp("trained")
    # With heads as large as vLLM asks for on processors.
    tied = tiny.make_model(root / "tied", smollm2, head_dim=32)
    untied = tiny.make_model(root / "untied", smollm2, tie_word_embeddings=False, max_shard_size="1MB")
    wide = tiny.make_model(root / "wide", smollm2, dtype="float32")
    (wide / "generation_config.json").unlink()
    (wide / "LICENSE").write_text("as it is")
    (wide / "README.md").write_text("about the base")
    template = root / "own.jinja"
    template.write_text(_TEMPLATE)
    settings: dict[str, dict[str, Any]] = {
        "zero 0": {"model": tied, "zero_stage": 0},
        "zero 1": {"model": untied, "zero_stage": 1},
        "zero 2": {"model": wide, "zero_stage": 2},
        "zero 3": {"model": untied, "zero_stage": 3},
        "over-fitted": {
            "model": tied,
            "zero_stage": 3,
            "chat_template": str(template),
            "max_steps": 40,
            "learning_rate": 5e-2,
            "max_grad_norm": 0,
        },
    }
    settings["settings"] = {"model": tied, **_SETTINGS}
    settings["zero 0"]["timeout_minutes"] = 7.5
    jobs = {
        name: tiny.make_job(
            root / name.replace(" ", "-"),
            conversations=[_CONVERSATION] * 4,
            **{"processes": 2, "max_steps": 2, **own},
        )
        for name, own in settings.items()
    }
    tiny.train(list(jobs.values()))
    return jobs


@contextmanager
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is warned of."""
    transformers_logging.enable_propagation()
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    transformers_logging.disable_propagation()
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


def _tensors(folder: Path) -> dict[str, tuple[str, str, torch.Tensor]]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = file.keys()
            for name in names:
                tensor = file.get_tensor(name)
                found[name] = (path.name, str(tensor.dtype), tensor)
    return found


@pytest.mark.parametrize("name", ["zero 0", "zero 1", "zero 2", "zero 3"])
def test_it_is_the_bases_twin(trained: dict[str, Job], name: str, caplog: pytest.LogCaptureFixture) -> None:
    job = trained[name]
    base, folder = Path(job.finetune.model), job.checkpoint
    files = {path.name for path in base.iterdir()} - {"README.md"} | {"generation_config.json"}
    assert {path.name for path in folder.iterdir()} == files
    assert (folder / "config.json").read_bytes() == (base / "config.json").read_bytes()
    for unchanged in files & {"LICENSE", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}:
        assert (folder / unchanged).read_bytes() == (base / unchanged).read_bytes()
    ours, theirs = _tensors(folder), _tensors(base)
    assert {key: value[:2] for key, value in ours.items()} == {
        key: value[:2] for key, value in theirs.items()
    }
    changed = [key for key in ours if not ours[key][2].equal(theirs[key][2])]
    assert len(changed) > len(ours) / 2
    if theirs["model.norm.weight"][1] == "torch.float32":
        # What was computed in float32 is stored so, whatever the forward pass is in.
        assert any(not tensor.bfloat16().float().equal(tensor) for _, _, tensor in ours.values())
    with silence(caplog):
        model = AutoModelForCausalLM.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
    assert str(model.dtype) == next(iter(theirs.values()))[1]
    for key, (_, _, tensor) in ours.items():
        assert model.get_parameter(key).equal(tensor), key


def test_it_stops_where_its_turn_ends(trained: dict[str, Job], caplog: pytest.LogCaptureFixture) -> None:
    job = trained["over-fitted"]
    base = json.loads((Path(job.finetune.model) / "generation_config.json").read_text())
    ends = json.loads((job.checkpoint / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    assert ends == [base["eos_token_id"], tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert tokenizer.chat_template == _TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(job.checkpoint)
    prompt = tokenizer.apply_chat_template(
        _CONVERSATION[:1], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    generated = model.generate(**prompt, max_new_tokens=30, do_sample=False)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(generated) == f"{_ANSWER}<|im_end|>"
    # The base, with the same weights, would go on.
    model.generation_config.eos_token_id = base["eos_token_id"]
    assert (
        model.generate(**prompt, max_new_tokens=30, do_sample=False).shape[1]
        == prompt["input_ids"].shape[1] + 30
    )


_VLLM = """
import sys
from vllm import LLM, SamplingParams
engine = LLM(model=sys.argv[1], max_model_len=128, enforce_eager=True, max_num_seqs=1)
chat = [{"role": "user", "content": "Five?"}]
(answer,) = engine.chat(chat, SamplingParams(temperature=0, max_tokens=30))
print("answer", repr(answer.outputs[0].text), answer.outputs[0].finish_reason)
"""


def test_it_stops_in_vllm_too(trained: dict[str, Job]) -> None:
    values = {
        **{"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"},
        **{"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "VLLM_HOST_IP": "127.0.0.1"},
    }
    checkpoint = str(trained["over-fitted"].checkpoint)
    done = subprocess.run(
        [sys.executable, "-c", _VLLM, checkpoint],
        env={**os.environ, **values},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert f"answer {_ANSWER!r} stop" in done.stdout.splitlines(), done.stderr
    # Of the machine it warns, and not of the model.
    assert not [line for line in done.stderr.splitlines() if "WARNING" in line and "cpu" not in line]


def test_the_trainer_got_what_was_set(trained: dict[str, Job]) -> None:
    def got(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((trained[name].folder / "arguments.json").read_bytes())
        return found

    usual, set_ = got("zero 0"), got("settings")
    names = {
        **{"lr_scheduler_type": ("linear", "cosine"), "warmup_steps": (0.03, 0.25)},
        **{"weight_decay": (0.0, 0.1), "max_grad_norm": (1.0, 0.5), "neftune_noise_alpha": (None, 5.0)},
        **{"gradient_checkpointing": (False, True), "seed": (0, 7), "data_seed": (0, 7)},
        **{"ddp_timeout": (450, 1800), "save_strategy": ("no", "no")},
    }
    assert {name: (usual[name], set_[name]) for name in names} == names
    # The first job's ranks have met for all.
    assert float((trained["zero 0"].folder / "patience.json").read_text()) == 450
    noisy, plain = (tiny.losses(trained[name]) for name in ("settings", "zero 0"))
    assert noisy[0] != plain[0]
