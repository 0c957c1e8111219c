"""What this machine has beside GPUs: processors, memory, places to write, compilers."""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from aitp_tasks.machine import models, processors
from aitp_tasks.tools.doctor.finding import Finding, Level

_GIB = 2**30
_SHM = Path("/dev/shm")
#: NCCL, vLLM and DeepSpeed's ranks pass tensors through it; Docker gives 64 MiB unless it is told otherwise.
_SHM_BYTES = 2**30
_MEMORY_BYTES = 8 * _GIB
#: Below the first nothing can be written that counts, below the second no large model be fetched.
_FULL_BYTES, _ROOM_BYTES = _GIB, 50 * _GIB
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def processors_found() -> Iterator[Finding]:
    """How many may be used, and which instruction sets that matter they have."""
    count, quota = len(os.sched_getaffinity(0)), _quota()
    flags = processors.flags()
    known = [name for name in _INSTRUCTIONS if name in flags]
    limit = f", of which a container's limit leaves {quota:.1f}" if quota and quota < count else ""
    says = f"{count} processors{limit}; {' '.join(known) or 'none of the instruction sets that matter'}"
    if "avx2" not in flags and "asimd" not in flags:
        remedy = "vLLM's build for processors needs AVX2: use GPUs or a server (engine.endpoint)"
        yield Finding("processors", Level.NOTE, says, remedy)
    elif not processors.compute_bfloat16():
        yield Finding("processors", Level.NOTE, f"{says}; no bfloat16: models work in float32 here")
    else:
        yield Finding("processors", Level.OK, says)


def memory_found() -> Iterator[Finding]:
    """Memory, as far as a container's limit leaves it."""
    told = _meminfo()
    total, free, limit = told["MemTotal"], told["MemAvailable"], _memory_limit()
    says = f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB free"
    if limit is not None and limit < total:
        says, total = f"{says}; a container's limit is {limit / _GIB:.1f} GiB", limit
    if total < _MEMORY_BYTES:
        yield Finding(
            "memory", Level.NOTE, says, f"{_MEMORY_BYTES // _GIB} GiB is the least for small models"
        )
    else:
        yield Finding("memory", Level.OK, says)


def shared_memory_found(spread: bool) -> Iterator[Finding]:
    """Shared memory, which processes of one model talk through.

    Args:
        spread: whether some model of the configuration is spread over several processes.
    """
    remedy = (
        "give the container more: --shm-size=16g, or in Kubernetes an emptyDir of medium Memory at /dev/shm"
    )
    level = Level.WRONG if spread else Level.NOTE
    try:
        found = os.statvfs(_SHM)
    except OSError as error:
        yield Finding("shared memory", level, f"{_SHM} cannot be used ({error.strerror})", remedy)
        return
    free = found.f_bavail * found.f_frsize
    says = f"{free / _GIB:.2f} GiB free of {found.f_blocks * found.f_frsize / _GIB:.2f} in {_SHM}"
    if free < _SHM_BYTES:
        yield Finding("shared memory", level, says, remedy)
    else:
        yield Finding("shared memory", Level.OK, says)


def places() -> dict[str, tuple[Path, str]]:
    """Where stages write on this machine, and which variable moves each."""
    home = Path.home()
    return {
        "models": (models.cache_folder(), models.CACHE_VARIABLE),
        "hub": (Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface"), "HF_HOME"),
        "operators": (Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache"), "XDG_CACHE_HOME"),
        "temporary": (Path(tempfile.gettempdir()), "TMPDIR"),
    }


def disk_found(name: str) -> Iterator[Finding]:
    """Whether one of these places can be written, and how much room is there."""
    folder, variable = places()[name]
    about = f"disk: {name}"
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        says = f"{folder} cannot be written ({error.strerror})"
        yield Finding(about, Level.WRONG, says, f"free it, or name another place by {variable}")
        return
    says = f"{free / _GIB:.0f} GiB free at {folder}"
    if free < _FULL_BYTES:
        yield Finding(about, Level.WRONG, f"{free / 2**20:.0f} MiB free at {folder}",
                      f"free some, or name another place by {variable}")  # fmt: skip
    elif free < _ROOM_BYTES and name in ("models", "hub"):
        yield Finding(about, Level.NOTE, says, f"enough for small models; {variable} names another place")
    else:
        yield Finding(about, Level.OK, says)


def compilers_found(on_gpus: bool) -> Iterator[Finding]:
    """What compiles kernels as they are first used: beside the interpreter, too."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    there = {name: shutil.which(name, path=path) is not None for name in ("gcc", "g++", "ninja", "nvcc")}
    there["Python.h"] = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    says = ", ".join(f"{name} {'yes' if found else 'no'}" for name, found in there.items())
    wanted = ("gcc", "Python.h") if on_gpus else ("gcc", "g++", "ninja")
    missing = [name for name in wanted if not there[name]]
    if missing:
        what = "Triton's kernels" if on_gpus else "DeepSpeed's operators and torch.compile"
        remedy = f"install them for {what} (Debian: gcc, g++, python3-dev; ninja comes with the environment)"
        yield Finding("compilers", Level.WRONG, f"{says}: {', '.join(missing)} missing", remedy)
    elif on_gpus and not there["nvcc"]:
        yield Finding("compilers", Level.NOTE, f"{says}: vLLM's own sampler is used in FlashInfer's place")
    else:
        yield Finding("compilers", Level.OK, says)


def _meminfo() -> Mapping[str, int]:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _memory_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        told = _told(path)
        if told and told.isdigit():
            return int(told)
    return None


def _quota() -> float | None:
    """Processors that a container's limit leaves."""
    told = (_told("/sys/fs/cgroup/cpu.max") or "").split()
    if not told:
        parts = (_told(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
        told = [part for part in parts if part]
    return int(told[0]) / int(told[1]) if len(told) == 2 and told[0].isdigit() else None


def _told(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
