"""What a text may do to a terminal: nothing."""

import pytest

from aitp_tasks.tools.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, Ünïcödé 你好", "plain text, Ünïcödé 你好"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("two\nlines\tand\rmore", r"two\nlines\tand\rmore"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("", ""),
    ],
)
def test_what_does_not_print_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut() -> None:
    assert printable("abcdef", 3) == "abc …"
    assert printable("abc", 3) == "abc"
