"""The figures of a unit that is under way, and how long it will take."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from aitp_tasks.encoder import progress
from aitp_tasks.encoder.batches import Answer, Backend, Batch
from aitp_tasks.encoder.progress import Progress
from aitp_tasks.inputs import footers
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed
from aitp_tasks.stages.plan import execute as plan
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

pytestmark = pytest.mark.slow

_DEVICE = cast(Backend, SimpleNamespace(memory_mb=lambda: 511.6))

Lines = Callable[[], list[dict[str, str]]]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The values that each logged line of figures tells, by name."""
    caplog.set_level(logging.INFO, progress.__name__)

    def told() -> list[dict[str, str]]:
        records = [record for record in caplog.records if record.name == progress.__name__]
        return [dict(re.findall(r"(\w+)=(\S+)", record.getMessage())) for record in records]

    return told


def answer(*lengths: int) -> Answer:
    """A batch of sequences of these lengths, the longest first."""
    sequences = [np.ones(length, np.int32) for length in lengths]
    return Answer(Batch(range(len(lengths)), sequences), np.zeros((len(lengths), 4), np.float32))


def test_a_line_tells_the_figures_every_few_seconds(clock: Clock, lines: Lines) -> None:
    unit = Progress("news", 1000)
    with unit.working():
        unit.finished(40)
        for _ in range(9):
            clock.now += 2
            unit.answered(answer(10, 8), _DEVICE)
    assert [line["tokens_per_second"] for line in lines()] == ["9", "9", "9"]
    assert lines()[0] == {
        "label": "news",
        "rows_embedded_now": "40",
        "busy_seconds": "6.0",
        "rows_per_second": "6.7",
        "tokens_per_second": "9",
        "padding": "0.1",
        "device_mb": "512",
        "seconds_left": "144",
    }


def test_figures_are_those_counted_by_hand(clock: Clock) -> None:
    unit = Progress("news", 100)
    clock.now += 60
    for lengths in ((7, 5, 3), (4, 4)):
        with unit.working():
            unit.answered(answer(*lengths), _DEVICE)
            clock.now += 2
            unit.finished(len(lengths))
        clock.now += 30
    assert unit.figures() == {
        "rows_embedded_now": 5,
        "busy_seconds": 4.0,
        "rows_per_second": 1.2,
        "tokens_per_second": 6,
        "padding": round(1 - 23 / 29, 4),
        "device_mb": 512,
    }


def test_a_unit_that_had_nothing_to_do_has_figures_of_zero(clock: Clock) -> None:
    unit = Progress("news", 5)
    unit.skip(5)
    assert set(unit.figures().values()) == {0}


@pytest.mark.parametrize(
    ("planned", "skipped", "finished", "left"),
    [
        pytest.param(1000, 0, 100, "90", id="as planned"),
        pytest.param(1000, 500, 100, "40", id="half was done before"),
        pytest.param(100, 0, 100, "0", id="all done"),
        pytest.param(90, 0, 100, "0", id="more than planned"),
        pytest.param(1000, 0, 0, "?", id="before the first chunk"),
        pytest.param(1000, 500, 0, "?", id="before the first chunk of now"),
        pytest.param(None, 0, 100, "?", id="rows not known"),
        pytest.param(None, 500, 100, "?", id="rows not known, some done before"),
    ],
)
def test_the_seconds_left_follow_from_the_rows(
    clock: Clock, lines: Lines, planned: int | None, skipped: int, finished: int, left: str
) -> None:
    unit = Progress("news", planned)
    unit.skip(skipped)
    with unit.working():
        clock.now += 10
        unit.finished(finished)
        unit.answered(answer(3), _DEVICE)
    assert [line["seconds_left"] for line in lines()] == [left]


@pytest.mark.parametrize(
    ("name", "counted", "left"),
    [("a.parquet", True, r"\d+"), ("a.jsonl", True, r"\d+"), ("a.jsonl", False, r"\?")],
)
def test_a_shard_that_was_not_counted_leaves_the_time_open(
    configure: Configure,
    root: Path,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    counted: bool,
    left: str,
) -> None:
    first = root / "sft/sums" / name
    if name == "a.jsonl":
        first.write_text(json.dumps(alpaca(1)[0]), encoding="utf-8")
    else:
        write_shard(first, alpaca(1))
    if not counted:
        monkeypatch.setattr(footers, "_counted", lambda *_: None)
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    embed.execute(Run.open(plan(configure())["run"]), 1)
    last = lines()[-1]
    assert last["rows_embedded_now"] == "1"
    assert re.fullmatch(left, last["seconds_left"])
