"""Whether this machine can use the GPU worker, before gigabytes are downloaded; `make setup-gpu`.

    python requirements/gpu.py FOLDER

FOLDER is where the environments are made. Looks at the driver, the GPUs, shared memory and
disks; all that is in the way is told at once, each with its value and its remedy, and the
exit code is then 2. The standard library only: it runs before any environment exists.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: The first driver for CUDA 13, which the locked torch and vLLM are built for.
DRIVER = (580, 65)
#: CUDA 13 compiles for nothing older (Turing).
CAPABILITY = (7, 5)
SHARED_MEMORY = Path("/dev/shm")
#: For each GPU: the queues of vLLM's processes, and what NCCL's ranks pass on by it.
SHARED_BYTES = 1 << 30
#: The environment, and as much for what is downloaded: uv keeps it in its cache.
DISK_BYTES = 16 << 30
#: An answer takes a second or two, with several GPUs a few more; a driver that hangs gives none.
TIMEOUT = 60.0
#: How a line begins that nvidia-smi puts below its answer, as of a GPU whose infoROM is corrupted.
_REMARK = "WARNING"
#: What nvidia-smi says when it fails, and what to do then; else the driver's own words must do.
_REMEDIES = (
    (r"permission", "let this user open /dev/nvidia*: its group (often `video`), or the container's devices"),
    (r"version mismatch", "the driver was updated under the running kernel: reboot, or reload its module"),
    (r"couldn't communicate|no devices|not found", "load its module (`modprobe nvidia`), see `dmesg`"),
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi tells of it; a version is compared by its first two numbers."""

    name: str
    driver: tuple[int, ...]
    capability: tuple[int, ...]
    mig: bool


class RefusalError(Exception):
    """What is in the way, its value and the remedy."""


def main() -> None:
    """Print what was found, and leave with 2 where something is in the way."""
    folder = Path(sys.argv[1])
    gpus, refusals = [], []
    try:
        gpus = found()
        refusals += wrong(gpus)
    except RefusalError as error:
        refusals.append(str(error))
    refusals += scarce(SHARED_MEMORY, folder, max(1, len(gpus)))
    for gpu in gpus:
        capability = _text(gpu.capability) or "that it does not tell (see `dmesg`)"
        print(f"gpu: {gpu.name}, compute capability {capability}, driver {_text(gpu.driver)}")
    for refusal in refusals:
        print(f"error: {refusal}", file=sys.stderr)
    if refusals:
        sys.exit(2)


def found() -> list[Gpu]:
    """The GPUs of this machine.

    Raises:
        RefusalError: there is no driver, it does not answer, or it has no GPU.
    """
    # Drivers that are too old do not know all of the fields: first the one that says so. A machine has one
    # driver, whose version a GPU that has failed may not tell.
    driver = max(_numbers(line) for line in _ask("--query-gpu=driver_version", "--format=csv,noheader"))
    if driver < DRIVER:
        raise RefusalError(_old_driver(driver))
    fields = "--query-gpu=name,driver_version,compute_cap,mig.mode.current"
    gpus = []
    for line in _ask(fields, "--format=csv,noheader"):
        name, _, capability, mig = (field.strip() for field in line.rsplit(",", 3))
        gpus.append(Gpu(name, driver, _numbers(capability), mig == "Enabled"))
    return gpus


def wrong(gpus: list[Gpu]) -> list[str]:
    """What is in the way on the GPUs themselves."""
    messages = []
    for gpu in gpus:
        if () < gpu.capability < CAPABILITY:
            messages.append(
                f"{gpu.name} has compute capability {_text(gpu.capability)}, and CUDA 13 needs "
                f"{_text(CAPABILITY)}: take another GPU, or the worker for processors (`make setup`)"
            )
    if any(gpu.mig for gpu in gpus) and not any("MIG-" in line for line in _ask("--list-gpus")):
        messages.append(
            "MIG is on, and there is no slice to work on: make some (`nvidia-smi mig -cgi PROFILES -C`), "
            "or switch it off (`nvidia-smi -mig 0`)"
        )
    return messages


def scarce(shared_memory: Path, folder: Path, gpus: int) -> list[str]:
    """What there is too little of: shared memory for so many GPUs, and room on the disks."""
    messages = []
    needed = gpus * SHARED_BYTES
    free = _free(shared_memory)
    if free < needed:
        messages.append(
            f"{shared_memory} has {_gib(free)} free, and {gpus} GPUs need {_gib(needed)}: "
            f"`mount -o remount,size={2 * gpus}G {shared_memory}`; in a container --shm-size={2 * gpus}g"
        )
    cache = Path(os.environ.get("UV_CACHE_DIR") or _cache_home() / "uv")
    for place in _apart(folder, cache):
        free = _free(place)
        if free < DISK_BYTES:
            messages.append(
                f"{place} has {_gib(free)} free, and the environment and its downloads need "
                f"{_gib(DISK_BYTES)}: make room, or move uv's cache (UV_CACHE_DIR)"
            )
    return messages


def _ask(*arguments: str) -> list[str]:
    """The lines of nvidia-smi's answer, without what it remarks about a GPU, which is passed on.

    Raises:
        RefusalError: it is missing, fails, says nothing or nothing in time.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise RefusalError(
            "nvidia-smi is not on PATH, so there is no NVIDIA driver: install one of "
            f"{_text(DRIVER)} or newer; a container gets it from the NVIDIA container toolkit (`--gpus all`)"
        )
    try:
        asked = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace",
        )  # fmt: skip
        out, err = asked.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        # Not waited for: what hangs in the driver does not even end when it is killed.
        asked.kill()
        raise RefusalError(
            f"nvidia-smi gave no answer within {TIMEOUT:.0f} s, so the driver hangs: look at `dmesg`, reboot"
        ) from None
    except OSError as error:
        raise RefusalError(
            f"{program} cannot be started ({error.strerror}): install the driver anew"
        ) from None
    said_lines = [line for line in out.splitlines() if line.strip()]
    lines = [line for line in said_lines if not line.startswith(_REMARK)]
    if asked.returncode or not lines or lines[0].startswith("No devices"):
        said = " ".join((err + out).split())[:300] or "nothing"
        remedy = next((remedy for sign, remedy in _REMEDIES if re.search(sign, said, re.IGNORECASE)), None)
        raise RefusalError(
            f"nvidia-smi says {said!r} (code {asked.returncode}): {remedy or 'look at `dmesg`'}"
        )
    for line in said_lines:
        if line.startswith(_REMARK):
            print(f"nvidia-smi says {line!r}", file=sys.stderr)
    return lines


def _old_driver(driver: tuple[int, ...]) -> str:
    return (
        f"the NVIDIA driver is {_text(driver) or 'of a version that it does not tell'}, and CUDA 13 needs "
        f"{_text(DRIVER)} or newer: update it"
    )


def _apart(*places: Path) -> list[Path]:
    """The nearest folders that exist, one for each disk."""
    disks: dict[int, Path] = {}
    for place in places:
        existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        disks.setdefault(existing.stat().st_dev, existing)
    return list(disks.values())


def _free(place: Path) -> int:
    """Bytes that this user may still write there; 0 where the place is missing."""
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.0f} GiB" if count >= 10 << 30 else f"{count / (1 << 30):.1f} GiB"


if __name__ == "__main__":
    main()
