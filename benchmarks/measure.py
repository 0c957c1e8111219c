"""What the benchmarks beside this module share: running their parts, and measuring seconds and memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import psutil

_SAMPLE_SECONDS = 0.1
_PASSES = 3
_LONG_SECONDS = 60.0

Found = TypeVar("Found")


def run_parts(
    parts: Mapping[str, Callable[[Path], dict[str, Any]]],
    names: list[str],
    known: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Run the named parts, or all, each in a temporary folder; print their figures.

    One line ``name json`` after each; the last line is the figures of all, what is ``known``
    of the machine, and the processor.
    """
    figures: dict[str, Any] = {}
    for name in names or list(parts):
        with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
            found = parts[name](Path(folder))
        print(name, json.dumps(found), flush=True)
        figures |= found
    print(json.dumps(figures | {**known, "processor": processor()}))


def median_of_passes(work: Callable[..., Found], *arguments: Any) -> tuple[float, Found]:
    """Median seconds of three passes, of one where the first takes over a minute; what the last gave."""
    taken: list[float] = []
    while len(taken) < _PASSES and not (taken and taken[0] > _LONG_SECONDS):
        start = time.perf_counter()
        found = work(*arguments)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), found


def timed(
    arguments: list[str], environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], float, float]:
    """Run one stage; its result, seconds and peak memory of its process tree in MB.

    Args:
        arguments: of ``aitp``.
        environment: variables beside this process's own.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("aitp"), *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(_SAMPLE_SECONDS)
        assert process.stdout is not None
        output = process.stdout.read()
        if process.returncode:
            errors.seek(0)
            sys.exit(errors.read().decode(errors="replace")[-3000:])
    return json.loads(output), time.monotonic() - start, round(peak / 1e6, 1)


def tree_memory(pid: int) -> float:
    """Resident bytes of a process and all below it."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return float(total)


def processor() -> str:
    """Name of the processor and number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, 'unknown')}, {psutil.cpu_count()} cores"
