"""Machines with and without GPUs, told by a program in nvidia-smi's place and a made-up library."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aitp_tasks.config import Require
from aitp_tasks.machine import devices
from aitp_tasks.machine.gpus import VARIABLE, Gpu
from aitp_tasks.tools.doctor import bounded, gpus
from aitp_tasks.tools.doctor.finding import Finding, Level

H100 = "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, 81559, 3, Disabled"
OLD = "NVIDIA H100 80GB HBM3, 535.183.01, 9.0, 81559, 3, Disabled"
T4 = "Tesla T4, 580.65.06, 7.5, 15360, 0, [N/A]"
V100 = "Tesla V100-SXM2-16GB, 580.65.06, 7.0, 16384, 0, [N/A]"
SLICED = "NVIDIA A100-SXM4-80GB, 580.65.06, 8.0, 81920, 0, Enabled"
SEEN = [Gpu("GPU-0", 0, "NVIDIA H100 80GB HBM3", 80 * 2**30)]

Machine = Callable[..., list[Finding]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What is found on a machine with this driver, these GPUs and this build of torch."""

    def found(
        script: str | None, seen: list[Gpu], cuda: str = "13.0", required: Require = Require.AUTO
    ) -> list[Finding]:
        monkeypatch.setenv("PATH", str(tmp_path))
        if script is not None:
            program = tmp_path / "nvidia-smi"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: seen)
        monkeypatch.setattr(devices, "_torch_is_built_for", lambda _: cuda)
        monkeypatch.delenv(VARIABLE, raising=False)
        return list(gpus.found(required))

    return found


def rows(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


def test_a_gpu_that_works(machine: Machine) -> None:
    one, all_of_them = machine(rows(H100), SEEN)
    assert (one.about, one.level, all_of_them.level) == ("GPU 0", Level.OK, Level.OK)
    assert (
        "NVIDIA H100 80GB HBM3, 3 of 81559 MiB in use, compute capability 9.0, driver 580.65.06" in one.says
    )
    assert all_of_them.says.startswith("stages see 1: NVIDIA H100 80GB HBM3 (80 GiB)")


def test_an_old_driver(machine: Machine) -> None:
    one, _ = machine(rows(OLD), [])
    assert one.level is Level.WRONG
    assert "too old for torch, which is built for CUDA 13.0" in one.says
    assert one.remedy == "install driver 580 or newer"
    # It is new enough for the CUDA before.
    assert machine(rows(OLD), SEEN, "12.8")[0].level is Level.OK


@pytest.mark.parametrize(
    ("row", "cuda", "level", "says"),
    [
        (
            H100.replace("HBM3", "HBM3, a name, with commas"),
            "13.0",
            Level.OK,
            "HBM3, a name, with commas, 3 of",
        ),
        (", ".join(["[GPU is lost]"] * 6), "13.0", Level.WRONG, "it has failed"),
        # What a driver does not tell is not too old.
        (H100.replace("580.65.06", "[N/A]"), "13.0", Level.OK, "driver [N/A]"),
        (T4, "13.0", Level.NOTE, "no bfloat16"),
        (V100, "13.0", Level.WRONG, "less than torch's build for CUDA 13.0 knows"),
        (V100, "12.8", Level.NOTE, "no bfloat16"),
        (SLICED, "13.0", Level.OK, "cut into slices (MIG)"),
    ],
)
def test_what_a_gpu_can(machine: Machine, row: str, cuda: str, level: Level, says: str) -> None:
    one = machine(rows(row), SEEN, cuda)[0]
    assert one.level is level
    assert says in one.says


def test_torch_for_processors_beside_a_gpu(machine: Machine) -> None:
    found = machine(rows(H100), SEEN, "")[-1]
    assert (found.level, found.says) == (
        Level.WRONG,
        "1 here, and torch is built for processors: no stage uses them",
    )
    assert "requirements/worker-gpu.txt" in found.remedy
    # Unless that is what somebody wants.
    assert machine(rows(H100), SEEN, "", Require.CPU)[-1].level is Level.OK


def test_a_machine_without_gpus(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitp_tasks.machine.gpus.why_none", lambda: "the driver knows of none")
    (found,) = machine(None, [], "")
    assert (found.level, found.says) == (
        Level.OK,
        "none (the driver knows of none): stages work on processors",
    )
    (found,) = machine(None, [], "13.0")
    assert found.level is Level.WRONG
    assert found.says == "torch is built for GPUs, and stages see none: the driver knows of none"
    (found,) = machine(None, [], "", Require.GPU)
    assert found.says.startswith("devices.require=gpu, and stages see none")


def test_gpus_that_are_hidden_from_stages(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitp_tasks.machine.gpus.why_none", lambda: "CUDA_VISIBLE_DEVICES='7' leaves none")
    found = machine(rows(H100), [])[-1]
    assert found.level is Level.WRONG
    assert "CUDA_VISIBLE_DEVICES='7' leaves none" in found.says


def test_a_folder_of_locks_that_will_not_do_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(rows(H100), SEEN)
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path / "leases"))
    (found,) = gpus.leases_found()
    assert (found.level, found.says) == (Level.OK, f"GPUs are leased by locks in {tmp_path / 'leases'}")
    monkeypatch.setenv(devices.FOLDER_VARIABLE, "/proc/leases")
    (told,) = bounded.run("leases", lambda: list(gpus.leases_found()))
    assert told.level is Level.WRONG
    assert "set AITP_LEASES" in told.says
    machine(rows(H100), [])
    assert list(gpus.leases_found()) == []


def test_a_driver_that_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_SECONDS", 0.3)
    start = time.monotonic()
    (found,) = machine("exec /bin/sleep 60", SEEN)
    assert time.monotonic() - start < 10
    assert found.level is Level.WRONG
    assert "nvidia-smi has not answered" in found.says
    assert "restart the machine" in found.remedy


@pytest.mark.parametrize("script", ["exit 9", "echo broken", "echo 'a, b'; kill -9 $$", "printf '\\377\\n'"])
def test_a_driver_that_talks_nonsense_hides_nothing(machine: Machine, script: str) -> None:
    assert [one.about for one in machine(script, SEEN)] == ["GPUs"]
    assert os.environ["PATH"]
