"""Words as they are compared, whatever they were typed with."""

import pytest

from aitp_tasks.texts import plain


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Paid 1,000 euros!", "paid 1.000 EUROS"),
        ("1'234'567", "1,234,567"),
        ("1 000 km", "1000 km"),
        ("1\u00a0000 km", "1,000 km"),
        ("ﬁne ＡＢＣ", "fine abc"),
        ("Straße", "STRASSE"),
        ("co\u00adoperate\u200b now", "cooperate now"),
        ("cafe\u0301", "café"),
        ("**bold** `x`\n\t- y", "bold x y"),
        ("“Don’t”", "don't"),
        ("中国，首都", "中国首都"),
    ],
)
def test_the_same_words(text: str, same: str) -> None:
    assert plain.split(text) == plain.split(same) != []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,5 and 2.25", ["1", "5", "and", "2", "25"]),
        ("in 1999 200 people", ["in", "1999", "200", "people"]),
        ("1,000.50", ["1000", "50"]),
        ("1,000.000", ["1000", "000"]),
        ("12,34,567", ["12", "34", "567"]),
        ("a &amp; b", ["a", "amp", "b"]),
        ("東京tower", ["東", "京", "tower"]),
        ("", []),
    ],
)
def test_what_stays_apart(text: str, expected: list[str]) -> None:
    assert plain.split(text) == expected
