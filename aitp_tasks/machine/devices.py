"""Leases of GPUs: each unit gets its own, so that units on one machine never share one by accident.

A lease is an advisory lock on one file a GPU. It is held until the process ends,
however it ends, and needs nobody to clean up. It holds between the processes of
one user that see the same folder, ``/tmp`` unless ``AITP_LEASES`` names another;
containers that share GPUs but no folder have to be given different GPUs, by
``CUDA_VISIBLE_DEVICES``, which is honoured, or by their runtime.

Of a GPU that is cut up (MIG), CUDA lets a process use one slice at a time: whoever wants
several GPUs gets whole ones.

What else runs on a GPU, without a lease, is not noticed.

Whether a process without a GPU may go on says ``devices.require``: work that was meant for
a GPU would take days on processors, and say nothing.
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import random
import re
import socket
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitp_tasks.config import Require
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import gpus
from aitp_tasks.machine.gpus import VARIABLE, Gpu

log = logging.getLogger(__name__)

#: Replaces the folder of the locks. Not TMPDIR: that may differ from one process to the next.
FOLDER_VARIABLE = "AITP_LEASES"
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 1.0
_LOG_SECONDS = 30.0
#: Bytes: a process's number and a host's name.
_LONGEST_HOLDER = 100


@dataclass(frozen=True)
class Lease:
    """GPUs that no other unit of this machine uses."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]


_held: Lease | None = None
_required = Require.AUTO


def demand(required: Require) -> None:
    """Say what this process's work is to run on: ``lease`` and ``visible`` keep to it."""
    global _required
    _required = required


def lease(count: int = 1, wanted_by: str = "this unit") -> Lease | None:
    """Lease GPUs until this process ends; None when it sees none, and may do without.

    Names them to CUDA by ``CUDA_VISIBLE_DEVICES``, so it comes before whatever
    initialises CUDA. Several are leased all at once or not at all: processes that
    want several cannot wait for each other. Asked again, it returns what is held.

    Child processes have no part in the lease: the locked files are closed in them,
    whether they execute another program or are forked by Python. A child that goes
    on after its parent works on a GPU that is no longer leased.

    Args:
        count: how many, at least.
        wanted_by: the setting that says so, for the error message.

    Raises:
        InputError: more GPUs are asked for than this process sees, or none is seen and one is required.
        TransientError: none became free in time; names who holds them.
    """
    global _held
    if _held is None:
        require(count, wanted_by)
        seen = visible()
        if not seen:
            if _required is Require.CPU:
                # Nothing is to find one by itself.
                os.environ[VARIABLE] = ""
            return None
        assert not _cuda_is_initialised(), "CUDA already has its devices"
        _held = _wait_for(count, usable(count, seen))
        os.environ[VARIABLE] = ",".join(gpu.uuid for gpu in _held.gpus)
        log.info("leased gpus=%s", os.environ[VARIABLE])
    if count > len(_held.gpus):
        raise InputError(
            f"{wanted_by} asks for {count} GPUs, but this process already holds {len(_held.gpus)}: "
            "ask for so many, or for fewer"
        )
    return _held


def require(count: int, wanted_by: str) -> None:
    """Make sure that so many GPUs could be leased here, if any: before a model is fetched for them.

    Raises:
        InputError: this process sees fewer, or none where one is required.
    """
    found = visible()
    if not found:
        _require_none(wanted_by)
        return
    if count <= len(usable(count, found)):
        return
    seen = f"{len(usable(count, found))} are visible"
    if any(gpu.card for gpu in found):
        seen += " (a process can use only one slice of a GPU)"
    raise InputError(f"{wanted_by} asks for {count} GPUs, but only {seen}: lower it")


def usable(count: int, some: Sequence[Gpu]) -> list[Gpu]:
    """Those of which one process can use so many at a time."""
    return [gpu for gpu in some if count == 1 or not gpu.card]


def held() -> Lease | None:
    """What this process has leased, if anything."""
    return _held


def figures(served: bool = False) -> dict[str, Any]:
    """What this process works on, for its manifest: the device's name, and how many are held.

    Args:
        served: a server of the user's own does the work, on devices that nobody here knows.
    """
    if served:
        return {"device": "server", "devices": 0}
    if _held is None:
        return {"device": f"{len(os.sched_getaffinity(0))} processors", "devices": 0}
    return {"device": _held.gpus[0].name, "devices": len(_held.gpus)}


