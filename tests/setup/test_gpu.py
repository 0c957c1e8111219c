"""What stands in the way of the GPU worker, on machines that a program in nvidia-smi's place plays."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from requirements import gpu

REPOSITORY = Path(__file__).resolve().parents[2]
H100 = "NVIDIA H100 80GB HBM3, 580.95.05, 9.0, Disabled"
Smi = Callable[[str], None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts a shell script in nvidia-smi's place; an empty one takes nvidia-smi away."""

    def put(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        if script:
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        # Nothing else is on PATH: this machine's own must not answer.
        for name in ("sh", "sleep", "cut", "echo"):
            link = program.parent / name
            if not link.exists():
                link.symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
        monkeypatch.setenv("PATH", str(program.parent))

    return put


def rows(*lines: str, slices: str = "") -> str:
    """Answers as nvidia-smi does: one field alone, all of them, or the list of GPUs and slices."""
    drivers = "; ".join(f"echo '{line.split(',')[1].strip()}'" for line in lines)
    whole = "; ".join(f"echo '{line}'" for line in lines)
    listed = f"echo 'GPU 0: a card (UUID: GPU-1)'; echo '{slices}'"
    return (
        f"case $1 in --query-gpu=driver_version) {drivers};; --query-gpu=name*) {whole};; "
        f"--list-gpus) {listed};; *) exit 2;; esac"
    )


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("", ["nvidia-smi is not on PATH", "580.65", "container toolkit"], id="missing"),
        pytest.param("exec sleep 60", ["no answer within 1 s", "dmesg"], id="hangs"),
        pytest.param(rows("Tesla T4, 470.182.03, 7.5, Disabled"), ["driver is 470.182", "580.65", "update"], id="old driver"),
        pytest.param(rows("A100, 580.64.99, 8.0, Disabled"), ["driver is 580.64", "580.65"], id="one driver before"),
        pytest.param(rows("A100, [N/A], 8.0, Disabled"), ["version that it does not tell"], id="driver says nothing"),
        pytest.param(
            "echo 'Failed to initialize NVML: Insufficient Permissions' >&2; exit 4",
            ["Insufficient Permissions", "code 4", "/dev/nvidia"],
            id="no permission",
        ),
        pytest.param(
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            ["version mismatch", "code 18", "reboot"],
            id="library of another driver",
        ),
        pytest.param("echo 'No devices were found'", ["No devices were found", "modprobe"], id="no device, code 0"),
        pytest.param("echo 'No devices were found'; exit 6", ["code 6", "modprobe"], id="no device"),
        pytest.param("exit 0", ["says 'nothing'", "dmesg"], id="says nothing"),
        pytest.param("kill -9 $$", ["code -9", "dmesg"], id="killed"),
        pytest.param("printf '\\377\\376'; exit 1", ["code 1"], id="no text"),
    ],
)  # fmt: skip
def test_no_gpu_can_be_asked(smi: Smi, monkeypatch: pytest.MonkeyPatch, script: str, told: list[str]) -> None:
    smi(script)
    monkeypatch.setattr(gpu, "TIMEOUT", 1.0)
    with pytest.raises(gpu.RefusalError) as refusal:
        gpu.found()
    for words in told:
        assert words in str(refusal.value)


def test_a_program_that_is_none(smi: Smi, tmp_path: Path) -> None:
    smi("exit 0")
    (tmp_path / "bin" / "nvidia-smi").write_bytes(b"\x7fELF and nothing else")
    with pytest.raises(gpu.RefusalError, match="cannot be started"):
        gpu.found()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param(rows(H100), [], id="one"),
        pytest.param(rows(H100, H100), [], id="two"),
        pytest.param(rows("Odd, name, with commas, 581.1, 12.0, [N/A]"), [], id="commas in its name"),
        pytest.param(rows("Tesla T4, 580.65.06, 7.5, [N/A]"), [], id="just new enough"),
        pytest.param(rows("Tesla V100, 580.95, 7.0, [N/A]"), ["V100 has compute capability 7.0"], id="too old"),
        pytest.param(rows(H100, "P4, 580.95, 6.1, [N/A]"), ["P4 has compute capability 6.1"], id="one of two too old"),
        pytest.param(
            rows("A100, 580.95, 8.0, Enabled"), ["MIG is on, and there is no slice"], id="cut up into nothing"
        ),
        pytest.param(
            rows("A100, 580.95, 8.0, Enabled", slices="  MIG 1g.10gb Device 0: (UUID: MIG-7)"), [], id="slices"
        ),
    ],
)  # fmt: skip
def test_gpus_that_will_and_will_not_do(smi: Smi, script: str, told: list[str]) -> None:
    # The name of the case with commas has them in the field that `rows` takes the driver from.
    smi(script.replace("echo 'name'", "echo '581.1'"))
    messages = gpu.wrong(gpu.found())
    assert len(messages) == len(told)
    for message, words in zip(messages, told, strict=True):
        assert words in message


