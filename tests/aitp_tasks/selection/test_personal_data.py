"""Personal data: counted by kind, masked where named and nowhere else."""

import sys
from typing import Any

import pytest

from aitp_tasks.config import Assemble
from aitp_tasks.selection.personal_data import PersonalData
from tests.aitp_tasks.selection.test_pair_gates import pair

TEXT = (
    "Write to anna.b@example.org or call +1 (555) 123-4567; card 4111 1111 1111 1111, SSN 123-45-6789, "
    "host 192.168.0.1."
)


def masked(text: str, *kinds: str) -> str:
    personal = PersonalData(Assemble.model_validate({"mask": kinds, "personal_data": True}))
    (found,) = personal.masked("new_pairs", [pair(0, text, "So.")])
    assert found["messages"][1]["content"] == "So."
    return str(found["messages"][0]["content"])


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], TEXT),
        (["email"], TEXT.replace("anna.b@example.org", "[EMAIL]")),
        (["phone"], TEXT.replace("+1 (555) 123-4567", "[PHONE]")),
        (
            ["credit_card", "ssn"],
            TEXT.replace("4111 1111 1111 1111", "[CREDIT_CARD]").replace("123-45-6789", "[SSN]"),
        ),
        (["ip_address"], TEXT.replace("192.168.0.1", "[IP_ADDRESS]")),
    ],
)
def test_what_is_named_is_masked_and_nothing_else(kinds: list[str], expected: str) -> None:
    assert masked(TEXT, *kinds) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Version 3.11 of 2026 has 1,000 fixes.",
        "x = a @ b",
        "中文，没有地址。",
        "ab@",
        "Emoji 😀 a@b.org!",
    ],
)
def test_what_holds_none_stays_letter_by_letter(text: str) -> None:
    assert masked(text, "email", "phone", "ssn", "credit_card", "ip_address") == text.replace(
        "a@b.org", "[EMAIL]"
    )


def test_rows_and_places_are_counted_by_dataset() -> None:
    personal = PersonalData(Assemble.model_validate({"mask": "email"}))
    pairs = [pair(0, "a@b.org and c@d.org", "e@f.org"), pair(1, "None", "10.1.2.3"), pair(2, "None", "None")]
    assert [one["pair_id"] for one in personal.masked("new_pairs", pairs)] == ["0000", "0001", "0002"]
    personal.count("sft", ["a@b.org", "c@d.org"])
    assert personal.figures() == {
        "new_pairs": {
            "email": {"found": 3, "masked": 3, "rows": 1},
            "ip_address": {"found": 1, "masked": 0, "rows": 1},
        },
        "sft": {"email": {"found": 2, "masked": 0, "rows": 1}},
    }
    assert pairs[0]["messages"][0]["content"] == "a@b.org and c@d.org"


def test_by_default_nothing_is_looked_for() -> None:
    personal = PersonalData(Assemble())
    pairs: list[dict[str, Any]] = [pair(0, "a@b.org")]
    assert list(personal.masked("new_pairs", pairs)) == pairs
    personal.count("sft", ["a@b.org"])
    assert not personal
    assert personal.figures() == {}


@pytest.mark.parametrize(
    "text", ["a@" * 20_000, "1-" * 20_000, "a." * 20_000 + "@", "9" * 40_000, "(" * 40_000]
)
def test_no_text_takes_long(text: str) -> None:
    # Linear rules need milliseconds; one that goes back over and over again runs into the tests' timeout.
    assert masked(text, "email", "phone", "credit_card")


def test_nothing_is_sent_anywhere() -> None:
    masked(TEXT, "email")
    assert "datafog.telemetry" not in sys.modules
