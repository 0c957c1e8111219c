"""The configurations that come with the project: each is read, planned on a made dump, and fits its GPUs."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from aitp_tasks.config import RunConfig
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.training import memory, template
from aitp_tasks.training.examples import IGNORED, Example, ExampleMaker
from tests.aitp_tasks.conftest import MODELS, REPOSITORY, alpaca, write_shard

CONFIGS = REPOSITORY / "configs"
PRESETS = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
ON_GPUS = [path for path in PRESETS if path.name != "demo.yaml"]
TULU = CONFIGS / "paper/tulu.jinja"
#: The presets for GPUs have none, so that the trigger form of another deployment does not offer them.
ROOT = ["root=s3://my-bucket"]
#: Sizes of the base models, as published.
SHAPES: dict[str, dict[str, Any]] = {
    "allenai/OLMo-7B-hf": {
        "model_type": "olmo",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "num_hidden_layers": 32,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "m-a-p/neo_7b": {
        "model_type": "llama",
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_hidden_layers": 28,
        "vocab_size": 64256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
    "EleutherAI/pythia-12b": {
        "model_type": "gpt_neox",
        "hidden_size": 5120,
        "intermediate_size": 20480,
        "num_attention_heads": 40,
        "num_hidden_layers": 36,
        "vocab_size": 50688,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-7B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "vocab_size": 152064,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "num_hidden_layers": 28,
        "vocab_size": 151936,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
}
#: What a GPU of 80 GB has, with what plan leaves free.
ROOM = 0.95 * 80e9


@pytest.mark.parametrize("path", PRESETS, ids=str)
def test_a_preset_is_planned_on_a_made_dump(path: Path, root: Path) -> None:
    asked = RunConfig.load(CONFIGS / path, ROOT)
    for dump in asked.dumps:
        write_shard(root / f"corpus/{dump}/part-00000.parquet", [{"text": f"Ports, {n}."} for n in range(9)])
    write_shard(root / f"sft/{asked.sft}/part-00000.parquet", alpaca(99))
    small = MODELS / "SmolLM2-135M-Instruct"
    # The hub is not asked for models of these sizes.
    models = {"encoder": MODELS / "all-MiniLM-L6-v2", "engine": small, "finetune": small}
    overrides = [f"root=file://{root}", *(f"{name}.model={folder}" for name, folder in models.items())]
    config = RunConfig.load(CONFIGS / path, overrides)
    planned = Run.open(plan.execute(config)["run"]).config
    for section in ("difference", "gates", "assemble", "density", "prompts"):
        assert getattr(planned, section) == getattr(asked, section)


@pytest.mark.parametrize("path", ON_GPUS, ids=str)
def test_a_fine_tune_fits_the_gpus_that_its_preset_is_for(path: Path, tmp_path: Path) -> None:
    settings = RunConfig.load(CONFIGS / path, ROOT).finetune
    (tmp_path / "config.json").write_text(json.dumps(SHAPES[settings.model]))
    local = settings.model_copy(update={"model": str(tmp_path), "revision": None})
    assert memory.need(memory.shape(local), local).total < ROOM
    if path.parts[0] == "paper":
        assert settings.processes * settings.batch_size * settings.gradient_accumulation == 128


@pytest.mark.parametrize("path", ON_GPUS, ids=str)
def test_a_preset_says_what_it_needs_and_how_it_is_run(path: Path) -> None:
    head = (CONFIGS / path).read_text()
    assert "# Needs: " in head
    assert f"aitp plan --config configs/{path}" in head
    config = RunConfig.load(CONFIGS / path, ROOT)
    for model in (config.encoder, config.engine, config.finetune):
        assert model.on_hub
        assert model.revision


def test_what_tulu_marks_is_the_answer_and_its_end(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    # As a base model has it.
    tokenizer.chat_template = None
    tokenizer.eos_token = "<|endoftext|>"
    chosen = template.choose(tokenizer, str(TULU))
    assert chosen.turn_end == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Which <|assistant|> is it?"},
        {"role": "assistant", "content": "The first."},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "None."},
    ]
    made = ExampleMaker(tokenizer, chosen.training, 512).make(turns)
    assert isinstance(made, Example)
    learnt = [token for token in made.labels if token != IGNORED]
    assert tokenizer.decode(learnt) == "The first.<|endoftext|>None.<|endoftext|>"
    assert made.neutralised == {"<|assistant|>": 1}
    text = tokenizer.decode(made.input_ids).replace("\u200b", "")
    assert text == (
        "<|system|>\nBe short.\n<|user|>\nWhich <|assistant|> is it?\n<|assistant|>\n"
        "The first.<|endoftext|>\n"
        "<|user|>\nAnd then?\n<|assistant|>\nNone.<|endoftext|>\n"
    )


def test_no_preset_goes_unseen() -> None:
    assert {RunConfig.load(CONFIGS / path, ROOT).finetune.model for path in ON_GPUS} == SHAPES.keys()
