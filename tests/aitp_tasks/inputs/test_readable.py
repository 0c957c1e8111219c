"""What of a text can be seen, by Unicode's own property of what is ignored."""

import pytest

from aitp_tasks.inputs.readable import is_blank


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n\t", "\u3000\u00a0", "\u200b", "\u200b \u200d\u2060\ufeff\u00ad", "\u115f\u3164\uffa0"),
        *("\ufe0f", "\U000e0061\U000e007f", "\u202a\u202c", "\u2066 \u2069", "\u180e", "\u034f", "\u2800"),
    ],
    ids=ascii,
)
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "\u200ba",
            "0",
            "\u0600",
            "\u06dd",
            "\u0301",
            "\u4f60",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        *("\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\ufffd", "\ue000", "\x00", "\u2028x"),
    ],
    ids=ascii,
)
def test_what_shows_something_is_not(text: str) -> None:
    assert not is_blank(text)
