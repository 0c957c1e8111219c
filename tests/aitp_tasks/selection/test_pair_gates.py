"""Gates of pairs without a model: language, length, opening, source."""

from typing import Any

import pytest

from aitp_tasks.config import Assemble
from aitp_tasks.selection import pair_gates

ENGLISH = "Why do the leaves of most trees turn yellow in autumn, and what becomes of their green?"
GERMAN = "Warum werden die Blätter der meisten Bäume im Herbst gelb, und was wird aus ihrem Grün?"


def pair(number: int, question: str, answer: str = "Because.", source: str = "web") -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"pair_id": f"{number:04d}", "messages": messages, "source": source}


@pytest.mark.parametrize(
    ("settings", "question", "answer", "reason"),
    [
        ({}, "", "", None),
        ({"min_question_words": 3}, "Why so?", "", "question_too_short"),
        ({"min_question_words": 2}, "Why so?", "", None),
        ({"max_question_words": 2}, "Why is that?", "", "question_too_long"),
        ({"min_answer_words": 1}, "Why?", "…", "answer_too_short"),
        ({"max_answer_words": 3}, "Why?", "One two three.", None),
        ({"max_answer_words": 2}, "Why?", "One two three.", "answer_too_long"),
        # Estimated: two characters of Chinese are a word.
        ({"max_question_words": 4}, "蜜蜂为什么飞", "", None),
        ({"min_question_words": 4}, "蜜蜂为什么飞", "", "question_too_short"),
        ({"languages": "en"}, ENGLISH, "Their green decays first.", None),
        ({"languages": "en"}, GERMAN, "Ihr Grün zerfällt zuerst.", "other_language"),
        ({"languages": ["en", "de"]}, GERMAN, "Ihr Grün zerfällt zuerst.", None),
        # What cannot be told stays.
        ({"languages": "en"}, "f(x) = 2 * x + 1; return x", "", None),
        ({"languages": "en"}, "", "", None),
    ],
)
def test_single_pairs(settings: dict[str, Any], question: str, answer: str, reason: str | None) -> None:
    assert pair_gates.closed(pair(0, question, answer), Assemble(**settings)) == reason


def test_of_one_source_the_first_stay() -> None:
    pairs = [pair(number, f"Question {number}?", source="ab"[number % 3 == 0]) for number in range(9)]
    found = pair_gates.crowded(pairs, Assemble(max_pairs_per_source=4))
    assert found == dict.fromkeys(["0007", "0008"], "over_source_cap")


def test_of_one_opening_a_share_stays() -> None:
    pairs = [pair(number, f"What is the use of {number}?") for number in range(6)]
    pairs += [pair(number, f"Number {number} is what?") for number in range(6, 10)]
    pairs += [pair(10, "WHAT, is THE use then?")]
    # Three of eleven are 0.28.
    found = pair_gates.crowded(pairs, Assemble(max_same_opening=0.28))
    assert found == dict.fromkeys(["0003", "0004", "0005", "0010"], "same_opening")
    assert len(pair_gates.crowded(pairs, Assemble(max_same_opening=0.001))) == 6


def test_what_is_over_its_source_counts_for_no_opening() -> None:
    pairs = [pair(number, "What is the use?") for number in range(4)]
    found = pair_gates.crowded(pairs, Assemble(max_pairs_per_source=2, max_same_opening=0.5))
    assert list(found.values()) == ["over_source_cap", "over_source_cap", "same_opening"]


def test_nothing_is_closed_by_default() -> None:
    pairs = [pair(number, "Same?") for number in range(50)]
    assert pair_gates.crowded(pairs, Assemble()) == {}
    assert pair_gates.crowded([], Assemble(max_same_opening=0.5, max_pairs_per_source=1)) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_answer_words": 5, "max_answer_words": 4}, "no pair would be left"),
        ({"languages": "english"}, "languages"),
        ({"languages": "en, en"}, "one is named twice"),
        ({"max_text_similarity": 0.5}, "max_text_similarity"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assemble(**settings)
