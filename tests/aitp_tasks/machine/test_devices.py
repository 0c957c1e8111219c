"""Leases of made-up GPUs by real processes, and how CUDA_VISIBLE_DEVICES is read."""

import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.config import Require
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import devices
from aitp_tasks.machine.devices import Gpu

EIGHT = [Gpu(f"GPU-{number}000-uuid", number) for number in range(8)]
#: Leases, says which it got, and holds them until its input ends.
SCRIPT = """
import logging, os, sys
from aitp_tasks.machine import devices
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
gpus, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
devices._installed = lambda: [devices.Gpu(f"GPU-{number}000-uuid", number) for number in range(gpus)]
devices._POLL_SECONDS, devices._WAIT_SECONDS = 0.02, seconds
lease = devices.lease(count)
assert devices.lease(count) is lease
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
if "fork" in sys.argv:
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
if "exec" in sys.argv:
    import subprocess
    subprocess.Popen(["sleep", "20"], close_fds=False)
sys.stdin.read()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a process that leases ``count`` of ``gpus``."""
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    started: list[subprocess.Popen[str]] = []

    def start(gpus: int, count: int = 1, *options: str, seconds: float = 30.0) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SCRIPT, str(gpus), str(count), str(seconds), *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass


def got(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().strip().split(",")


def end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_eight_processes_get_eight_gpus_and_the_ninth_waits_for_one(start: Start) -> None:
    units = [start(8) for _ in range(8)]
    leased = [got(unit) for unit in units]
    assert sorted(leased) == [[gpu.uuid] for gpu in EIGHT]
    ninth = start(8)
    assert ninth.stderr is not None
    waits = ninth.stderr.readline()
    assert waits.startswith("waiting for gpus=1 of=8 holders=")
    holders = waits.split("holders=")[1].split()[0].split(",")
    assert {f"{unit.pid}@{socket.gethostname()}" for unit in units} == set(holders)
    end(units[5])
    assert got(ninth) == leased[5]


@pytest.mark.parametrize("child", ["alone", "fork", "exec"])
def test_a_killed_process_frees_its_gpu_whatever_its_children_do(start: Start, child: str) -> None:
    holder = start(1, 1, child)
    assert got(holder) == [EIGHT[0].uuid]
    holder.kill()
    holder.wait()
    assert got(start(1, seconds=5)) == [EIGHT[0].uuid]


def test_processes_that_want_several_do_not_wait_for_each_other(start: Start) -> None:
    units = [start(4, 3) for _ in range(4)]
    finished: list[set[str]] = []
    while units:
        # Only one of them fits at a time; which one is its own affair.
        holder = next(unit for unit in _ready(units))
        finished.append(set(got(holder)))
        end(holder)
        units.remove(holder)
    assert [len(leased) for leased in finished] == [3] * 4


def _ready(units: "list[subprocess.Popen[str]]") -> "list[subprocess.Popen[str]]":
    streams = {unit.stdout: unit for unit in units}
    return [streams[stream] for stream in select.select(list(streams), [], [], 30)[0]]


def test_waiting_ends_and_names_the_holder(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    holder = start(1)
    got(holder)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT[:1])
    monkeypatch.setattr(devices, "_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(devices, "_POLL_SECONDS", 0.05)
    with pytest.raises(
        TransientError, match=rf"no 1 of 1 GPUs became free .* the processes {holder.pid}@\S+:"
    ):
        devices.lease()
    assert devices.VARIABLE not in os.environ


def test_more_than_there_are_is_refused_and_none_is_no_lease(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT[:2])
    with pytest.raises(InputError, match="processes asks for 3 GPUs, but only 2 are visible: lower it"):
        devices.lease(3, "finetune.processes")
    monkeypatch.setenv(devices.VARIABLE, "")
    assert devices.lease() is None
    monkeypatch.setattr(devices, "_installed", lambda: [])
    monkeypatch.delenv(devices.VARIABLE)
    assert devices.lease() is None


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [*range(8)]),
        ("", []),
        ("2", [2]),
        ("3, 1", [3, 1]),
        ("-1", []),
        ("1,-1,2", [1]),
        ("1,99,2", [1]),
        ("1,1", []),
        ("NoDevFiles", []),
        ("GPU-4000-uuid,GPU-2000-uuid", [4, 2]),
        ("GPU-5", [5]),
        ("GPU-", []),
        ("GPU-1,GPU-9,GPU-2", [1]),
    ],
)
def test_visible_devices_are_read_as_cuda_does(value: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in devices._visible(EIGHT, value)] == indices


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
SLICES = list(range(1, 12))


