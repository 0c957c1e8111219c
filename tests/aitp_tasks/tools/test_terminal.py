"""What a text may do to a terminal: nothing."""

import pytest

from aitp_tasks.tools.terminal import columns, printable, side_by_side, wrapped


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


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("a b c", 5, ["a b c"]),
        ("one two three", 7, ["one two", "three"]),
        ("unbreakable", 4, ["unbr", "eaka", "ble"]),
        ("a\nb\n", 9, ["a", "b"]),
        ("潮汐はなぜ", 4, ["潮汐", "はな", "ぜ"]),
        ("潮", 1, ["潮"]),
        ("a\x1b[31mb\u202ec", 30, ["a\\x1b[31mb\\u202ec"]),
    ],
)
def test_a_text_is_wrapped_and_none_of_it_is_lost(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


def test_two_texts_stand_beside_each_other() -> None:
    assert side_by_side("one\ntwo", "潮 b\nc\nd", 4) == ["one  | 潮 b", "two  | c", "     | d"]
    assert side_by_side("潮\nx", "", 4) == ["潮   |", "x    |"]
    assert [columns(line.partition("|")[0]) for line in side_by_side("潮潮\nab", "x", 4)] == [5, 5]
