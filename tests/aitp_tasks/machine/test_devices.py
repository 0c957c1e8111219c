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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aitp_tasks.config import Require
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import devices, gpus
from aitp_tasks.machine.gpus import Gpu
from tests.aitp_tasks.machine.nvml import CARDS, CUT, EIGHT, Nvml

SCRIPT = """
import logging, os, sys
from aitp_tasks.machine import devices, gpus
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
number, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
gpus._installed = lambda: [gpus.Gpu(f"GPU-{place}000-uuid", place) for place in range(number)]
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT[:1])
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT[:2])
    with pytest.raises(InputError, match="processes asks for 3 GPUs, but only 2 are visible: lower it"):
        devices.lease(3, "finetune.processes")
    monkeypatch.setenv(devices.VARIABLE, "")
    assert devices.lease() is None
    monkeypatch.setattr(gpus, "_installed", lambda: [])
    monkeypatch.delenv(devices.VARIABLE)
    assert devices.lease() is None


def test_a_process_that_wants_several_gets_whole_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    # Set first, so that what the lease sets is taken back.
    monkeypatch.setenv(devices.VARIABLE, "")
    monkeypatch.delenv(devices.VARIABLE)
    monkeypatch.setattr(gpus, "_installed", lambda: CUT)
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
    monkeypatch.setattr(gpus, "_installed", lambda: CUT)
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT)
    with pytest.raises(InputError, match=told):
        devices.lease()


def test_a_folder_is_named_by_its_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that are started in different folders would not see each other's locks."""
    monkeypatch.setenv(devices.FOLDER_VARIABLE, "leases")
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT)
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT)
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT)
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
    monkeypatch.setattr(gpus, "_installed", lambda: EIGHT)
    with pytest.raises(InputError, match=r"leases is not a folder that only this user can write: remove it"):
        devices.lease()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="symbolic links"):
        devices._open(tmp_path / "lock")


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
    monkeypatch.setattr(gpus, "_installed", lambda: [Gpu("GPU-0", 0)])
    monkeypatch.setattr(devices, "_required", Require.CPU)
    monkeypatch.setenv(devices.VARIABLE, "0")
    assert devices.visible() == []
    assert devices.lease() is None
    # For whatever looks by itself.
    assert os.environ[devices.VARIABLE] == ""


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
    nvml = Nvml("pynvml")
    if driver:
        monkeypatch.setattr(nvml, "nvmlInit", lambda: (_ for _ in ()).throw(Nvml.NVMLError(driver)))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(devices, "_required", Require.GPU)
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(devices.VARIABLE, value)
    with pytest.raises(InputError, match=re.escape(told)):
        devices.lease()


def test_the_build_of_torch_is_told_as_torch_itself_tells_it() -> None:

    assert devices.built_for_gpus() == (torch.version.cuda is not None or torch.version.hip is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not gpus._installed(), reason="no GPU")
def test_the_leased_gpu_is_the_one_that_cuda_sees() -> None:
    script = (
        "from aitp_tasks.machine import devices; lease = devices.lease()\n"
        "import torch; properties = torch.cuda.get_device_properties(0)\n"
        "assert torch.cuda.device_count() == 1\n"
        "assert f'GPU-{properties.uuid}' == lease.gpus[0].uuid, (properties.uuid, lease)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
