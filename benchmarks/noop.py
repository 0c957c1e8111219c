"""Seconds of a unit that finds its work done, and of a plan of what was planned before.

A small dump is planned and embedded; then the same unit and the same plan are run again.
Seconds are medians over the whole process, start-up and exit included. The last line of
output is JSON.

    make bench-noop
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from measure import processor, timed

REPOSITORY = Path(__file__).resolve().parents[1]
_PASSES = 9


def main() -> None:
    """Do the work once and time what follows."""
    with tempfile.TemporaryDirectory(prefix="aitp-bench-") as folder:
        write(Path(folder, "corpus/dump/dump-000000.parquet"), {"text": "Of rivers, ports and grain."})
        write(Path(folder, "sft/one/one-000000.parquet"), {"instruction": "Add one.", "output": "Two."})
        settings = (f"root=file://{folder}", "dump=dump", "sft=one")
        plan = ["plan", "--config", str(REPOSITORY / "configs/demo.yaml")]
        for setting in settings:
            plan += ["--set", setting]
        embed = ["embed", "--run", timed(plan)[0]["run"], "--unit", "0"]
        timed(embed)
        figures = {"noop_unit_seconds": seconds_of(embed), "second_plan_seconds": seconds_of(plan)}
    print(json.dumps(figures | {"processor": processor()}))


def seconds_of(command: list[str]) -> float:
    """Median seconds of a command."""
    taken = []
    for _ in range(_PASSES):
        start = time.monotonic()
        timed(command)
        taken.append(time.monotonic() - start)
    return round(statistics.median(taken), 2)


def write(path: Path, row: dict[str, str]) -> None:
    """A shard of 20 equal rows."""
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row] * 20), path)


if __name__ == "__main__":
    main()
