"""Rows come back once each, in an order that follows from them alone."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.dataset.spool import Spool

ROWS: list[dict[str, Any]] = [
    {"number": number, "text": "日\n\u2028\ud83d" * (number % 3)} for number in range(2000)
]


def spooled(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    spool = Spool(folder)
    for row in rows:
        spool.add(row)
    return list(spool.rows())


@pytest.mark.parametrize("rows", [[], ROWS[:1], [ROWS[5]] * 3, ROWS], ids=["none", "one", "equal", "many"])
def test_the_order_is_that_of_the_digests(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    mixed = random.Random(0).sample(rows, len(rows))
    expected = sorted(
        rows, key=lambda row: hashlib.blake2b(json.dumps(row).encode(), digest_size=16).digest()
    )
    assert spooled(tmp_path, mixed) == spooled(tmp_path, rows) == expected
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_read_is_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add(ROWS[0])
    spool.close()
    assert list(tmp_path.iterdir()) == []