@pytest.mark.parametrize(
    ("value", "places"),
    [
        pytest.param(None, [*range(13)], id="not set"),
        pytest.param("", [], id="empty is none"),
        pytest.param(" ", [], id="blank is none"),
        pytest.param(",0", [], id="nothing comes first"),
        pytest.param("0,,2", [0], id="nothing in between"),
        pytest.param("0,", [0], id="nothing at the end"),
        pytest.param(" 2 , 0 ", [12, 0], id="spaces, another order"),
        pytest.param("0,2,-1,1", [0, 12], id="none after -1, as CUDA's guide has it"),
        pytest.param("-1", [], id="-1 alone"),
        pytest.param("3", [], id="beyond the last"),
        pytest.param("0,3,2", [0], id="none after one beyond the last"),
        pytest.param("99999999999999999999", [], id="a number without sense"),
        pytest.param("0,0", [], id="twice is none at all"),
        pytest.param("0,-1,0", [0], id="twice, but the second is not read"),
        pytest.param("2gpu", [12], id="what follows a number"),
        pytest.param("+2,00", [12, 0], id="as C reads numbers"),
        pytest.param("all", [], id="no name of one"),
        pytest.param("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", [0], id="UUID"),
        pytest.param("GPU-893", [0], id="beginning of a UUID"),
        pytest.param("GPU-89", [], id="beginning of two"),
        pytest.param("GPU-5d5b,GPU-893", [12, 0], id="UUIDs in another order"),
        pytest.param("GPU-5d5b,GPU-5d", [], id="the same by two names"),
        pytest.param("GPU-5d5b,GPU-ffff,GPU-893", [12], id="none after an unknown UUID"),
        pytest.param("gpu-5d5b", [], id="UUIDs begin with GPU-"),
        pytest.param("5d5b", [], id="UUID without its beginning is the number 5"),
        pytest.param("0,GPU-5d5b", [0], id="numbers and UUIDs do not mix"),
        pytest.param("GPU-5d5b,0", [12], id="nor the other way round"),
        pytest.param("MIG-30e5a", [4], id="a slice"),
        pytest.param("MIG-30e5a,MIG-00e5a", [4, 1], id="two slices"),
        pytest.param("MIG-30e5a,MIG-30e5a", [], id="a slice twice"),
        pytest.param("MIG-3", [4], id="beginning of a slice's UUID"),
        pytest.param("MIG-", [], id="beginning of all slices"),
        pytest.param("MIG-GPU-89aa/1/0", [2], id="a slice by its old name"),
        pytest.param("MIG-GPU-89aa/10/0", [11], id="another, which begins like it"),
        pytest.param("MIG-GPU-89aa/1", [], id="an old name that is cut short"),
        pytest.param("MIG-GPU-89aa/1/0,MIG-10e5a", [], id="the same by both names"),
        pytest.param("MIG-GPU-5d5b/1/0", [], id="a slice of a GPU that is whole"),
        pytest.param("MIG-30e5a,GPU-5d5b", [4], id="slices and whole ones do not mix"),
        pytest.param("1", SLICES, id="a GPU that is cut up stands for its slices"),
        pytest.param("GPU-89aa", SLICES, id="by its UUID too"),
        pytest.param("2,1", [12, *SLICES], id="a whole one and one that is cut up"),
    ],
)
def test_whole_gpus_and_slices_are_named_as_schedulers_name_them(
    value: str | None, places: list[int]
) -> None:
    assert devices._visible(CUT, value) == [CUT[place] for place in places]


