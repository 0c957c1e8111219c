"""What stages will use, on this machine and on made-up ones, and which of them cannot work."""

import pytest

from aitp_tasks.config import Require, RunConfig
from aitp_tasks.machine import devices, processors
from aitp_tasks.machine.gpus import VARIABLE, Gpu
from aitp_tasks.tools.doctor import stages
from aitp_tasks.tools.doctor.finding import Finding, Level
from aitp_tasks.training import memory
from tests.aitp_tasks.conftest import MODELS, Configure

SMALL = str(MODELS / "SmolLM2-135M-Instruct")


def told(config: RunConfig) -> dict[str, Finding]:
    return {finding.about: finding for finding in stages.found(config)}


@pytest.fixture(autouse=True)
def shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of SmolLM2-135M, as published, so that nothing is imported to count it."""
    monkeypatch.setattr(
        memory, "shape", lambda _: memory.Shape(134_515_008, 134_515_008, 0, 30, 576, 1536, 49152)
    )


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, gigabytes: float, bfloat16: bool = True) -> None:
    made = [Gpu(f"GPU-{n}", n, "card", int(gigabytes * 10**9), bfloat16) for n in range(count)]
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: made)
    monkeypatch.delenv(VARIABLE, raising=False)


def test_on_processors(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, 0)
    monkeypatch.setattr(processors, "flags", lambda: {"avx2"})
    found = told(configure())
    assert {one.level for one in found.values()} == {Level.OK}
    assert "processors" in found["embed, assemble"].says
    assert "in float32" in found["rewrite, score, answer"].says
    assert "1,024 tokens, up to 256 requests at once" in found["rewrite, score, answer"].says
    assert "all weights, ZeRO 2, 1 rank on" in found["finetune"].says
    assert "no model" in found["other stages"].says


def test_on_gpus(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4, 80)
    engine = {"model": SMALL, "max_model_len": 1024, "engine_args": {"tensor_parallel_size": 2}}
    settings = {"engine": engine, "finetune": {"model": SMALL, "processes": 4, "lora": {}}}
    found = told(configure(**settings, devices={"require": "gpu"}))
    assert {one.level for one in found.values()} == {Level.OK}
    assert "on 1 GPU (slots of the pool gpu: 1) in bfloat16" in found["embed, assemble"].says
    assert (
        "(0.1 GB of 80 on each) on 2 GPUs (slots of the pool gpu: 2)" in found["rewrite, score, answer"].says
    )
    assert "an adapter, ZeRO 2, 4 ranks on 4 GPUs (slots of the pool gpu: 4) in" in found["finetune"].says
    # As the DAG counts them.
    says = told(configure(**settings))["finetune"].says
    assert "4 GPUs (slots of the pool gpu: 1); devices.require=gpu counts all of them" in says
    gpus(monkeypatch, 1, 80, bfloat16=False)
    assert "in float32" in told(configure())["embed, assemble"].says


@pytest.mark.parametrize(("required", "cuda"), [(Require.GPU, ""), (Require.AUTO, "13.0")])
def test_stages_that_would_miss_a_gpu_are_no_good(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, required: Require, cuda: str
) -> None:
    """What they would refuse themselves, the doctor does not call good."""
    gpus(monkeypatch, 0, 0)
    monkeypatch.setattr(devices, "_torch_is_built_for", lambda _: cuda)
    monkeypatch.setattr(devices, "_required", required)
    found = told(configure(devices={"require": required}))
    for stage in ("embed, assemble", "rewrite, score, answer", "finetune"):
        assert found[stage].level is Level.WRONG
        assert "is to work on a GPU" in found[stage].says
    assert found["other stages"].level is Level.OK
    # A server needs none, but what ranks its answers does.
    served = {"model": SMALL, "endpoint": {"url": "http://127.0.0.1:1/v1", "served_model": "n"}}
    assert told(configure(engine=served))["rewrite, score, answer"].level is Level.OK
    prompts = {"folder": "/prompts", "answers_per_question": 2}
    says = told(configure(engine=served, prompts=prompts))["rewrite, score, answer"].says
    assert says.startswith("prompts.answers_per_question is to work on a GPU")


def test_each_stage_that_cannot_work_is_named_and_hides_no_other(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 1, 0.2)
    engine = {"model": SMALL, "engine_args": {"tensor_parallel_size": 2}}
    config = configure(encoder={"model": "/no/model"}, engine=engine)
    found = told(config)
    assert (found["embed, assemble"].level, found["embed, assemble"].says[:22]) == (
        Level.WRONG,
        "model folder /no/model",
    )
    assert "asks for 2 GPUs, but only 1 are visible" in found["rewrite, score, answer"].says
    assert "takes about" in found["finetune"].says
    assert found["finetune"].level is Level.WRONG
    assert found["other stages"].level is Level.OK
    found = told(configure(engine={"model": SMALL}))
    assert "the weights of SmolLM2-135M-Instruct take 0.3 GB a GPU" in found["rewrite, score, answer"].says


def test_servers_and_models_that_are_elsewhere(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, 0)
    config = configure(
        encoder={"model": "org/encoder", "revision": "a" * 40},
        engine={
            "model": "org/rewriter",
            "revision": "b" * 40,
            "endpoint": {"url": "http://127.0.0.1:1/v1", "served_model": "n"},
        },
        evaluate={"held_out": 0.1},
    )
    found = told(config)
    assert found["embed, assemble"].says.endswith("; fetched at its first use")
    assert found["rewrite, score, answer"].says.endswith("on a server (http://127.0.0.1:1/v1)")
    assert "trains as finetune does" in found["evaluate"].says
    assert not stages.at_hand(config.encoder)
    assert stages.at_hand(config.finetune)
