"""The memory that a fine-tune takes: known figures, and runs that cannot fit."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from aitp_tasks.config import Finetune, Lora, Offload
from aitp_tasks.errors import InputError
from aitp_tasks.machine import devices
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.training import memory
from tests.aitp_tasks.training.memory_cases import CASES, Case

#: OLMo-7B's, as it is published.
_SEVEN = {
    "architectures": ["OlmoForCausalLM"],
    "model_type": "olmo",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


@pytest.fixture
def seven(tmp_path: Path) -> str:
    """A model of 7 billion parameters, without them."""
    (tmp_path / "config.json").write_text(json.dumps(_SEVEN))
    return str(tmp_path)


def _total(settings: Finetune) -> float:
    return memory.need(memory.shape(settings), settings).total / 1e9


@pytest.mark.parametrize(("processes", "gigabytes"), [(1, 119), (8, 34)])
def test_seven_billion_parameters_under_zero_2(seven: str, processes: int, gigabytes: float) -> None:
    assert _total(Finetune(model=seven, processes=processes)) == pytest.approx(gigabytes, abs=0.5)


def test_parameters_are_those_of_the_model(smollm2: Path, seven: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert memory.shape(Finetune(model=str(smollm2))).parameters == model.num_parameters()
    assert memory.shape(Finetune(model=seven)).parameters == 6_888_095_744


def test_an_adapter_of_seven_billion_parameters_fits_a_small_gpu(seven: str) -> None:
    settings = Finetune(model=seven, lora=Lora(rank=16))
    of = memory.shape(settings)
    layers = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert (of.parameters, of.trained) == (6_888_095_744, layers)
    assert memory.need(of, settings).states == 2 * of.parameters + 16 * layers
    assert _total(settings) == pytest.approx(22, abs=0.5)
    shared = Finetune(model=seven, lora=Lora(rank=16), processes=8, zero_stage=3)
    assert memory.need(of, shared).states == pytest.approx((2 * of.parameters + 16 * layers) / 8, abs=1)


def test_weights_in_four_bits(seven: str) -> None:
    settings = Finetune(model=seven, lora=Lora(quantised=True))
    of = memory.shape(settings)
    outside = 2 * 50304 * 4096
    assert of.quantised == of.parameters - outside
    weights = memory.need(of, settings).states - 16 * of.trained
    assert weights == pytest.approx(4.127 / 8 * of.quantised + 2 * outside, rel=1e-3)
    assert 0.5 < weights / of.parameters < 0.75
    assert _total(settings) < _total(Finetune(model=seven, lora=Lora())) - 9


def test_what_is_offloaded_is_the_machines_to_hold(seven: str) -> None:
    of = memory.shape(Finetune(model=seven))
    plain, optimizer, parameters = (
        memory.need(of, Finetune(model=seven, processes=8, zero_stage=3, offload=offload))
        for offload in Offload
    )
    assert plain.offloaded == 0
    assert (optimizer.states, optimizer.offloaded) == (of.parameters * 2 // 8, of.parameters * 14 // 8)
    assert (parameters.states, parameters.offloaded) == (0, of.parameters * 2)


def test_each_stage_shares_out_more(seven: str) -> None:
    of = memory.shape(Finetune(model=seven))
    needs = [memory.need(of, Finetune(model=seven, processes=8, zero_stage=stage)) for stage in (0, 1, 2, 3)]
    totals = [need.states / 1e9 for need in needs]
    assert [need.total for need in needs] == sorted((need.total for need in needs), reverse=True)
    billions = 6.888
    assert totals[0] - totals[1] == pytest.approx(billions * 12 * 7 / 8, rel=1e-3)
    assert totals[1] - totals[2] == pytest.approx(billions * 2 * 7 / 8, rel=1e-3)
    assert totals[2] - totals[3] == pytest.approx(billions * 2 * 7 / 8, rel=1e-3)
    assert _total(Finetune(model=seven, gradient_checkpointing=False)) > _total(Finetune(model=seven)) + 5


@pytest.mark.parametrize(
    ("settings", "gpus", "gigabytes", "said"),
    [
        (
            *({}, 1, 80),
            "about 119 GB on each of 1 GPUs, which have 80 GB: set finetune.offload=optimizer, which is "
            "slower, or take 2 such GPUs with finetune.zero_stage=3 and batch_size=1, or take a smaller",
        ),
        ({}, 1, 14, "set finetune.offload=parameters and finetune.zero_stage=3 and finetune.batch_size=1"),
        ({}, 1, 2, "GB: lower finetune.max_length, or take a smaller model"),
        ({}, 8, 80, "set finetune.processes=8"),
        ({"processes": 8, "batch_size": 64}, 8, 80, "set .*finetune.batch_size=1"),
        ({"processes": 8}, 8, 24, "finetune.zero_stage=3"),
        ({"processes": 8}, 8, 80, None),
        ({"processes": 8}, 0, 0, None),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(
    seven: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, int],
    gpus: int,
    gigabytes: int,
    said: str | None,
) -> None:
    found = [Gpu(f"GPU-{n}", n, memory=gigabytes * 10**9) for n in range(gpus)]
    monkeypatch.setattr(devices, "visible", lambda: found)
    finetune = Finetune(model=seven, **settings)
    if said is None:
        memory.require(finetune)
        return
    with pytest.raises(InputError, match=said):
        memory.require(finetune)


def test_several_ranks_are_reckoned_with_whole_gpus(seven: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process can use one slice at a time, so that slices hold no ranks together."""
    slices = [Gpu(f"MIG-{n}", 9, memory=10 * 10**9, card="GPU-cut") for n in range(7)]
    whole = [Gpu(f"GPU-{n}", n, memory=80 * 10**9) for n in range(8)]
    monkeypatch.setattr(devices, "visible", lambda: slices + whole)
    memory.require(Finetune(model=seven, processes=8))
    monkeypatch.setattr(devices, "visible", lambda: slices)
    with pytest.raises(InputError) as raised:
        memory.require(Finetune(model=seven, processes=1))
    assert "finetune.processes" not in str(raised.value)


