"""A team's own DeepSpeed file: read at plan, filled in, and refused where it contradicts the settings."""

import json
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
from trl.trainer.sft_config import SFTConfig

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models
from aitp_tasks.stages import plan
from aitp_tasks.training import deepspeed_config
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.training import deepspeed_cases

#: As teams have it: most of it filled in, and keys that are DeepSpeed's own.
_USUAL: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "zero_optimization": {
        "stage": 2,
        "overlap_comm": False,
        "allgather_bucket_size": 200_000,
        "reduce_bucket_size": "auto",
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "steps_per_print": 2000,
    "wall_clock_breakdown": False,
}


def _settings(path: Path, content: Any, **changes: Any) -> Finetune:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Finetune.model_validate(
        {"model": "/none", "processes": 2, "learning_rate": 1e-5, "deepspeed": str(path), **changes}
    )


def test_without_a_file_it_is_what_the_settings_say() -> None:
    assert deepspeed_config.read(Finetune(model="/none")) is None
    usual = deepspeed_config.of(Finetune(model="/none"), None, bf16=True)
    assert usual == {
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": "auto"},
        **dict.fromkeys(("gradient_clipping", "gradient_accumulation_steps", "train_batch_size"), "auto"),
        "train_micro_batch_size_per_gpu": "auto",
    }
    whole = deepspeed_config.of(Finetune(model="/none", zero_stage=3), None, bf16=False)["zero_optimization"]
    assert whole == {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}


