"""LaTeX that JSON's escapes have eaten: whole inside mathematics, untouched where it is doubled."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitp_tasks.generation.responses import UnreadableError, read

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
#: Commands of LaTeX that begin like an escape of JSON.
COMMANDS = (Path(__file__).parent / "responses" / "commands.txt").read_text(encoding="utf-8").split()
FORMULAS = [
    r"$\%s{x} + 1$",
    r"Let $\%s{x} + 1$ be given.",
    r"$$\%s{x} + 1$$",
    r"\(\%s{x} + 1\)",
    r"\[\%s{x} + 1\]",
    r"\begin{align} x &= \%s{y} \end{align}",
    r"$\alpha = \%s{x}$ and $x$",
]


def answer(content: str) -> str:
    return str(read(f'{{"answer": "{content}"}}', SCHEMA).value["answer"])


@pytest.mark.parametrize("formula", FORMULAS)
def test_inside_mathematics_every_command_comes_back(formula: str) -> None:
    assert len(COMMANDS) >= 290
    assert [name for name in COMMANDS if answer(formula % name) != formula % name] == []


def test_a_display_on_lines_keeps_its_line_breaks() -> None:
    for name in COMMANDS:
        assert answer(rf"$$\n\{name}{{x}}\n$$") == f"$$\n\\{name}{{x}}\n$$"


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_doubled_command_is_left_alone(formula: str) -> None:
    for name in COMMANDS:
        assert answer(json.dumps(formula % name)[1:-1]) == formula % name


WORDS = st.sampled_from(
    [*COMMANDS, "x", "a b", " ", "$", "$$", "\\(", "\\)", "\n", "\t", "```", "`", "{", "}", "y = f(x);"]
)


@settings(max_examples=400)
@given(st.lists(WORDS, max_size=12).map("".join))
def test_what_is_written_as_json_wants_it_is_not_changed(text: str) -> None:
    written = json.dumps({"answer": f"\\alpha {text}"})
    assert outcome(written) in (f"\\alpha {text}", "refused")


def outcome(response: str) -> str:
    try:
        return str(read(response, SCHEMA).value["answer"])
    except UnreadableError:
        return "refused"
