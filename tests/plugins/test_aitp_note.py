"""The line in a run's note; tests/e2e/test_line.py has a real Airflow."""

import pytest

import aitp_note


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ("", "3 GPU-hours", "estimate: 3 GPU-hours"),
        ("seen by Ada", "3", "seen by Ada\nestimate: 3"),
        ("estimate: 2\nseen by Ada", "3", "seen by Ada\nestimate: 3"),
        ("estimates are wrong", "3", "estimates are wrong\nestimate: 3"),
        ("", "two\nlines", "estimate: two lines"),
        # Where people have written all that there is room for, theirs stays.
        ("a" * 995, "3", "a" * 995),
        ("a" * 988, "3", "a" * 988 + "\nestimate: 3"),
    ],
)
def test_a_line_takes_the_place_of_its_own_and_of_no_other(before: str, text: str, after: str) -> None:
    assert aitp_note.with_line(before, "estimate", text) == after