def test_a_gpu_is_named_so_that_cuda_takes_no_other() -> None:
    """By CUDA's guide, the number of a GPU that is cut up is that of its first slice."""
    for gpu in CUT:
        found = devices._visible(CUT, str(gpu.place))
        assert found == [gpu]


NUMBERS = st.sampled_from(["0", "1", "5", "7", " 3", "2 ", "+4", "6gpu", "03", "-1", "x", "", "8"])
UUIDS = st.sampled_from([*(gpu.uuid for gpu in EIGHT), "GPU-3", "GPU-7000", "GPU-", "GPU-9", "0", ""])


@given(st.one_of(st.lists(NUMBERS, min_size=1, max_size=5), st.lists(UUIDS, min_size=1, max_size=5)))
def test_names_are_read_as_torch_reads_them(names: list[str]) -> None:
    def read(names: list[str]) -> list[int]:
        return [gpu.index for gpu in devices._visible(EIGHT, ",".join(names))]

    # torch also looks for names that are there twice behind one that is not valid.
    valid = next((place for place, name in enumerate(names) if not read([name])), len(names))
    names = names[: valid + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(devices.VARIABLE, ",".join(names))
        found: list[Any] = torch.cuda._parse_visible_devices()
    if found and isinstance(found[0], str):
        found = torch.cuda._transform_uuid_to_ordinals(found, [gpu.uuid for gpu in EIGHT])
    beyond = next((place for place, index in enumerate(found) if index >= len(EIGHT)), len(found))
    assert read(names) == found[:beyond]


def test_a_process_that_wants_several_gets_whole_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    # Set first, so that what the lease sets is taken back.
    monkeypatch.setenv(devices.VARIABLE, "")
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setattr(devices, "_installed", lambda: CUT)
    monkeypatch.setattr(devices, "_held", None)
    with pytest.raises(
        InputError, match=r"processes asks for 3 GPUs, but only 2 are visible \(a process can"
    ):
        devices.lease(3, "finetune.processes")
    leased = devices.lease(2)
    assert leased is not None
    assert leased.gpus == (CUT[0], CUT[-1])
    assert os.environ[devices.VARIABLE] == f"{CARDS[0]},{CARDS[2]}"
    for descriptor in leased.descriptors:
        os.close(descriptor)


def test_a_slice_is_leased_by_its_own_uuid_whatever_named_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    monkeypatch.setenv(devices.VARIABLE, f"MIG-{CARDS[1]}/10/0")
    monkeypatch.setattr(devices, "_installed", lambda: CUT)
    monkeypatch.setattr(devices, "_held", None)
    leased = devices.lease()
    assert leased is not None
    assert os.environ[devices.VARIABLE] == "MIG-a0e5a"
    os.close(*leased.descriptors)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nowhere/leases", "nowhere/leases: No such file or directory: GPUs are leased by locks"),
        ("file/leases", "file/leases: Not a directory: GPUs are leased by locks"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / place))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT)
    with pytest.raises(InputError, match=told):
        devices.lease()


def test_a_folder_is_named_by_its_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that are started in different folders would not see each other's locks."""
    monkeypatch.setenv(devices.FOLDER_VARIABLE, "leases")
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT)
    with pytest.raises(InputError, match="AITP_LEASES='leases' is no absolute path"):
        devices.lease()


