"""Writes the lock files of ``requirements/`` from pyproject.toml: every version with its hashes.

    python requirements/lock.py UV PIP

Each file is the closure of some extras, resolved for Python 3.11. Pins of the file that is
there stay as long as pyproject.toml allows them. Then the same pins are resolved for 3.12:
they have to hold there too, and to lack nothing.

Of each package only those files are listed that x86-64 Linux can install on one of the two,
with the source: uv itself would list the wheels of all systems, twenty times as many lines.

torch's CPU build is not on every index, so its line in ``torch-cpu.txt`` is written by hand
and stands in no other file.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
TORCH = "torch-cpu.txt"
PYTHONS = ("3.11", "3.12")
#: Debian 12's glibc, the oldest that a worker is built on.
PLATFORM = "x86_64-manylinux_2_36"
#: What benchmarks/embed.py and difference.py compare with; their pins are older than the worker's.
PEERS = (
    "optimum-intel[openvino]",
    "optimum-onnx[onnxruntime]",
    "fastembed",
    "sentence-transformers",
    "torch==2.13.0+cpu",
    "KDEpy",
)
#: File: what it is the closure of, extras of pyproject.toml or packages, and the file whose pins it shares.
LOCKS: Mapping[str, tuple[Sequence[str], str | None]] = {
    "airflow.txt": (["--extra=airflow"], None),
    "worker-gpu.txt": (["--extra=worker-gpu"], None),
    "worker-cpu.txt": (["--extra=worker-cpu"], None),
    "airflow-dev.txt": (
        ["--extra=dev", "--extra=sinks", "--extra=browser", "--extra=manifests"],
        "airflow.txt",
    ),
    "worker-dev.txt": (
        ["--extra=dev", "--extra=demo", "--extra=quantised", "--extra=readers"],
        "worker-cpu.txt",
    ),
    "peers.txt": (PEERS, None),
}
#: Those that run on torch's CPU build; only they look at local wheels.
ON_CPU_TORCH = ("worker-cpu.txt", "worker-dev.txt", "peers.txt")


def main() -> None:
    """Write all lock files.

    Raises:
        SystemExit: a resolution failed, or the pins do not hold on every Python.
    """
    uv, pip = sys.argv[1:]
    links = subprocess.run(
        [FOLDER / "links.sh", pip], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    for name, (wanted, shares) in LOCKS.items():
        print(f"lock: {name}")
        local = {"UV_FIND_LINKS": ",".join(links)} if links and name in ON_CPU_TORCH else {}
        with tempfile.TemporaryDirectory() as folder:
            text = lock(Compiler(uv, local, Path(folder)), name, wanted, shares)
        (FOLDER / name).write_text(text)


class Compiler:
    """Runs ``uv pip compile``, with the settings of this project and files in a folder of its own."""

    def __init__(self, uv: str, environment: Mapping[str, str], folder: Path) -> None:
        self._uv = uv
        self._environment = {**os.environ, **environment}
        self.folder = folder

    def __call__(self, output: Path, *arguments: str | Path) -> None:
        """Compile into ``output``; pins that stand there already are preferred."""
        command = [self._uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        done = subprocess.run(
            [*command, *map(str, arguments), "-o", str(output)],
            cwd=FOLDER.parent,
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            sys.exit(f"error: {output.name} could not be resolved, see above")


def lock(compiler: Compiler, name: str, wanted: Sequence[str], shares: str | None) -> str:
    """The text of one lock file."""
    pins = compiler.folder / name
    if (FOLDER / name).exists():
        pins.write_text("\n".join(versions((FOLDER / name).read_text())) + "\n")
    source = compiler.folder / "wanted.in"
    source.write_text("".join(f"{one}\n" for one in wanted if not one.startswith("--")))
    arguments: list[str | Path] = [one for one in wanted if one.startswith("--")]
    arguments.append("pyproject.toml" if arguments else source)
    on_cpu = name in ON_CPU_TORCH
    for other in filter(None, [shares, TORCH if on_cpu else None]):
        arguments += ["--constraint", FOLDER / other]
    compiler(
        pins, *arguments, "--python-version", PYTHONS[0], *(["--no-emit-package=torch"] if on_cpu else [])
    )
    for python in PYTHONS[1:]:
        _check_closure(compiler, pins, arguments, python, on_cpu)
    found = [_files(compiler, pins, python) for python in PYTHONS]
    return "".join(map(entry, merged(found)))


def versions(text: str) -> list[str]:
    """The ``name==version`` of each entry of a lock file, without hashes."""
    return [line.removesuffix("\\").strip() for line in text.splitlines() if line[:1].isalnum()]


def _check_closure(
    compiler: Compiler, pins: Path, arguments: Sequence[str | Path], python: str, on_cpu: bool
) -> None:
    """Resolve the same with these pins on another Python: nothing may be missing."""
    # A machine has the CPU torch for one Python at most; what torch wants is in the pins already.
    override = compiler.folder / "override.in"
    override.write_text("torch; sys_platform == 'never'\n" if on_cpu else "")
    output = compiler.folder / f"on-{python}-{pins.name}"
    compiler(output, *arguments, "--constraint", pins, "--override", override, "--python-version", python)
    missing = set(versions(output.read_text())) - set(versions(pins.read_text()))
    if missing:
        sys.exit(f"error: {pins.name}: Python {python} needs {sorted(missing)} too: add it to pyproject.toml")


def _files(compiler: Compiler, pins: Path, python: str) -> list[dict[str, Any]]:
    """What an index has of these very versions for one Python, as entries of a pylock.toml."""
    output = compiler.folder / f"pylock.on-{python.replace('.', '')}.toml"
    compiler(
        output, pins, "--no-deps", "--python-version", python, "--python-platform", PLATFORM,
        "--format", "pylock.toml",
    )  # fmt: skip
    packages: list[dict[str, Any]] = tomllib.loads(output.read_text())["packages"]
    return packages


def merged(found: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, list[str]]]:
    """Each ``name==version`` with the SHA-256 of all files found of it."""
    hashes: dict[str, set[str]] = {}
    for package in (package for packages in found for package in packages):
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        pin = f"{package['name']}=={package['version']}"
        hashes.setdefault(pin, set()).update(file["hashes"]["sha256"] for file in files)
    return [(pin, sorted(hashes[pin])) for pin in sorted(hashes)]


def entry(locked: tuple[str, Sequence[str]]) -> str:
    """One entry of a lock file."""
    pin, hashes = locked
    return " \\\n    ".join([pin, *(f"--hash=sha256:{one}" for one in hashes)]) + "\n"


if __name__ == "__main__":
    main()
