"""What ends a rank, in words."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aitp_tasks.config import Finetune
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.training import checkpoint, lora, parameters, states, train
from aitp_tasks.training.job import Job
from aitp_tasks.training.template import ChatTemplates
from tests.aitp_tasks.training import tiny


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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few kilobytes, that fills."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
def test_a_loss_that_is_no_number_ends_the_training(smollm2: Path, tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "tiny", smollm2)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    job = tiny.make_job(tmp_path / "job", base, tiny.pairs(4), save_steps=1)
    (process,) = tiny.start([job])
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "InputError: the loss is nan at step 1: lower finetune.learning_rate=0.01" in printed
    assert not job.checkpoint.exists()
    assert not job.states.exists()
