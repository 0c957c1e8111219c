"""The text of an example, against the rule in plain words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.config import SftText
from aitp_tasks.inputs.examples import Example, Rejection, Turn
from aitp_tasks.inputs.forms.compared import first_turns, of_pair, text
from aitp_tasks.inputs.rows import Refusal

TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.sampled_from(["", " \n", "\u200b", "a", "b\n", "c"]),
        }
    ),
    max_size=8,
)
_NOTHING = " \n\u200b"


def in_plain_words(turns: list[Turn]) -> str | None:
    """The first user turn with text, newline, the first assistant turn with text that comes after it."""
    for place, turn in enumerate(turns):
        if turn["role"] == "user" and turn["content"].strip(_NOTHING):
            for later in turns[place:]:
                if later["role"] == "assistant" and later["content"].strip(_NOTHING):
                    return f"{turn['content']}\n{later['content']}"
            return None
    return None


@given(TURNS)
def test_first_turns(turns: list[Turn]) -> None:
    found = first_turns(turns)
    assert (None if isinstance(found, Rejection) else found) == in_plain_words(turns)


SEVERAL: list[Turn] = [
    {"role": "system", "content": "s"},
    {"role": "assistant", "content": "Greetings"},
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": " ", "tool_calls": []},
    {"role": "tool", "content": "t"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2"},
]


CALLS: list[Turn] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
]


@pytest.mark.parametrize(
    ("rule", "turns", "expected"),
    [
        (SftText.FIRST_TURNS, SEVERAL, "q1\na1"),
        (SftText.FIRST_TURNS, SEVERAL[3:], "q2\na2"),
        (SftText.FIRST_TURNS, SEVERAL[:3], "(no_answer)"),
        (SftText.FIRST_TURNS, CALLS, "q"),
        (SftText.FIRST_TURNS, SEVERAL[:2], "(no_user_turn)"),
        (SftText.ALL_TURNS, SEVERAL, "Greetings\nq1\na1\nq2\na2"),
        (SftText.USER_TURNS, SEVERAL, "q1\nq2"),
        (SftText.USER_TURNS, SEVERAL[:5], "q1"),
        (SftText.USER_TURNS, [{"role": "user", "content": "\x00"}], "<control_characters>"),
    ],
)
def test_each_rule_takes_its_turns(rule: SftText, turns: list[Turn], expected: str) -> None:
    found = text(Example(turns), rule)
    if isinstance(found, Refusal):
        assert f"<{found.error_class}>" == expected
    elif isinstance(found, Rejection):
        assert f"({found.reason})" == expected
    else:
        assert found == expected


def test_of_a_pair_there_is_no_rejection() -> None:
    assert isinstance(of_pair(SEVERAL[:2], SftText.FIRST_TURNS), Refusal)
    assert of_pair(SEVERAL[2:], SftText.FIRST_TURNS) == "q1\na1"
