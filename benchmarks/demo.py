"""Seconds and peak memory of every stage of the demo, without Airflow.

Runs the demo's configuration over the demo's data in a folder of its own, one
``aitp`` process a unit as Airflow would, one after another. Seconds are of the
whole process, start-up included; memory is the largest sum of resident sizes of
the process tree, sampled ten times a second. The last line of output is JSON.

    make bench-demo
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from aitp_tasks.cli import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]
_SAMPLE_SECONDS = 0.1


def main() -> None:
    """Run all stages and print the figures."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        shutil.copytree(REPOSITORY / ".aitp" / "data", folder, dirs_exist_ok=True)
        figures = measure(Path(folder))
    figures["seconds_total"] = round(sum(figures["seconds"].values()), 1)
    figures["processor"] = processor()
    print(json.dumps(figures))


def measure(root: Path) -> dict[str, Any]:
    """Seconds, peak memory in MB and number of units of each stage."""
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    units: dict[str, int] = {"": 1}
    results: dict[str, dict[str, Any]] = {}
    run = ""
    for stage in STAGES:
        for unit in range(units[stage.fans_out]):
            where = (
                ["--config", str(REPOSITORY / "configs/demo.yaml"), "--set", f"root=file://{root}"]
                if stage.name == "plan"
                else ["--run", run] + (["--unit", str(unit)] if stage.fans_out else [])
            )
            result, took, peak = timed([stage.name, *where])
            results[stage.name] = result
            run = result["run"]
            units |= {name: result[name] for name in ("embed_units", "parts") if name in result}
            seconds[stage.name] = round(seconds.get(stage.name, 0.0) + took, 1)
            memory[stage.name] = max(memory.get(stage.name, 0.0), peak)
            print(f"{stage.name} unit={unit} seconds={took:.1f} peak_mb={peak:.0f}", flush=True)
    return {
        "seconds": seconds,
        "peak_mb": memory,
        "embed_units": units["embed_units"],
        "parts": units["parts"],
        **{name: results["report"][name] for name in ("documents", "selected", "questions", "kept", "pairs")},
    }


def timed(arguments: list[str]) -> tuple[dict[str, Any], float, float]:
    """Run one stage; its result, seconds and peak memory of its process tree in MB."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("aitp"), *arguments], stdout=subprocess.PIPE, stderr=errors
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


if __name__ == "__main__":
    main()
