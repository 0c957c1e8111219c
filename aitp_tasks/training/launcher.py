"""Runs ``train.py`` on all devices of this machine under DeepSpeed's launcher, and ends all of it.

It is the launcher of one machine's ranks, started here with what DeepSpeed's front-end would find out by
itself: that reads /job/hostfile where there is one, and reaches other machines by ssh. Where several train
together, the same stage runs on each (see nodes.py). On one machine the ranks find each
other through a file and talk over loopback, so nothing listens to the network; of several, through the store
of the first (see meeting.py) and over the interface by which that is reached.

The launcher leaves its ranks behind when it is killed. Therefore the stage holds
the writing end of the ranks' standard input and never writes: however the stage
ends, SIGKILL included, the ranks then read the end of their input, and leave.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from aitp_tasks.errors import TransientError
from aitp_tasks.machine import processes
from aitp_tasks.training import nodes, operators
from aitp_tasks.training.job import Job, Outcome

_MODULE = "aitp_tasks.training.train"
_PACKAGE_ROOT = Path(__file__).parents[2]
_STANDARD_ERROR = 2
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
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
            f"the deepspeed launcher ended with code {code}: see the ranks' output above"
            f"{', and that of the other machines' if job.node else ''}, then retry"
        )
    return Outcome.model_validate_json(job.outcome.read_bytes())


def _command(job: Job) -> list[str]:
    launcher = [sys.executable, "-m", "deepspeed.launcher.launch", "--world_info", _machines(job)]
    if job.node is not None:
        place = {"node_rank": job.node.rank, "master_addr": job.node.address, "master_port": job.node.port}
        launcher += [f"--{name}={value}" for name, value in place.items()]
    return [*launcher, "--log_level", "warning", "--no_local_rank", "--module", _MODULE]


def _machines(job: Job) -> str:
    """The devices of each machine as the launcher reads them: of this one, the leased ones.

    It hands on whatever names them to CUDA. Of the others' it wants to know how many there are.
    """
    of_one: list[int | str] = list(range(job.finetune.processes))
    found = {f"machine-{rank}": of_one for rank in range(job.node.count if job.node else 1)}
    if job.gpus:
        found[f"machine-{job.node.rank if job.node else 0}"] = list(job.gpus)
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()


def _environment(job: Job) -> dict[str, str]:
    inherited = nodes.without(os.environ)
    paths = [str(_PACKAGE_ROOT), inherited.get("PYTHONPATH", "")]
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **_interfaces(job, inherited),
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


def _interfaces(job: Job, inherited: Mapping[str, str]) -> dict[str, str]:
    """By which network interface the ranks talk; of several machines, the user may say another."""
    found = "lo" if job.node is None else nodes.interface(job.node.address)
    wanted = {} if found is None else dict.fromkeys(_INTERFACES, found)
    return (
        wanted
        if job.node is None
        else wanted | {name: inherited[name] for name in _INTERFACES if name in inherited}
    )


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