def test_a_holder_is_told_in_one_line_whatever_its_lock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / EIGHT[0].uuid).write_bytes(b"7@host\n\x1b[2J\xff" * 1000)
    with (tmp_path / EIGHT[0].uuid).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert devices._take(tmp_path, 1, EIGHT[:1])[0] is None
        (holder,) = devices._take(tmp_path, 1, EIGHT[:1])[1]
    assert holder.startswith("7@host?[2J?7@host")
    assert len(holder) <= 100


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere but on a read-only volume, so that one is made up."""

    def refuses(*_: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT)
    monkeypatch.setattr(devices.os, "open", refuses)
    with pytest.raises(InputError, match=r"gate: Read-only file system: .* set AITP_LEASES to one that"):
        devices.lease()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_in_a_volume_of_another_user_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that containers share belongs to one user; each user makes its folder in it."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    os.chown(volume, 4242, 4242)
    # Set first, so that what the lease sets is taken back.
    monkeypatch.setenv(devices.VARIABLE, "")
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT)
    monkeypatch.setattr(devices, "_held", None)
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(volume))
    with pytest.raises(InputError, match="in a shared volume, to a name in it that is not there yet"):
        devices.lease()
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(volume / "leases-0"))
    leased = devices.lease()
    assert leased is not None
    os.close(*leased.descriptors)


@pytest.mark.parametrize("kind", ["link", "open to others", "file"])
def test_a_folder_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "leases"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(folder))
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_installed", lambda: EIGHT)
    with pytest.raises(InputError, match=r"leases is not a folder that only this user can write: remove it"):
        devices.lease()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="symbolic links"):
        devices._open(tmp_path / "lock")


class _Nvml(types.ModuleType):
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


def test_slices_are_listed_in_place_of_their_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml("pynvml"))
    assert devices._installed() == [
        Gpu("GPU-0", 0, "A card", 80),
        Gpu("MIG-0", 1, "A card, a slice", 20, card="GPU-1", old_name="MIG-GPU-1/7/0"),
        Gpu("MIG-1", 1, "A card, a slice", 20, card="GPU-1"),
        Gpu("GPU-2", 2, "A card", bfloat16=False),
    ]


class _Partly(_Nvml):
    """The same, where this process may not open some: NVML counts them all the same, CUDA does not."""

    closed: tuple[int, ...] = ()

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index in self.closed:
            raise self.NVMLError("Insufficient Permissions")
        return super().nvmlDeviceGetHandleByIndex(index)


@pytest.mark.parametrize(
    ("closed", "value", "uuids"),
    [
        pytest.param((0,), None, ["MIG-0", "MIG-1", "GPU-2"], id="a job has two of three"),
        pytest.param((0, 1), "0", ["GPU-2"], id="numbers count those that it has"),
        pytest.param((0, 1), "2", [], id="and no others"),
        pytest.param((1,), "1", ["GPU-2"], id="one in between"),
        pytest.param((1,), "GPU-2,GPU-0", ["GPU-2", "GPU-0"], id="UUIDs stay what they are"),
    ],
)
def test_gpus_that_a_job_may_not_open_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    closed: tuple[int, ...],
    value: str | None,
    uuids: list[str],
) -> None:
    """As a batch system gives some of a machine's GPUs to a job, by cgroups; CUDA numbers these from 0."""
    nvml = _Partly("pynvml")
    nvml.closed = closed
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(devices, "_told", [])
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert [gpu.uuid for gpu in devices._visible(devices._installed(), value)] == uuids
    assert caplog.text.count(f"gpus left out={len(closed)}: GPU {closed[0]}: Insufficient Permissions") == 1


@pytest.mark.parametrize("missing", ["library", "driver"])
def test_without_library_or_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    nvml = _Nvml("pynvml")

    def fails() -> None:
        raise _Nvml.NVMLError("driver not loaded")

    monkeypatch.setattr(nvml, "nvmlInit", fails)
    monkeypatch.setitem(sys.modules, "pynvml", nvml if missing == "driver" else None)
    assert devices._installed() == []


