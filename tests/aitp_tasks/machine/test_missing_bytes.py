"""Where tokens stand, beside what the tokenizer tells of the same text without the bytes that it lacks."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer

from aitp_tasks.machine import missing_bytes
from aitp_tasks.machine.control_tokens import reading_marks_only
from aitp_tasks.training.examples import IGNORED, Example, ExampleMaker

#: One of SmolLM2's twenty-one.
_LACKS = "\x04"
_PIECES = [
    "a",
    "It is",
    " ",
    "  ",
    "\n",
    "!",
    "?)",
    "</",
    "é",
    "漢",
    "🙂",
    "12",
    "<|im_end|>",
    "<filename>",
    "�",
]
#: A template without a blank between a question and its answer.
_TEMPLATE = (
    "{% for turn in messages %}{% if turn.role == 'assistant' %}{% generation %}{{ turn.content }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ turn.content }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module", params=["whole", "trimmed"])
def reading(tokenizer: Any, request: pytest.FixtureRequest) -> Any:
    """As it comes, and as other tokenizers tell places: without the blanks at a token's ends."""
    found = reading_marks_only(tokenizer, {"<|im_end|>"}, "")
    if request.param == "trimmed":
        found.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True, add_prefix_space=False)
    return found


@pytest.fixture(scope="module")
def maker(tokenizer: Any) -> ExampleMaker:
    return ExampleMaker(tokenizer, _TEMPLATE, 64)


def _without(text: str) -> tuple[str, list[int]]:
    """A text without the byte, and where each of its characters stands in the other."""
    places = [place for place, character in enumerate(text) if character != _LACKS]
    return text.replace(_LACKS, ""), [*places, len(text)]


def _read(reading: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    found = reading(text, add_special_tokens=False, return_offsets_mapping=True)
    return found["input_ids"], found["offset_mapping"]


def test_what_it_lacks(reading: Any) -> None:
    missing = missing_bytes.of(reading.backend_tokenizer)
    assert len(missing) == 21
    assert ord(_LACKS) in missing
    assert missing_bytes.holds(f"a{_LACKS}", missing)
    assert not missing_bytes.holds("aé漢🙂\x00", missing)


@given(st.lists(st.sampled_from(_PIECES), max_size=12))
def test_spans_are_the_tokenizers_where_it_lacks_nothing(reading: Any, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids, told = _read(reading, text)
    assert missing_bytes.spans(reading.backend_tokenizer, text, ids, b"\x04") == told


# Before what belongs to the same word, so that the words are those of the text without it.
_BROKEN = [*_PIECES, *(f"{_LACKS * count}{mark}" for count in (1, 2) for mark in ("!", "?)", "</"))]


@given(st.lists(st.sampled_from(_BROKEN), max_size=12))
def test_spans_are_those_of_the_text_without_what_it_lacks(reading: Any, pieces: list[str]) -> None:
    text = "".join(pieces)
    plain, places = _without(text)
    ids, told = _read(reading, plain)
    assert _read(reading, text)[0] == ids
    expected = [(places[start], places[end - 1] + 1) if end > start else None for start, end in told]
    found = missing_bytes.spans(reading.backend_tokenizer, text, ids, b"\x04")
    assert found is not None
    # Blanks alone have no character that they stand at.
    assert [one if one[1] > one[0] else None for one in found] == expected


def test_tokens_of_another_text_have_no_place(reading: Any) -> None:
    ids, _ = _read(reading, "another")
    assert missing_bytes.spans(reading.backend_tokenizer, "text", ids, b"\x04") is None
    assert missing_bytes.spans(reading.backend_tokenizer, "ano", ids, b"\x04") is None
    assert missing_bytes.spans(reading.backend_tokenizer, "", [], b"\x04") == []


@given(
    st.lists(st.sampled_from(_BROKEN[:10] + _BROKEN[15:]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["!", "?)", "</", "Yes", "漢"]), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_an_answer_is_learnt_whatever_stands_before_it(
    tokenizer: Any, maker: ExampleMaker, asked: list[str], answered: list[str], count: int
) -> None:
    # Where words end, so that no token is of both.
    question, answer = f"{''.join(asked)}x{_LACKS * count}", "".join(answered)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    made = maker.make(turns)
    assert isinstance(made, Example)
    learnt = [label for label in made.labels if label != IGNORED]
    assert tokenizer.decode(learnt) == f"{answer}<|im_end|>"
