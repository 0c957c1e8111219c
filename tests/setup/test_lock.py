"""The lock files: every package at one version, with the hashes of what may be installed."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from requirements import lock

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "requirements"
FILES = [*lock.LOCKS, lock.TORCH]


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_one_version_and_its_hashes(name: str) -> None:
    text = (FOLDER / name).read_text()
    pins = lock.versions(text)
    assert pins
    assert pins == sorted(set(pins))
    packages = [pin.split("==")[0] for pin in pins]
    assert len(set(packages)) == len(packages)
    entry = r"[a-z0-9-]+==[^\s\\]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(rf"({entry})+", text)


def test_files_that_are_installed_together_agree() -> None:
    for together in (["airflow.txt", "airflow-dev.txt"], [lock.TORCH, "worker-cpu.txt", "worker-dev.txt"]):
        pins = {pin for name in together for pin in lock.versions((FOLDER / name).read_text())}
        assert len({pin.split("==")[0] for pin in pins}) == len(pins)


def test_the_cpu_torch_stands_in_its_own_file_only() -> None:
    for name in lock.ON_CPU_TORCH:
        assert not re.search(r"^torch==", (FOLDER / name).read_text(), re.MULTILINE)
    (pin,) = lock.versions((FOLDER / lock.TORCH).read_text())
    assert f'"{pin}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert pin in lock.PEERS


@pytest.mark.parametrize("hashes", ["right", "wrong", "none"])
def test_nothing_is_installed_whose_hash_is_not_locked(tmp_path: Path, hashes: str) -> None:
    wheel = made_wheel(tmp_path / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    shown = {"right": digest, "wrong": "0" * 64, "none": ""}[hashes]
    requirements = tmp_path / "lock.txt"
    requirements.write_text(
        f"aitp-made==1.0{f' --hash=sha256:{shown}' if shown else ''}\n".replace(" --", " \\\n    --")
    )
    # pip's own configuration says where wheels are: the machine's file, and not the user's.
    (tmp_path / "etc" / "pip").mkdir(parents=True)
    (tmp_path / "etc/pip/pip.conf").write_text(
        f"[global]\nfind-links =\n    {tmp_path / 'etc'}\n    {wheel.parent}\n"
    )
    (tmp_path / "tools").symlink_to(REPOSITORY / ".venv/tools")
    done = subprocess.run(
        [FOLDER / "install.sh", tmp_path / "made", REPOSITORY / ".venv/worker/bin/python", requirements],
        env={
            "PATH": "/usr/bin:/bin",
            "UV_OFFLINE": "1",
            "HOME": str(tmp_path),
            "XDG_CONFIG_DIRS": str(tmp_path / "etc"),
        },
        capture_output=True,
        text=True,
    )
    installed = list((tmp_path / "made").glob("lib/python*/site-packages/aitp_made.py"))
    assert (done.returncode == 0, len(installed)) == ((True, 1) if hashes == "right" else (False, 0)), (
        done.stderr
    )
    if hashes != "right":
        assert "hash" in done.stderr.lower()


def made_wheel(folder: Path) -> Path:
    """A wheel of one module."""
    import zipfile

    folder.mkdir()
    path = folder / "aitp_made-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aitp_made.py", "")
        archive.writestr(
            "aitp_made-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: aitp-made\nVersion: 1.0\n"
        )
        archive.writestr(
            "aitp_made-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("aitp_made-1.0.dist-info/RECORD", "aitp_made.py,,\n")
    return path


def test_hashes_of_both_pythons_come_together() -> None:
    one = {
        "name": "both", "version": "1", "wheels": [{"hashes": {"sha256": "b"}}], "sdist": {"hashes": {"sha256": "c"}},
    }  # fmt: skip
    other = {
        "name": "both",
        "version": "1",
        "wheels": [{"hashes": {"sha256": "a"}}, {"hashes": {"sha256": "b"}}],
    }
    source_only = {"name": "alone", "version": "2", "sdist": {"hashes": {"sha256": "d"}}}
    assert lock.merged([[one], [other, source_only]]) == [("alone==2", ["d"]), ("both==1", ["a", "b", "c"])]
    assert lock.entry(("both==1", ["a", "b"])) == "both==1 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n"
    assert lock.versions(lock.entry(("both==1", ["a", "b"]))) == ["both==1"]
