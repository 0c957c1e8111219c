"""What ends a rank, in words."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitp_tasks.config import Finetune
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.training import checkpoint, events, lora, parameters, states, train
from aitp_tasks.training.job import Job
from aitp_tasks.training.order import Order
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks.training import tiny


def test_memory_is_reckoned_without_asking_the_driver_for_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's own way reads CUDA_VISIBLE_DEVICES as numbers, and dies of a UUID."""
    from deepspeed.accelerator import cuda_accelerator

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-30e5a")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Mock(total_memory=10))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3)
    monkeypatch.setattr(cuda_accelerator, "pynvml", Mock())
    accelerator = cuda_accelerator.CUDA_Accelerator()
    with pytest.raises(ValueError, match="MIG-30e5a"):
        accelerator.available_memory(0)
    train._reckon_memory_with_torch()
    assert accelerator.available_memory(0) == 7


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), TransientError, "no space left in .*: free space"),
        (
            SafetensorError("I/O error: No space left (os error 28)"),
            TransientError,
            "no space left",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), TransientError, "out of device memory at finetune"),
        (InputError("the loss is nan"), InputError, "the loss is nan"),
    ],
    ids=["full disk", "full disk, safetensors", "full device", "ours"],
)
def test_known_ends_are_told(error: Exception, kind: type[AitpError], said: str, tmp_path: Path) -> None:
    job = Job(folder=tmp_path, finetune=Finetune(model="/none"), templates=ChatTemplates("", "", None, 0))
    found = train._classify(error, job)
    assert isinstance(found, kind)
    job.leave_failure(found)
    with pytest.raises(kind, match=said):
        raise job.failure() or AssertionError


def test_others_are_left_as_they_are(tmp_path: Path) -> None:
    job = Job(folder=tmp_path, finetune=Finetune(model="/none"), templates=ChatTemplates("", "", None, 0))
    assert train._classify(RuntimeError("something else"), job) is None


@contextmanager
def _disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few kilobytes, that fills."""
    with _disk(tmp_path / "small", "64k") as folder:
        yield folder


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A disk for a job and some states of 10 MB."""
    with _disk(tmp_path / "roomy", "40m") as folder:
        yield folder


@pytest.mark.parametrize("what", ["checkpoint", "adapter", "state"])
def test_a_disk_that_fills_is_told(
    small: Path, smollm2: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.make_model(tmp_path / "tiny", smollm2)
    for large in ("tokenizer.json", "chat_template.jinja"):
        (base / large).unlink()
    model = AutoModelForCausalLM.from_pretrained(base)
    templates = ChatTemplates("", "", "", 2)
    job = Job(folder=small, finetune=Finetune(model=str(base)), templates=templates)
    weights = dict(model.named_parameters())
    monkeypatch.setattr(parameters, "weights", lambda engine: weights.items())
    monkeypatch.setattr(parameters, "moments", lambda engine: {}.items())
    write = {
        "checkpoint": lambda: checkpoint.write(job.checkpoint, base, model, weights, templates),
        "adapter": lambda: lora.Adapted(weights, {}).write(job.checkpoint, model, ""),
        "state": lambda: states._write_tensors(small, None, 0, 1),
    }
    with pytest.raises(Exception, match="(?i)no space left") as full:
        write[what]()
    failure = train._classify(full.value, job)
    assert isinstance(failure, TransientError)
    assert str(failure) == f"no space left in {small}: free space or set TMPDIR, then retry"


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training_behind_a_good_state(
    smollm2: Path, tmp_path: Path
) -> None:
    base = tiny.make_model(tmp_path / "tiny", smollm2, tie_word_embeddings=False, rms_norm_eps=0.0)
    # Zeros, by which a norm divides that adds nothing; they are read where one of the examples is.
    (rare,) = AutoTokenizer.from_pretrained(base)("Z", add_special_tokens=False)["input_ids"]
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][rare] = 0.0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    rare_one = [{"role": "user", "content": "Z"}, {"role": "assistant", "content": "Z"}]
    pairs = [*tiny.pairs(5), rare_one]
    order = list(Order(len(pairs), seed=1))
    job = tiny.make_job(tmp_path / "job", base, pairs, save_steps=1, batch_size=1, seed=1)
    (process,) = tiny.start([job])
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    step = order.index(5) + 1
    assert step > 1
    assert f"InputError: the loss is nan at step {step}: lower finetune.learning_rate=0.01" in printed
    assert sorted(path.name for path in job.states.iterdir()) == [states.name(one) for one in range(1, step)]
    last = [load_file(path) for path in (job.states / states.name(step - 1)).glob("tensors-*")]
    assert all(bool(tensor.isfinite().all()) for file in last for tensor in file.values())
    assert not job.checkpoint.exists()


def test_a_figure_that_is_no_number_is_none_in_the_history(tmp_path: Path) -> None:
    job = Job(folder=tmp_path, finetune=Finetune(model="/none"), templates=ChatTemplates("", "", None, 0))
    trainer = Mock()
    trainer.state.max_steps = 1
    trainer.state.log_history = [{"step": 1, "loss": 2.0, "grad_norm": float("inf")}, {"train_runtime": 1.0}]
    train._leave_outcome(job, trainer)
    assert json.loads(job.log_history.read_bytes()) == [{"step": 1, "loss": 2.0, "grad_norm": None}]
    events.write(job.log_history, tmp_path / "runs")
    read = EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert read.Tags()["scalars"] == ["train/loss"]


def test_a_weight_that_the_last_step_has_broken_is_no_checkpoint() -> None:
    weights = [("a.weight", torch.ones(2)), ("b.weight", torch.tensor([float("nan")]))]
    given = train._finite(iter(weights))
    assert next(given)[0] == "a.weight"
    with pytest.raises(InputError, match=r"b.weight is not finite any more: lower finetune.learning_rate"):
        next(given)


@pytest.mark.slow
def test_a_disk_that_fills_amid_the_training_leaves_whole_states_only(
    roomy: Path, smollm2: Path, tmp_path: Path
) -> None:
    base = tiny.make_model(tmp_path / "tiny", smollm2)
    job = tiny.make_job(roomy / "job", base, tiny.pairs(24), save_steps=1)
    (process,) = tiny.start([job])
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    found = sorted(path.name for path in job.states.iterdir())
    # Nothing torn, and what was whole before is still there.
    assert found == [states.name(step) for step in range(1, len(found) + 1)]
    assert found
    assert "No space left" in printed
    for name in found:
        layout = (job.states / name / states.LAYOUT).read_bytes()
        assert json.loads(layout)["ranks"] == 1
        assert len(load_file(job.states / name / "tensors-00000-00000.safetensors")) > 30
    # So that the stage can be told.
    job.leave_failure(TransientError("full"))
