"""Whatever the text, the gates give a reason or none, the same each time, in linear time."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aitp_tasks.config import Gates
from aitp_tasks.generation.gates import on_answers, on_questions

GATES = Gates()
QUESTION_REASONS = [
    "control_characters",
    "too_short",
    "not_a_question",
    "mentions_document",
    "lacks_material",
    "wrong_language",
    "near_identical",
]
ANSWER_REASONS = [
    "empty",
    "refusal",
    "repeats_itself",
    "cut_off",
    "mentions_document",
    "wrong_language",
    "copies_document",
    "unsupported",
]
#: What a wrong pattern would go back and forth over: runs of separators, of openings, of marks.
REPEATED = [
    "a",
    "the text ",
    ",",
    "\n",
    "```\n",
    "\\begin{a}",
    '"',
    "in A ",
    "the author's ",
    "文中",
    "e\u0301\u0316",
    "„",
    "(",
    "$x ",
    "\\[",
    "a-",
    "the following ",
    "mentioned ",
    "1,",
    "suivantes ",
]
MEGABYTE = 1_000_000

anything = st.text(st.characters(exclude_categories=()), max_size=300)
WORDS = "the text bees why is a 1 . , ? : \n “ ” ``` $$ der 文 か 각 ท é \ud800"
wordy = st.lists(st.sampled_from(WORDS.split(" "))).map(" ".join)
texts = anything | wordy


@settings(max_examples=300)
@given(texts, texts, st.lists(texts, max_size=2))
@example("?", "", [""])
@example("\ud800 why is this", "\ud800", ["\ud800"])
def test_any_question(question: str, document: str, earlier: list[str]) -> None:
    found = on_questions.closed(question, document, earlier, GATES)
    assert found is None or found in QUESTION_REASONS
    assert on_questions.closed(question, document, earlier, GATES) == found
    if found is None:
        assert on_questions.closed(question, document, [question], GATES) == "near_identical"


@settings(max_examples=300)
@given(texts, texts, texts)
@example("", "", "")
@example("\ud800", "\ud800", "\ud800")
def test_any_answer(answer: str, question: str, document: str) -> None:
    found = on_answers.closed(answer, question, document, GATES)
    assert found is None or found in ANSWER_REASONS
    assert on_answers.closed(answer, question, document, GATES) == found


@pytest.mark.parametrize("part", REPEATED)
def test_a_megabyte_is_read_in_linear_time(part: str) -> None:
    text = "What do the bees in " + part * (MEGABYTE // len(part))
    start = time.process_time()
    on_questions.closed(text, text, [text[:-1] + " bees?"], GATES)
    on_answers.closed(text, text, text, GATES)
    # A few seconds; quadratic time would be hours.
    assert time.process_time() - start < 60