def visible() -> list[Gpu]:
    """The GPUs that this process may use, leased or not."""
    if _required is Require.CPU:
        return []
    return gpus.visible()


def _require_none(wanted_by: str) -> None:
    """Make sure that no GPU is required.

    Raises:
        InputError: one is; says why none is seen.
    """
    if _required is Require.GPU or (_required is Require.AUTO and built_for_gpus()):
        asked = "devices.require=gpu" if _required is Require.GPU else "a build of torch for GPUs"
        raise InputError(
            f"{wanted_by} is to work on a GPU ({asked}), and this process sees none: {gpus.why_none()}; "
            "start it where there is one, or set devices.require to cpu"
        )


def built_for_gpus() -> bool:
    """Whether torch, as it is installed here, is built for GPUs; it is not imported."""
    return bool(_torch_is_built_for("cuda|hip"))


def built_for_cuda() -> str:
    """The version of CUDA that torch is built for; empty where it is built for none."""
    return _torch_is_built_for("cuda")


def _torch_is_built_for(kinds: str) -> str:
    """The version that torch's own file says of one of these."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    told = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    said = re.search(rf"^(?:{kinds})\b[^=\n]*=\s*['\"]([^'\"]*)", told, re.MULTILINE)
    return said[1] if said else ""


def _wait_for(count: int, there: list[Gpu]) -> Lease:
    folder = locks()
    start = time.monotonic()
    logged = start - _LOG_SECONDS
    while True:
        taken, holders = _take(folder, count, there)
        if taken is not None:
            return taken
        now = time.monotonic()
        if now - start > _WAIT_SECONDS:
            raise TransientError(
                f"no {count} of {len(there)} GPUs became free in {_WAIT_SECONDS:.0f} s, held by the "
                f"processes {', '.join(holders)}: wait for them, or give the pool one slot a GPU"
            )
        if now - logged >= _LOG_SECONDS:
            logged = now
            log.info("waiting for gpus=%d of=%d holders=%s seconds=%.0f", count, len(there),
                     ",".join(holders), now - start)  # fmt: skip
        time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))


def _take(folder: Path, count: int, there: list[Gpu]) -> tuple[Lease | None, list[str]]:
    """A lease of free GPUs, if there are enough; and the processes that hold the others."""
    taken: list[tuple[Gpu, int]] = []
    holders: list[str] = []
    # One process tries at a time: two that want several would take them from each other.
    gate = _open(folder / "gate")
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        for gpu in there:
            descriptor = _open(folder / re.sub("[^A-Za-z0-9-]", "_", gpu.uuid))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = os.pread(descriptor, _LONGEST_HOLDER, 0).decode("ascii", "replace")
                holders.append(re.sub("[^!-~]+", "?", told) or "?")
                os.close(descriptor)
                continue
            taken.append((gpu, descriptor))
            if len(taken) == count:
                break
        if len(taken) < count:
            for _, descriptor in taken:
                os.close(descriptor)
            return None, holders
        for _, descriptor in taken:
            os.ftruncate(descriptor, 0)
            # Of another container, the number alone says nothing.
            os.pwrite(descriptor, f"{os.getpid()}@{socket.gethostname()}".encode()[:_LONGEST_HOLDER], 0)
    finally:
        os.close(gate)
    return Lease(tuple(gpu for gpu, _ in taken), tuple(descriptor for _, descriptor in taken)), holders


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_lock(path, error)


def locks() -> Path:
    """The folder of the locks, which belongs to this user alone; made where it is not there.

    Raises:
        InputError: it cannot be made or written, or others can write it.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or f"/tmp/aitp-leases-{os.getuid()}")
    if not folder.is_absolute():
        # Another one for each folder that a unit is started in.
        raise InputError(
            f"{FOLDER_VARIABLE}={str(folder)!r} is no absolute path: name a folder by its whole path"
        )
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise _no_lock(folder, error)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(
            f"{folder} is not a folder that only this user can write: remove it, or set {FOLDER_VARIABLE} to "
            "one; in a shared volume, to a name in it that is not there yet"
        )
    return folder


def _no_lock(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: {error.strerror}: GPUs are leased by locks in this folder; set {FOLDER_VARIABLE} to one "
        "that this user can make and write, and that all who share the GPUs see"
    )


def _close_in_child() -> None:
    if _held is not None:
        for descriptor in _held.descriptors:
            os.close(descriptor)


os.register_at_fork(after_in_child=_close_in_child)


def _cuda_is_initialised() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
