"""What ends a rank, in words."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from aitp_tasks.config import Finetune
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.training import train
from aitp_tasks.training.job import Job
from aitp_tasks.training.template import ChatTemplates


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
