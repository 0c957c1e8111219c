"""What is left of a run, and what each unit of it holds."""

import json
from pathlib import Path

import pytest

from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.tools import units
from tests.aitp_tasks.conftest import Configure, write_shard


def test_what_is_done_is_left_out(configure: Configure) -> None:
    run = Run.open(plan.execute(configure(plan={"group_bytes": 1}))["run"])
    labels = [group.label for group in run.plan.groups]
    assert units.execute(run, "embed")["units"] == [
        {"number": number, "holds": label} for number, label in enumerate(labels)
    ]
    for unit in (0, 2):
        run.commit(Manifest(stage="embed", label=""), run.plan.groups[unit].digest)
    assert units.execute(run, "embed")["units"] == [{"number": 1, "holds": labels[1]}]
    assert len(units.execute(run, "density")["units"]) == 3


def test_the_list_is_small_and_every_unit_is_told_apart_however_long_names_are(
    configure: Configure, root: Path
) -> None:
    folder = root / "corpus" / ("d" * 100)
    for number in range(399):
        write_shard(folder / f"{'x' * 80}-{number:05d}-{'y' * 20}-{number:05d}.parquet", [{"text": "a"}])
    config = configure(dump="d" * 100, plan={"group_bytes": 1, "max_fanout": 400})
    run = Run.open(plan.execute(config)["run"])
    told = units.execute(run, "embed")
    assert len(told["units"]) == len(run.plan.groups) == 400
    assert len(json.dumps(told)) < 2**16
    corpus = [unit["holds"] for unit in told["units"] if unit["holds"].startswith("d")]
    assert len(set(corpus)) == len(corpus)


@pytest.mark.parametrize(
    ("text", "room", "short"),
    [("abc", 3, "abc"), ("abcd", 3, "a…d"), ("abcdef", 4, "ab…f"), ("", 1, "")],
)
def test_the_middle_is_left_out(text: str, room: int, short: str) -> None:
    assert units.shortened(text, room) == short
    assert len(short) <= room
