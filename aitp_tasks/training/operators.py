"""DeepSpeed's compiled operators for processors: built once a machine, copied for each job.

PyTorch guards a shared folder of compiled extensions by a lock file that a
killed process leaves behind, on which every later one waits for ever. Here the
folder is built aside and moved into place as a whole, and each job loads from
its own copy: a lock left behind goes with the job.

The setup builds them ahead of the first run.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from aitp_tasks.errors import TransientError
from aitp_tasks.records import digest

_STANDARD_ERROR = 2
log = logging.getLogger(__name__)

#: Of each package, one file that the operators are compiled from; ninja goes by their times.
_SOURCES = {"torch": "torch/include/torch/extension.h", "deepspeed": "deepspeed/ops/csrc/cpu/comm/shm.cpp"}
_BUILD = "from deepspeed.ops.op_builder.cpu import comm; comm.ShareMemCommBuilder().load(verbose=False)"


def provide(target: Path) -> None:
    """Fill ``target``, a new folder, with the operators, building them when this machine has none.

    Raises:
        TransientError: the compiler failed; its output is in the log.
    """
    # With times: ninja builds anew what looks older than its sources.
    shutil.copytree(build(), target, copy_function=shutil.copy2)


def environment(folder: Path) -> dict[str, str]:
    """Variables that make PyTorch load from ``folder`` and find ninja beside the interpreter."""
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {"TORCH_EXTENSIONS_DIR": str(folder), "DS_ACCELERATOR": "cpu", "PATH": os.pathsep.join(programs)}


def build() -> Path:
    """The folder of this machine's operators, built now when it does not exist.

    Raises:
        TransientError: the compiler failed; its output is in the log.
    """
    folder = _cache() / _identity()
    if folder.is_dir():
        return folder
    log.info("building DeepSpeed's operators, once on this machine")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BUILD],
            env={**os.environ, **environment(aside)},
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
        )
        if done.returncode != 0:
            raise TransientError(
                f"DeepSpeed's operators could not be built (code {done.returncode}, see the output above): "
                "g++ and ninja are needed"
            )
        try:
            aside.rename(folder)
        except OSError:
            # Another process was first.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aitp" / "operators"


def _identity() -> str:
    """What the build depends on: versions, where they lie, and the processor (``-march=native``)."""
    features = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    )
    packages = []
    for name, source in _SOURCES.items():
        installed = distribution(name)
        # Whole seconds: an image keeps no more, and a build from before it was packed is still that build.
        packages.append([name, installed.version, int(os.stat(str(installed.locate_file(source))).st_mtime)])
    return digest.of_value([sys.version, sys.prefix, features, packages])
