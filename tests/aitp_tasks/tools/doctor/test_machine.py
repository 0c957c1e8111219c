"""Machines that lack something, with the kernel's answers in place of theirs."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from aitp_tasks.machine import processors
from aitp_tasks.tools.doctor import machine
from aitp_tasks.tools.doctor.finding import Level

GIB = 2**30


def test_this_machine_is_as_other_programs_say() -> None:
    (found,) = machine.processors_found()
    assert found.says.startswith(f"{len(os.sched_getaffinity(0))} processors")
    (found,) = machine.memory_found()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.says.startswith(f"{pages / GIB:.1f} GiB")


@pytest.mark.parametrize(
    ("flags", "level", "says"),
    [
        ({"avx2", "avx512f", "avx512_bf16"}, Level.OK, "avx2 avx512f avx512_bf16"),
        ({"asimd", "bf16"}, Level.OK, "asimd bf16"),
        ({"avx2"}, Level.NOTE, "no bfloat16: models work in float32"),
        ({"sse2"}, Level.NOTE, "none of the instruction sets that matter"),
        (set(), Level.NOTE, "none of the instruction sets that matter"),
    ],
)
def test_instruction_sets(monkeypatch: pytest.MonkeyPatch, flags: set[str], level: Level, says: str) -> None:
    monkeypatch.setattr(processors, "flags", lambda: flags)
    (found,) = machine.processors_found()
    assert found.level is level
    assert says in found.says


@pytest.mark.parametrize(
    ("told", "level", "says"),
    [
        ({}, Level.OK, "32.0 GiB, 16.0 GiB free"),
        ({"/sys/fs/cgroup/memory.max": "max"}, Level.OK, "32.0 GiB, 16.0 GiB free"),
        ({"/sys/fs/cgroup/memory.max": str(4 * GIB)}, Level.NOTE, "a container's limit is 4.0 GiB"),
        # As no limit is written by the first version.
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, Level.OK, "32.0 GiB"),
    ],
)
def test_memory(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], level: Level, says: str) -> None:
    monkeypatch.setattr(machine, "_meminfo", lambda: {"MemTotal": 32 * GIB, "MemAvailable": 16 * GIB})
    monkeypatch.setattr(machine, "_told", told.get)
    (found,) = machine.memory_found()
    assert found.level is level
    assert says in found.says


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        ({}, None),
    ],
)
def test_a_containers_processors(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], limit: float | None
) -> None:
    monkeypatch.setattr(machine, "_told", told.get)
    assert machine._quota() == limit


@pytest.mark.parametrize(
    ("free", "spread", "level"),
    [
        (64 * 2**20, True, Level.WRONG),
        (64 * 2**20, False, Level.NOTE),
        (0, True, Level.WRONG),
        (GIB, True, Level.OK),
    ],
)
def test_shared_memory(monkeypatch: pytest.MonkeyPatch, free: int, spread: bool, level: Level) -> None:
    told = SimpleNamespace(f_bavail=free // 4096, f_blocks=2 * GIB // 4096, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    (found,) = machine.shared_memory_found(spread)
    assert found.level is level
    assert bool(found.remedy) == (level is not Level.OK)


def test_no_shared_memory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SHM", Path("/no/shm"))
    (found,) = machine.shared_memory_found(True)
    assert (found.level, "--shm-size" in found.remedy) == (Level.WRONG, True)


@pytest.mark.parametrize(
    ("name", "free", "level"),
    [
        ("models", 100 * GIB, Level.OK),
        ("models", 10 * GIB, Level.NOTE),
        ("temporary", 10 * GIB, Level.OK),
        ("models", 10 * 2**20, Level.WRONG),
        ("temporary", 0, Level.WRONG),
    ],
)
def test_disks(monkeypatch: pytest.MonkeyPatch, name: str, free: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (found,) = machine.disk_found(name)
    assert (found.about, found.level) == (f"disk: {name}", level)
    if level is not Level.OK:
        assert {"models": "AITP_CACHE", "temporary": "TMPDIR"}[name] in found.remedy


def test_a_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody can make a file there, not even root; nor is the folder below it there yet.
    monkeypatch.setenv("AITP_CACHE", "/proc/aitp/cache")
    (found,) = machine.disk_found("models")
    assert found.level is Level.WRONG
    assert "/proc/aitp/cache cannot be written" in found.says


@pytest.mark.parametrize(
    ("programs", "on_gpus", "level", "says"),
    [
        (("gcc", "g++", "ninja"), False, Level.OK, "gcc yes, g++ yes, ninja yes, nvcc no"),
        (("g++", "ninja"), False, Level.WRONG, "gcc missing"),
        (("gcc",), False, Level.WRONG, "g++, ninja missing"),
        (("gcc",), True, Level.NOTE, "FlashInfer"),
        (("gcc", "nvcc"), True, Level.OK, "nvcc yes"),
        ((), True, Level.WRONG, "gcc missing"),
    ],
)
def test_compilers(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    programs: Sequence[str],
    on_gpus: bool,
    level: Level,
    says: str,
) -> None:
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(machine.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    for name in programs:
        (tmp_path / name).touch(mode=0o755)
    (found,) = machine.compilers_found(on_gpus)
    assert found.level is level
    assert says in found.says
