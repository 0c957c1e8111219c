"""Marks are found as cases say whose author had not read the code, and the escape can be taken back."""

import itertools
import random

import pytest

from aitp_tasks.records import marks
from tests.aitp_tasks.dataset.layout_cases import MARKED, Marked


@pytest.mark.parametrize("case", MARKED, ids=lambda case: case.name)
def test_what_a_text_holds(case: Marked) -> None:
    assert set(marks.found(case.text)) == set(case.marks)
    # A plain search for each of them finds the same.
    assert {mark for mark in marks.MARKS if mark in case.text} == set(case.marks)


def texts() -> list[str]:
    """Texts put together of marks, of their pieces and of backslashes, in any order."""
    random_ = random.Random(0)
    pieces = [*marks.MARKS, *(f"{mark[0]}\\{mark[1:]}" for mark in marks.MARKS)]
    pieces += ["<", "[", "\\", "\\\\", "|", ">", "]", "im_end|>", "/s>", "<SYS>>", " ", "word", "｜"]
    return ["".join(random_.choices(pieces, k=random_.randint(1, 12))) for _ in range(5000)]


def test_an_escaped_text_holds_no_mark_and_comes_back() -> None:
    held = 0
    for text in itertools.chain(texts(), marks.MARKS, [case.text for case in MARKED]):
        escaped = marks.escape(text)
        assert not any(mark in escaped for mark in marks.MARKS), text
        assert marks.unescape(escaped) == text
        held += bool(marks.found(text))
    assert held > 3000


def test_what_holds_no_mark_stays_as_it_is() -> None:
    plain = [case.text for case in MARKED if not case.marks]
    assert [marks.escape(text) for text in plain] == plain


def test_all_texts_of_a_conversation_count_and_its_roles_and_numbers_stay() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a<think>": [1, None, "[INST]"]}}}
    messages = [
        {"role": "user", "content": "a</s>", "name": "<bos>"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "<|eot|>",
            "tool_calls": [call],
            "weight": 0,
        },
    ]
    tools = [{"function": {"name": "f", "description": "<eos>"}}]
    found = {"</s>", "<bos>", "<|eot|>", "<think>", "[INST]", "<eos>"}
    assert marks.of_conversation(messages, tools) == found
    escaped = marks.escaped(messages)
    assert marks.of_conversation(escaped) == set()
    assert escaped[0] == {"role": "user", "content": "a<\\/s>", "name": "<\\bos>"}
    arguments = escaped[1]["tool_calls"][0]["function"]["arguments"]
    assert (arguments, escaped[1]["weight"]) == ({"a<\\think>": [1, None, "[\\INST]"]}, 0)
