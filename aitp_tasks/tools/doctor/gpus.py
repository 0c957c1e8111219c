"""The GPUs, their driver, and whether torch as it is installed can use them.

The driver is asked by ``nvidia-smi``, in a process that can be ended: a broken driver hangs.
What stages see is what ``machine.devices`` sees.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from aitp_tasks.config import Require
from aitp_tasks.machine import devices, gpus
from aitp_tasks.tools.doctor.finding import Finding, Level

_PROGRAM = "nvidia-smi"
_SECONDS = 10.0
_COLUMNS = ("name", "driver_version", "compute_cap", "memory.total", "memory.used", "mig.mode.current")
#: The oldest driver for each major version of CUDA, and the least compute capability that it still knows.
_DRIVERS = {11: (450, 3.5), 12: (525, 5.0), 13: (580, 7.5)}
_BFLOAT16_SINCE = 8.0
#: What stands in the fields of a GPU that does not work any more.
_FAILED = ("GPU is lost", "Unknown Error", "ERR!")


@dataclass(frozen=True)
class Card:
    """A GPU as the driver tells of it."""

    name: str
    driver: str
    capability: str
    memory: str
    used: str
    mig: str

    def __str__(self) -> str:
        sliced = ", cut into slices (MIG)" if self.mig == "Enabled" else ""
        return (
            f"{self.name}, {self.used} of {self.memory} MiB in use, compute capability {self.capability}, "
            f"driver {self.driver}{sliced}"
        )


class HangsError(Exception):
    """The driver does not answer."""


def cards() -> list[Card] | None:
    """The GPUs that the driver knows; None where there is no driver.

    Raises:
        HangsError: it does not answer in time.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        return None
    asked = [program, f"--query-gpu={','.join(_COLUMNS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise HangsError from None
    except OSError:
        return None
    # A name may have commas.
    last = len(_COLUMNS) - 1
    rows = [[cell.strip() for cell in line.rsplit(",", last)] for line in done.stdout.splitlines()]
    return [Card(*row) for row in rows if len(row) == len(_COLUMNS)] if done.returncode == 0 else []


def found(required: Require) -> Iterator[Finding]:
    """The driver and its GPUs, and those that a stage sees."""
    try:
        known = cards()
    except HangsError:
        yield Finding(
            "GPUs",
            Level.WRONG,
            f"{_PROGRAM} has not answered in {_SECONDS:.0f} s",
            "the driver hangs: see the kernel's log (dmesg), load the driver anew or restart the machine; "
            "until then no stage gets a GPU",
        )
        return
    for number, card in enumerate(known or ()):
        yield _judged(f"GPU {number}", card)
    yield _as_stages_see(known, required)


def leases_found() -> Iterator[Finding]:
    """Whether the GPUs can be leased, where there are any."""
    if devices.visible():
        yield Finding("leases", Level.OK, f"GPUs are leased by locks in {devices.locks()}")


def _judged(about: str, card: Card) -> Finding:
    if any(told in str(card) for told in _FAILED):
        return Finding(
            about, Level.WRONG, f"{card}: it has failed", "see the kernel's log (dmesg), restart the machine"
        )
    built = devices.built_for_cuda()
    major = int(built.partition(".")[0]) if built else 0
    driver, capability = _DRIVERS.get(major, (0, 0.0))
    if 0 < _number(card.driver) < driver:
        return Finding(
            about,
            Level.WRONG,
            f"{card}, too old for torch, which is built for CUDA {built}",
            f"install driver {driver} or newer",
        )
    if 0 < _number(card.capability) < capability:
        return Finding(
            about,
            Level.WRONG,
            f"{card}, less than torch's build for CUDA {built} knows",
            f"take a GPU of compute capability {capability:g} or more",
        )
    if 0 < _number(card.capability) < _BFLOAT16_SINCE:
        return Finding(about, Level.NOTE, f"{card}: no bfloat16, models work in float16 or float32")
    return Finding(about, Level.OK, str(card))


def _as_stages_see(known: list[Card] | None, required: Require) -> Finding:
    """What a stage gets of them."""
    about, seen = "GPUs", devices.visible()
    torch_on_gpus = devices.built_for_gpus()
    if required is Require.CPU:
        return Finding(about, Level.OK, "devices.require=cpu: stages work on processors")
    if (seen or known) and not torch_on_gpus:
        return Finding(
            about,
            Level.WRONG,
            f"{max(len(seen), len(known or ()))} here, and torch is built for processors: no stage uses them",
            "install requirements/worker-gpu.txt as the worker environment, or set devices.require to cpu",
        )
    if not seen:
        why = gpus.why_none()
        if required is Require.GPU or torch_on_gpus:
            asked = "devices.require=gpu" if required is Require.GPU else "torch is built for GPUs"
            remedy = "mend that, start the worker where there is one, or set devices.require to cpu"
            return Finding(about, Level.WRONG, f"{asked}, and stages see none: {why}", remedy)
        return Finding(about, Level.OK, f"none ({why}): stages work on processors")
    names = ", ".join(sorted({f"{gpu.name} ({gpu.memory / 2**30:.0f} GiB)" for gpu in seen}))
    return Finding(about, Level.OK, f"stages see {len(seen)}: {names}; the pool gpu gets so many slots")


def _number(told: str) -> float:
    """A version's first two numbers; 0 where it is none."""
    try:
        return float(".".join(told.split(".")[:2]))
    except ValueError:
        return 0.0
