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


AS_WRITTEN = [
    r"Let $2 \norm{x} = 1$ and $2\norm{y} = 1$ be given.",
    r"Let $f:\R\to\R$ be given with $x \mapsto \alpha x$.",
    r"$f(x) = \begin{cases} x & x > 0 \\ 0 & otherwise \end{cases}$",
    r"\begin{pmatrix} a \\(b) \end{pmatrix}",
    r"$$E = h\nu = \frac{hc}{\lambda}$$",
]


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_what_is_not_doubled_is_read_as_it_is_written(text: str) -> None:
    assert answer(text) == text


@pytest.mark.parametrize("text", ["$$\nx = 1\ny = 2\n$$", "It costs $5\nand the other 6$."])
def test_a_line_break_before_a_name_is_one(text: str) -> None:
    assert answer(json.dumps(text)[1:-1]) == text


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


LINES = [
    "The scores:{} = precision_score(y, p)",
    "```python\nx = 1{} = 2\n```",
    "It is `a{}` and so on.",
    "name{}\tvalue",
    "$5 for a,{} and $7 for b.",
    "The price is $5{} or $6.",
    "$a = 1;{} = $b;\n$c = $a;",
    "echo $HOME{} $USER",
    "By $\\alpha$ we mean x.{} is y.",
    "- one\n-{} two",
    "foo({}, 1)",
    "^a${} b$",
]


@pytest.mark.parametrize("line", LINES)
def test_a_word_on_a_line_of_its_own_is_no_command(line: str) -> None:
    for name in COMMANDS:
        if name[0] in "nt" and name[1:]:
            text = line.replace("{}", {"n": "\n", "t": "\t"}[name[0]] + name[1:])
            assert read(json.dumps({"answer": text}), SCHEMA).value == {"answer": text}
