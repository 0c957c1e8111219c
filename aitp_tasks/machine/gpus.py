"""The GPUs that this process may use: those that the driver opens for it, and of these what CUDA is left.

By NVIDIA's management library, which initialises no CUDA. A GPU that is cut up (MIG) counts as its slices.
"""

import importlib
import logging
import os
import re
from dataclasses import dataclass, replace
from typing import Any

log = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"
#: Major compute capability.
_BFLOAT16_SINCE = 8
#: How names of whole GPUs and of slices begin.
_KINDS = ("GPU-", "MIG-")
#: What was said last of GPUs that cannot be opened.
_told: list[str] = []


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one slice of a GPU that is cut up by MIG."""

    uuid: str
    #: Its place on the PCI bus, among the GPUs that this process may open: CUDA counts no others.
    index: int
    #: Its model.
    name: str = ""
    #: Bytes; 0 where that is not known.
    memory: int = 0
    #: Whether it computes in bfloat16, as those of compute capability 8.0 and more do.
    bfloat16: bool = True
    #: UUID of the GPU that it is a slice of; empty for a whole one.
    card: str = ""
    #: How drivers before R470 named the slice, and some schedulers still do.
    old_name: str = ""

    @property
    def place(self) -> int | str:
        """What names it to CUDA where that counts along the bus: a number would be a card's first slice."""
        return self.uuid if self.card else self.index


def visible() -> list[Gpu]:
    """The GPUs that this process may use, leased or not."""
    return _left(_installed(), os.environ.get(VARIABLE))


def why_none() -> str:
    """Why this process sees no GPU, as far as the management library knows."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return "the package nvidia-ml-py is not installed"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"the driver says: {error}"
    try:
        count, found, refused = nvml.nvmlDeviceGetCount(), *_listed(nvml)
    finally:
        nvml.nvmlShutdown()
    if found:
        return f"of {len(found)} on this machine, {VARIABLE}={os.environ.get(VARIABLE)!r} leaves none"
    if count and refused:
        return f"of {count} on this machine, the driver opens none: {'; '.join(refused)}"
    if count:
        return f"of {count} on this machine, MIG is on, and there is no slice"
    return "the driver knows of none"


def _left(gpus: list[Gpu], value: str | None) -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order, as CUDA reads it.

    Numbers, or beginnings of UUIDs, but not both, up to the first that names no GPU; none
    at all when one is named twice. Numbers count along the PCI bus, which is CUDA's own
    order unless different models are mixed and CUDA_DEVICE_ORDER is not set. Of a GPU that
    is cut up, CUDA takes the first slice; here it stands for all of them, to lease one of.
    """
    if value is None:
        return gpus
    found: list[Gpu] = []
    kind = value.strip()[:4]
    for name in map(str.strip, value.split(",")):
        named = _named(gpus, name, kind if kind in _KINDS else "")
        if not named:
            break
        if any(gpu in found for gpu in named):
            return []
        found += named
    return found


def _named(gpus: list[Gpu], name: str, kind: str) -> list[Gpu]:
    """What one name stands for; ``kind`` is how all UUIDs of the list begin, empty in one of numbers."""
    if not kind:
        # As C reads a number: what follows it is nothing.
        number = re.match(r"\+?(\d+)", name)
        return [gpu for gpu in gpus if number and gpu.index == int(number[1])]
    if not name.startswith(kind):
        return []
    if kind == "GPU-":
        cards = {gpu.card or gpu.uuid for gpu in gpus if (gpu.card or gpu.uuid).startswith(name)}
        return [gpu for gpu in gpus if cards == {gpu.card or gpu.uuid}]
    slices = [gpu for gpu in gpus if gpu.card]
    whole = [gpu for gpu in slices if name in (gpu.uuid, gpu.old_name)]
    # A beginning of an old name would be that of slice 1 and of slice 10.
    begun = [gpu for gpu in slices if "/" not in name and gpu.uuid.startswith(name)]
    matching = whole or begun
    return matching if len(matching) == 1 else []


def _installed() -> list[Gpu]:
    """The GPUs that this process may open, by NVIDIA's management library: CUDA is not initialised by it."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        return []
    except nvml.NVMLError:
        return []
    try:
        found, refused = _listed(nvml)
    finally:
        nvml.nvmlShutdown()
    if refused and refused != _told:
        # Once: who asks for GPUs asks several times.
        _told[:] = refused
        log.info("gpus left out=%d: %s", len(refused), "; ".join(refused))
    return found


def _listed(nvml: Any) -> tuple[list[Gpu], list[str]]:
    """The GPUs that the driver opens for this process, and what it says of those that it does not.

    It also counts those that a batch system keeps from a job (by cgroups), and those that have failed.
    """
    found: list[Gpu] = []
    refused: list[str] = []
    opened = 0
    for place in range(nvml.nvmlDeviceGetCount()):
        try:
            found += _slices(nvml, nvml.nvmlDeviceGetHandleByIndex(place), opened)
        except nvml.NVMLError as error:
            refused.append(f"GPU {place}: {error}")
            continue
        opened += 1
    return found, refused


def _slices(nvml: Any, handle: Any, index: int) -> list[Gpu]:
    """A GPU itself or, in MIG mode, its slices."""
    try:
        in_slices = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:
        in_slices = False
    name = str(nvml.nvmlDeviceGetName(handle))
    if not in_slices:
        return [_gpu(nvml, handle, index, name)]
    slices = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            slices.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except nvml.NVMLError:
            continue
    card = nvml.nvmlDeviceGetUUID(handle)
    return [
        replace(_gpu(nvml, one, index, f"{name}, a slice"), card=card, old_name=_old_name(nvml, one, card))
        for one in slices
    ]


def _old_name(nvml: Any, handle: Any, card: str) -> str:
    try:
        instances = nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle)
    except nvml.NVMLError:
        return ""
    return f"MIG-{card}/{instances[0]}/{instances[1]}"


def _gpu(nvml: Any, handle: Any, index: int, name: str) -> Gpu:
    return Gpu(
        nvml.nvmlDeviceGetUUID(handle), index, name, _memory(nvml, handle), _computes_bfloat16(nvml, handle)
    )


def _computes_bfloat16(nvml: Any, handle: Any) -> bool:
    try:
        major, _ = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError:
        # Slices do not say it, but only GPUs that do can be sliced.
        return True
    return int(major) >= _BFLOAT16_SINCE


def _memory(nvml: Any, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        # Where memory is shared with the processor.
        return 0
