"""Seconds and peak memory of every stage of the demo, without Airflow.

Runs the demo's configuration over the demo's data in a folder of its own, one
``aitp`` process a unit as Airflow would, one after another. Seconds are of the
whole process, start-up included; memory is the largest sum of resident sizes of
the process tree, sampled ten times a second. The last line of output is JSON.

    make bench-demo
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from measure import processor, timed

from aitp_tasks.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]


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


if __name__ == "__main__":
    main()
