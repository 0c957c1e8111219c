"""Stands in for ``aitp`` where Airflow's workers are tested: plan and embed are real, what follows is not.

Each call is a line of ``calls`` in the folder that AITP_TEST_FOLDER names; a stage waits while
there is a file ``hold-STAGE`` there.
"""

import json
import os
import sys
import time
from pathlib import Path

from aitp_tasks import cli

REAL = ("line", "plan", "units", "embed")


def main() -> None:
    stage, *arguments = sys.argv[1:]
    folder = Path(os.environ["AITP_TEST_FOLDER"])
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps([stage, *arguments]) + "\n")
    while (folder / f"hold-{stage}").exists():
        time.sleep(0.1)
    if stage in REAL:
        cli.main()
        return
    run = arguments[arguments.index("--run") + 1]
    figures = {"parts": 1, "is_latest": False, "unchanged": True, "to_promote": False, "sets": {}}
    print(json.dumps({"stage": stage, "run": run, "seconds": 0, "label": "made", **figures}))


if __name__ == "__main__":
    main()
