"""GPUs that are not here, and a management library that tells of some."""

import types

from aitp_tasks.machine.gpus import Gpu

EIGHT = [Gpu(f"GPU-{number}000-uuid", number) for number in range(8)]
#: Leases, says which it got, and holds them until its input ends.
#: A whole GPU, one that is cut into eleven, and one more that is whole.
CARDS = ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-89aa", "GPU-5d5b")
CUT = [
    Gpu(CARDS[0], 0),
    *(
        Gpu(f"MIG-{number:x}0e5a", 1, card=CARDS[1], old_name=f"MIG-{CARDS[1]}/{number}/0")
        for number in range(11)
    ),
    Gpu(CARDS[2], 2),
]


class Nvml(types.ModuleType):
    """Three GPUs, of which the second is cut up into two slices."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"GPU-{index}"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if handle == "GPU-2":
            raise self.NVMLError("not supported")
        return [int(handle == "GPU-1"), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, place: int) -> str:  # noqa: N802
        if place > 1:
            raise self.NVMLError("not found")
        return f"MIG-{place}"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return "A card"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> types.SimpleNamespace:  # noqa: N802
        if handle == "GPU-2":
            raise self.NVMLError("not supported")
        return types.SimpleNamespace(total=20 if handle.startswith("MIG") else 80)

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> list[int]:  # noqa: N802
        if handle.startswith("MIG"):
            raise self.NVMLError("not supported")
        return [7, 5] if handle == "GPU-2" else [8, 0]

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetGpuInstanceId(self, handle: str) -> int:  # noqa: N802
        return int(handle.removeprefix("MIG-")) + 7

    def nvmlDeviceGetComputeInstanceId(self, handle: str) -> int:  # noqa: N802
        if handle == "MIG-1":
            raise self.NVMLError("not supported")
        return 0


class Partly(Nvml):
    """The same, where this process may not open some: NVML counts them all the same, CUDA does not."""

    closed: tuple[int, ...] = ()

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index in self.closed:
            raise self.NVMLError("Insufficient Permissions")
        return super().nvmlDeviceGetHandleByIndex(index)
