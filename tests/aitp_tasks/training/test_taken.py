"""What templates take, as TRL finds it, and as a reader of theirs would say."""

from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl.chat_template_utils import supports_tool_calling

from aitp_tasks.training import taken

#: Not this one: it takes arguments as a text, and its twin for training does not.
TRL_TEMPLATES = sorted(
    path
    for path in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")
    if path.stem != "deepseekv3"
)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(smollm2)
    return loaded


def taken_by(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    def render(turns: list[dict[str, Any]], tools: Any) -> str:
        return str(tokenizer.apply_chat_template(turns, tools=tools or None, tokenize=False))

    return taken.by(render)


@pytest.mark.parametrize("path", TRL_TEMPLATES, ids=lambda path: path.stem)
def test_calls_are_taken_where_trl_says_so(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    tokenizer.chat_template = path.read_text()
    assert ({"tool_calls", "tool"} <= taken_by(tokenizer)) == supports_tool_calling(tokenizer)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3", {"tools", "tool_calls", "tool", "reasoning_content"}),
        ("qwen2_5", {"tools", "tool_calls", "tool"}),
        ("llama3", set()),
        ("gemma", set()),
    ],
)
def test_each_template_takes_what_is_written_in_it(
    tokenizer: PreTrainedTokenizerBase, name: str, expected: set[str]
) -> None:
    tokenizer.chat_template = next(path for path in TRL_TEMPLATES if path.stem == name).read_text()
    assert taken_by(tokenizer) - {"tool"} == expected - {"tool"}


def test_a_template_that_fails_on_everything_takes_nothing() -> None:
    def render(turns: list[dict[str, Any]], tools: Any) -> str:
        raise TypeError

    assert taken.by(render) == set()


def test_what_is_passed_over_is_what_the_conversation_has() -> None:
    turns = [
        {"role": "user", "content": "a", "name": "ann", "weight": 0},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": "c", "reasoning_content": None},
    ]
    assert taken.passed_over(set(), turns, []) == {"name", "tool"}
    assert taken.passed_over({"name", "tool"}, turns, [{}]) == {"tools"}