CPU_BUILD = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA_BUILD = "__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
ROCM_BUILD = "__version__ = '2.13.0+rocm6.4'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a build of torch in the place of the installed one, without a library for its GPUs."""

    def put(told: str) -> None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch/__init__.py").write_text("")
        (tmp_path / "torch/version.py").write_text(told)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setitem(sys.modules, "pynvml", None)
        # Set first, so that what the lease sets is taken back.
        monkeypatch.setenv(devices.VARIABLE, "")
        monkeypatch.delenv(devices.VARIABLE)

    monkeypatch.setattr(devices, "_required", Require.AUTO)
    return put


@pytest.mark.parametrize(
    ("told", "required", "refused"),
    [
        (CPU_BUILD, Require.AUTO, False),
        (CPU_BUILD, Require.GPU, True),
        (CPU_BUILD, Require.CPU, False),
        (CUDA_BUILD, Require.AUTO, True),
        (CUDA_BUILD, Require.GPU, True),
        (CUDA_BUILD, Require.CPU, False),
        (ROCM_BUILD, Require.AUTO, True),
    ],
)
def test_without_a_gpu_work_goes_on_only_where_none_is_required(
    build: Callable[[str], None], told: str, required: Require, refused: bool
) -> None:
    build(told)
    devices.demand(required)
    if refused:
        for ask in (devices.require, devices.lease):
            with pytest.raises(InputError, match="embed is to work on a GPU .* nvidia-ml-py is not inst"):
                ask(1, "embed")
    else:
        devices.require(8, "embed")
        assert devices.lease(wanted_by="embed") is None


def test_on_processors_no_gpu_is_seen_by_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda: [Gpu("GPU-0", 0)])
    monkeypatch.setattr(devices, "_required", Require.CPU)
    monkeypatch.setenv(devices.VARIABLE, "0")
    assert devices.visible() == []
    assert devices.lease() is None
    # For whatever looks by itself.
    assert os.environ[devices.VARIABLE] == ""


def test_gpus_that_nobody_may_open_and_cards_without_a_slice_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = _Partly("pynvml")
    nvml.closed = (0, 1, 2)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert devices.why_none().startswith(
        "of 3 on this machine, the driver opens none: GPU 0: Insufficient Permissions; GPU 1"
    )
    nvml.closed = (0, 2)
    monkeypatch.setattr(nvml, "nvmlDeviceGetMaxMigDeviceCount", lambda handle: 0)
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 2)
    assert "the driver opens none: GPU 0" in devices.why_none()
    nvml.closed = ()
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda index: "GPU-1")
    assert devices.why_none() == "of 2 on this machine, MIG is on, and there is no slice"


@pytest.mark.parametrize(
    ("driver", "value", "told"),
    [
        ("Driver/library version mismatch", None, "the driver says: Driver/library version mismatch"),
        ("", "", "of 4 on this machine, CUDA_VISIBLE_DEVICES='' leaves none"),
        ("", "7", "of 4 on this machine, CUDA_VISIBLE_DEVICES='7' leaves none"),
    ],
)
def test_a_missing_gpu_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, driver: str, value: str | None, told: str
) -> None:
    nvml = _Nvml("pynvml")
    if driver:
        monkeypatch.setattr(nvml, "nvmlInit", lambda: (_ for _ in ()).throw(_Nvml.NVMLError(driver)))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(devices, "_required", Require.GPU)
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(devices.VARIABLE, value)
    with pytest.raises(InputError, match=re.escape(told)):
        devices.lease()


def test_the_build_of_torch_is_told_as_torch_itself_tells_it() -> None:
    import torch

    assert devices.built_for_gpus() == (torch.version.cuda is not None or torch.version.hip is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not devices._installed(), reason="no GPU")
def test_the_leased_gpu_is_the_one_that_cuda_sees() -> None:
    script = (
        "from aitp_tasks.machine import devices; lease = devices.lease()\n"
        "import torch; properties = torch.cuda.get_device_properties(0)\n"
        "assert torch.cuda.device_count() == 1\n"
        "assert f'GPU-{properties.uuid}' == lease.gpus[0].uuid, (properties.uuid, lease)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