@pytest.mark.parametrize(
    "content",
    [
        _USUAL,
        {"steps_per_print": 5},
        {
            **{"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 8, "train_batch_size": 64},
            **{"gradient_clipping": 1, "zero_optimization": {"stage": 2}, "fp16": {"enabled": False}},
            "optimizer": {
                "type": "AdamW",
                "params": {"lr": 0.00001, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0},
            },
            "zero_force_ds_cpu_optimizer": False,
        },
    ],
    ids=["usual", "of something else", "the same values"],
)
def test_what_agrees_is_taken_and_filled_in(tmp_path: Path, content: dict[str, Any]) -> None:
    settings = _settings(tmp_path / "ds.json", content)
    read = deepspeed_config.read(settings)
    assert read == content
    told = deepspeed_config.of(settings, read, bf16=True)
    assert read == content
    assert "optimizer" not in told
    assert told["zero_optimization"]["stage"] == 2
    for key, value in content.items():
        if key not in ("optimizer", "zero_optimization") and value is not None:
            assert told[key] == value
    assert told["bf16"] == {"enabled": "auto"}
    assert told.keys() >= {"train_batch_size", "gradient_clipping", "train_micro_batch_size_per_gpu"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"train_micro_batch_size_per_gpu": 2},
            "train_micro_batch_size_per_gpu=2, but finetune.batch_size=4: set it to the file's, or write "
            '"auto" there',
        ),
        ({"gradient_accumulation_steps": 1}, "but finetune.gradient_accumulation=8: "),
        (
            {"train_batch_size": 32},
            "train_batch_size=32, but nodes x processes x batch_size x gradient_accum.*=64: ",
        ),
        ({"gradient_clipping": 0.3}, "gradient_clipping=0.3, but finetune.max_grad_norm=1.0: "),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage=3, but finetune.zero_stage=2: "),
        ({"zero_optimization": {"stage": "2"}}, 'zero_optimization.stage="2", but finetune.zero_stage=2: '),
        ({"zero_optimization": True}, "zero_optimization=true is no object"),
        ({"zero_optimization": []}, r"zero_optimization=\[\] is no object"),
        ({"fp16": {"enabled": True}}, "fp16.enabled=true, but training computes in bfloat16"),
        ({"fp16": {"enabled": None}}, "fp16.enabled=null, but training computes in bfloat16"),
        ({"bf16": {"enabled": False}}, "bf16.enabled=false, but training computes in bfloat16"),
        (
            {"optimizer": {"type": "Lion"}},
            'optimizer.type="Lion", but the trainer\'s own="AdamW": write "auto"',
        ),
        ({"optimizer": {"params": {"lr": 3e-5}}}, "params.lr=3e-05, but finetune.learning_rate=1e-05: "),
        ({"optimizer": {"params": {"lr": True}}}, "params.lr=true, but finetune.learning_rate=1e-05: "),
        ({"optimizer": {"params": {"betas": [0.9, 0.95]}}}, r"betas=\[0.9, 0.95\], but the trainer's own="),
        ({"optimizer": {"params": {"betas": [0.9]}}}, r"betas=\[0.9\], but the trainer's own="),
        (
            {"optimizer": {"params": {"weight_decay": 0.1}}},
            "weight_decay=0.1, but finetune.weight_decay=0.0: ",
        ),
        (
            {"scheduler": {"type": "WarmupLR"}},
            "scheduler=.*WarmupLR.*, but finetune.scheduler=linear, learning_rate=1e-05 and warmup_share=",
        ),
        # All at once.
        ({"gradient_clipping": 2, "train_batch_size": 1}, "gradient_clipping=2.*; train_batch_size=1, but "),
    ],
)
def test_each_contradiction_is_named_with_both_values(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"finetune.deepspeed=.*ds.json contradicts the settings: .*{said}"):
        deepspeed_config.read(_settings(tmp_path / "ds.json", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"zero_optimization:\n  stage: 2\n", "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": {"stage": 2, "stage": 3}}', r"is not JSON \(it has 'stage' twice\)"),
        (b"[1]", "is no object of DeepSpeed's settings"),
        (b"null", "is no object"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "has more than 1000000 bytes"),
    ],
    ids=["empty", "torn", "YAML", "binary", "deep", "twice", "list", "null", "large"],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        deepspeed_config.read(_settings(tmp_path / "ds.json", content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="is not there, or no file: name a JSON file"):
            deepspeed_config.read(Finetune(model="/none", deepspeed=str(path)))
    # Whoever opens it waits for ever.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no file"):
        deepspeed_config.read(Finetune(model="/none", deepspeed=str(tmp_path / "pipe")))
    with pytest.raises(ValidationError):
        Finetune(model="/none", deepspeed="")


#: The precision follows from the device, so that a file may not ask for float32 everywhere; and what is
#: offloaded is a setting, by which plan computes what memory is needed.
_DISPUTED = {"neither, neither", "parameter offload with stage 3"}
#: Left open there: any Unicode that JSON may be in.
_READ_TOO = {"utf-16"}


@pytest.mark.parametrize("case", deepspeed_cases.CASES, ids=lambda case: case["name"])
def test_someone_elses_cases(case: deepspeed_cases.Case, tmp_path: Path) -> None:
    told = {name: value for name, value in case["settings"].items() if name != "bf16"}
    settings = _settings(tmp_path / "ds.json", deepspeed_cases.content(case), **told)
    bf16 = case["settings"]["bf16"]
    refused = case["answer"] == "refused" and case["name"] not in _READ_TOO
    if refused or case["name"] in _DISPUTED:
        with pytest.raises(InputError) as error:
            deepspeed_config.of(settings, deepspeed_config.read(settings), bf16)
        said = str(error.value)
        assert (case["key"] or str(tmp_path)).rpartition(".")[2] in said
        if case["setting_value"] is not None and not said.startswith(f"{tmp_path}"):
            numbers = {float(number) for number in re.findall(r"=(-?[\d.]+(?:e-?\d+)?)", said)}
            for value in (case["file_value"], case["setting_value"]):
                number = re.fullmatch(r"-?[\d.]+(e-?\d+)?", value or "")
                assert value is None or value in said.lower() or (number and float(value) in numbers)
        return
    config = HfTrainerDeepSpeedConfig(deepspeed_config.of(settings, deepspeed_config.read(settings), bf16))
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_grad_norm=settings.max_grad_norm,
        learning_rate=settings.learning_rate,
        report_to="none",
    )
    arguments.bf16 = bf16
    with patch.object(SFTConfig, "world_size", settings.processes):
        config.trainer_config_process(arguments)
    assert config.mismatches == []
    assert {key: config.get_value(key) for key in case["effective"]} == case["effective"]


