"""Runs ``train.py`` on all devices under the ``deepspeed`` launcher, and ends all of it.

One machine; several machines need a launcher of their own. The ranks find each
other through a file and talk over loopback, so nothing listens to the network.

The launcher leaves its ranks behind when it is killed. Therefore the stage holds
the writing end of the ranks' standard input and never writes: however the stage
ends, SIGKILL included, the ranks then read the end of their input, and leave.
"""

import os
import subprocess
import sys
from pathlib import Path

from aitp_tasks.errors import TransientError
from aitp_tasks.machine import processes
from aitp_tasks.training import operators
from aitp_tasks.training.job import Job, Outcome

_MODULE = "aitp_tasks.training.train"
_PACKAGE_ROOT = Path(__file__).parents[2]
_STANDARD_ERROR = 2
#: The launcher looks at its ranks once a second.
_END_SECONDS = 15


def run(job: Job) -> Outcome:
    """Train; returns when all ranks are done.

    Raises:
        InputError: a rank found the model unusable, or the loss diverged.
        TransientError: a rank or the launcher failed otherwise.
    """
    job.write()
    with processes.sigterm_as_exit():
        if job.device == "cpu":
            operators.provide(job.operators)
        process = subprocess.Popen(
            [*_command(job), str(job.file)],
            stdin=subprocess.PIPE,
            stdout=_STANDARD_ERROR,
            stderr=_STANDARD_ERROR,
            env=_environment(job),
        )
        try:
            code = process.wait()
        finally:
            _end(process)
    if code != 0 or not job.outcome.exists():
        raise job.failure() or TransientError(
            f"the deepspeed launcher ended with code {code}: see the ranks' output above, then retry"
        )
    return Outcome.model_validate_json(job.outcome.read_bytes())


def _command(job: Job) -> list[str]:
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]
    return [*launcher, "--log_level", "warning", *_devices(job), "--no_local_rank", "--module", _MODULE]


def _devices(job: Job) -> list[str]:
    """Which devices to use: the leased ones.

    The launcher knows GPUs by their place only, and with a number of them alone it
    ignores CUDA_VISIBLE_DEVICES and starts at the first.
    """
    if not job.gpus:
        return ["--num_accelerators", str(job.finetune.processes)]
    return ["--include", "localhost:" + ",".join(map(str, job.gpus))]


def _environment(job: Job) -> dict[str, str]:
    inherited = dict(os.environ)
    paths = [str(_PACKAGE_ROOT), inherited.get("PYTHONPATH", "")]
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if job.finetune.folder is not None:
        environment["HF_HUB_OFFLINE"] = "1"
    if job.gpus:
        # CUDA's own order puts faster models first.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    else:
        environment |= operators.environment(job.operators)
        cores = len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(max(cores // job.finetune.processes, 1))
    return environment


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let go of the ranks, wait for the launcher, and kill what is still there."""
    tree = processes.below(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in tree:
        if child.is_running():
            child.kill()