def test_a_name_may_have_commas(smi: Smi) -> None:
    smi(rows("Odd, name, with commas, 581.1, 12.0, [N/A]").replace("echo 'name'", "echo '581.1'"))
    (found,) = gpu.found()
    assert found == gpu.Gpu("Odd, name, with commas", (581, 1), (12, 0), False)


INFOROM = "WARNING: infoROM is corrupted at gpu 0000:5E:00.0"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        pytest.param(rows(H100, H100) + f"; echo '{INFOROM}'", 2, id="a remark below the answer"),
        pytest.param(rows(H100, "[GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]"), 2, id="one is lost"),
        pytest.param(rows("Tesla X, 580.95, [N/A], [N/A]"), 1, id="no capability told"),
        pytest.param(rows("Tesla T4, 1000.1, 7.5, [N/A]"), 1, id="a driver of four digits"),
    ],
)  # fmt: skip
def test_what_says_nothing_of_a_gpu_is_not_in_the_way(
    smi: Smi, capsys: pytest.CaptureFixture[str], script: str, found: int
) -> None:
    smi(script)
    gpus = gpu.found()
    assert len(gpus) == found
    assert gpu.wrong(gpus) == []
    assert (INFOROM in capsys.readouterr().err) == (INFOROM in script)


def test_a_program_that_no_signal_ends_is_not_waited_for(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits within a driver that hangs."""
    smi("exec sleep 3")
    monkeypatch.setattr(gpu, "TIMEOUT", 0.2)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: None)
    start = time.monotonic()
    with pytest.raises(gpu.RefusalError, match="the driver hangs"):
        gpu.found()
    assert time.monotonic() - start < 2


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]).returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    return folder


def test_a_small_disk_and_little_shared_memory_are_told_with_their_size(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        monkeypatch.setenv("UV_CACHE_DIR", str(small / "cache"))
        messages = gpu.scarce(small, small / "not" / "yet", 8)
        assert [message.split(" has ")[0] for message in messages] == [str(small), str(small)]
        assert "0.0 GiB free" in messages[0]
        assert "8 GPUs need 8.0 GiB" in messages[0]
        assert "size=16G" in messages[0]
        assert "need 16 GiB" in messages[1]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_disk_is_named_once_and_shared_memory_that_is_missing_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "DISK_BYTES", 1 << 60)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    messages = gpu.scarce(tmp_path / "none", tmp_path / "environments", 1)
    assert [message.split(" has ")[0] for message in messages] == [str(tmp_path / "none"), str(tmp_path)]
    monkeypatch.setattr(gpu, "DISK_BYTES", 1)
    monkeypatch.setattr(gpu, "SHARED_BYTES", 1)
    assert gpu.scarce(tmp_path, tmp_path, 1) == []


def test_all_that_is_in_the_way_is_told_at_once(smi: Smi, tmp_path: Path) -> None:
    smi("exec sleep 0")
    python = sys.executable
    program = [python, str(REPOSITORY / "requirements" / "gpu.py"), str(tmp_path)]
    # As a person's shell calls it: isolated, so that nothing that is installed can help.
    done = subprocess.run([*program[:1], "-I", "-S", *program[1:]], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nvidia-smi says 'nothing'")
    smi(rows(H100, "P4, 580.95, 6.1, [N/A]"))
    done = subprocess.run([*program[:1], "-I", "-S", *program[1:]], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gpu: NVIDIA H100 80GB HBM3, compute capability 9.0, driver 580.95" in done.stdout
    assert "P4 has compute capability 6.1" in done.stderr


def test_make_refuses_before_it_downloads(smi: Smi, tmp_path: Path) -> None:
    smi("")
    make = next(f"{folder}/make" for folder in ("/usr/bin", "/bin") if Path(folder, "make").exists())
    done = subprocess.run(
        [make, "--dry-run", "setup-gpu"],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert "requirements/gpu.py" in lines[0], done.stdout + done.stderr
