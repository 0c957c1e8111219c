"""The estimate of the demo against the run that follows, stage by stage, without Airflow.

make bench-estimate
"""

import json
import shutil
import tempfile
from pathlib import Path

from measure import processor, timed

from aitp_tasks.tools.estimate import summary
from demo import REPOSITORY, measure


def main() -> None:
    """Estimate, run, and print both."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        shutil.copytree(REPOSITORY / ".aitp" / "data", folder, dirs_exist_ok=True)
        config = str(REPOSITORY / "configs/demo.yaml")
        told, took, _ = timed(
            ["estimate", "--config", config, "--set", f"root=file://{folder}", "--price", "2.5"]
        )
        estimated = {name: round(stage["hours"] * 3600, 1) for name, stage in told["stages"].items()}
        print(summary.render(told), flush=True)
        run = measure(Path(folder))
    measured = run.pop("seconds")
    totals = [round(sum(stages.values()), 1) for stages in (estimated, measured)]
    figures = {
        "estimated_seconds": totals[0],
        "measured_seconds": totals[1],
        "ratio": round(totals[0] / totals[1], 3),
        "stages": {name: {"estimated": estimated[name], "measured": measured[name]} for name in measured},
        "estimated": {name: told[name] for name in ("documents", "selected", "questions", "kept", "pairs")},
        "found": {name: run[name] for name in ("documents", "selected", "questions", "kept", "pairs")},
        "seconds_of_estimate": round(took, 1),
        "processor": processor(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
