"""Seconds and memory of one stage as its own process, for the benchmarks beside this module."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_SECONDS = 0.1


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