@pytest.mark.parametrize(
    ("offload", "stage", "devices"),
    [
        ("none", 2, {}),
        ("optimizer", 2, {"offload_optimizer": "cpu"}),
        ("optimizer", 3, {"offload_optimizer": "cpu"}),
        ("parameters", 3, {"offload_optimizer": "cpu", "offload_param": "cpu"}),
    ],
)
def test_what_is_offloaded(tmp_path: Path, offload: str, stage: int, devices: dict[str, str]) -> None:
    # What the settings do not say is the file's to say.
    own = {"zero_optimization": {name: {"pin_memory": True} for name in devices}}
    settings = _settings(tmp_path / "ds.json", own, offload=offload, zero_stage=stage)
    told = deepspeed_config.of(settings, deepspeed_config.read(settings), bf16=True)
    found = {name: value for name, value in told["zero_optimization"].items() if name.startswith("offload_")}
    assert found == {name: {"pin_memory": True, "device": device} for name, device in devices.items()}
    assert ("zero_force_ds_cpu_optimizer" in told) == bool(devices)


@pytest.mark.parametrize(
    ("offload", "own", "said"),
    [
        (
            "none",
            {"offload_param": {"device": "cpu"}},
            'offload_param.device="cpu", but .*offload=none.*="none"',
        ),
        ("none", {"offload_optimizer": {"device": "nvme"}}, 'offload_optimizer.device="nvme", but .*="none"'),
        ("optimizer", {"offload_optimizer": {"device": "none"}}, 'device="none", but .*=optimizer.*="cpu"'),
        ("optimizer", {"offload_optimizer": "cpu"}, 'offload_optimizer="cpu" is no object'),
    ],
)
def test_a_file_that_offloads_otherwise_is_refused(tmp_path: Path, offload: str, own: Any, said: str) -> None:
    settings = _settings(tmp_path / "ds.json", {"zero_optimization": own}, offload=offload, zero_stage=3)
    with pytest.raises(InputError, match=said):
        deepspeed_config.read(settings)


def test_offloading_needs_what_is_shared_out() -> None:
    for offload, stage, least in (("optimizer", 1, 2), ("parameters", 2, 3)):
        with pytest.raises(ValidationError, match=f"offload={offload} needs zero_stage={least} at least"):
            Finetune.model_validate({"model": "/none", "offload": offload, "zero_stage": stage})


def test_bfloat16_that_the_device_has_not_is_told(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "ds.json", {"bf16": {"enabled": True}})
    given = deepspeed_config.read(settings)
    assert deepspeed_config.of(settings, given, bf16=True)["bf16"] == {"enabled": True}
    with pytest.raises(InputError, match="bf16.enabled=true, but it is false on this device"):
        deepspeed_config.of(settings, given, bf16=False)


def test_plan_refuses_a_contradiction_and_knows_the_file_by_its_content(
    configure: Configure, smollm2: Path, tmp_path: Path
) -> None:
    path, other = tmp_path / "ds.json", tmp_path / "elsewhere.json"
    section = {"model": str(smollm2)}
    path.write_text('{"gradient_clipping": 3}')
    config = configure(finetune=section | {"deepspeed": str(path)})
    with pytest.raises(InputError, match="gradient_clipping=3, but finetune.max_grad_norm=1.0"):
        plan.execute(config)
    path.write_text('{"steps_per_print": 3}')
    planned = plan.execute(config)["run"]
    other.write_bytes(path.read_bytes())
    assert plan.execute(configure(finetune=section | {"deepspeed": str(other)}))["run"] == planned
    before = models.identity(config.finetune)
    path.write_text('{"steps_per_print": 4}')
    with pytest.raises(InputError, match="a file that belongs to it, was changed after the run was planned"):
        models.require_planned(config.finetune, before, "finetune.model")
    assert plan.execute(config)["run"] != planned
    assert plan.execute(configure(finetune=section))["run"] != planned
