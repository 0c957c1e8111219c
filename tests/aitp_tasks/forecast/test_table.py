"""Durations as people say them."""

import pytest

from aitp_tasks.forecast import table


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0 s"),
        (41.4 / 3600, "41 s"),
        (365 / 3600, "6 min 05 s"),
        (59.999 / 60, "1 h 00 min"),
        (12.5, "12 h 30 min"),
        (1234.0, "1,234 h 00 min"),
    ],
)
def test_durations(hours: float, text: str) -> None:
    assert table.duration(hours) == text