def test_ranks_are_those_of_all_machines(seven: str, monkeypatch: pytest.MonkeyPatch) -> None:
    several = Finetune(model=seven, processes=8, nodes=4, zero_stage=3)
    of = memory.shape(several)
    assert memory.need(of, several) == memory.need(
        of, several.model_copy(update={"processes": 32, "nodes": 1})
    )
    found = [Gpu(f"GPU-{n}", n, memory=24 * 10**9) for n in range(8)]
    monkeypatch.setattr(devices, "visible", lambda: found)
    memory.require(several)
    with pytest.raises(
        InputError, match="^evaluate's training on one machine of .* on each of 8 GPUs, which"
    ):
        memory.require(several.on_one_machine, "evaluate's training on one machine")
    with pytest.raises(InputError, match="about 25 GB on each of 32 GPUs, which have 24 GB: "):
        memory.require(several.model_copy(update={"zero_stage": 2}))


@pytest.mark.parametrize(
    # Training computes in bfloat16 wherever there is a GPU.
    "case",
    [case for case in CASES if case["bf16"] and case["answer"] == "numbers"],
    ids=lambda case: case["name"],
)
def test_states_are_those_of_the_papers_formulas(case: Case) -> None:
    whole, adapter = case["parameters"], round(case["parameters"] * case["lora"])
    of = memory.Shape(whole, adapter or whole, 0, 1, 1, 1, 1)
    settings = Finetune(
        model="/tmp", processes=case["ranks"], zero_stage=case["stage"], lora=Lora() if adapter else None
    )
    assert memory.need(of, settings).states == pytest.approx(case["bytes"], rel=1e-6, abs=64)
