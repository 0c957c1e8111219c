"""Marks of chat templates in texts: what a trainer takes for a turn although somebody has written it.

The well-known ones by what they look like: ``<|…|>`` (ChatML, Llama 3 and 4, Phi, Zephyr,
Cohere, GPT), ``<｜…｜>`` (DeepSeek), ``<start_of_turn>`` (Gemma), ``[INST]`` and its kind
(Llama 2, Mistral), the tokens that begin and end a text, and the tags around reasoning and
calls. finetune needs none of this: it makes the marks of its own template plain.

The escape puts a backslash behind a mark's first character, ``<\\|im_end|>``, one more where
some stand there already; taking one away is the way back.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Why a pair or an example is left out, where ``assemble.marks`` is ``drop``.
HOLDS_MARKS = "holds_marks"
_TAGS = ("think", "tool_call", "tool_response", "tool_calls", "tools")
_BRACKETED = (
    *("INST", "SYSTEM_PROMPT", "AVAILABLE_TOOLS", "TOOL_RESULTS", "TOOL_CONTENT", "THINK", "IMG", "PREFIX"),
)
#: Each without its first character, by that.
_BEHIND = {
    "<": (
        r"\|[A-Za-z0-9_]+\|>",
        r"｜[^\s<>｜\\\[\]]+｜>",
        r"/?(?:start|end)_of_turn>",
        r"/?(?:s|bos|eos|pad|unk)>",
        rf"/?(?:{'|'.join(_TAGS)})>",
        r"</?SYS>>",
    ),
    "[": (rf"/?(?:{'|'.join(_BRACKETED)})\]", r"TOOL_CALLS\]", r"MIDDLE\]", r"SUFFIX\]"),
}
_BEHINDS = {first: "|".join(behind) for first, behind in _BEHIND.items()}
_MARK = re.compile("|".join(f"{re.escape(first)}(?:{behind})" for first, behind in _BEHINDS.items()))
_ESCAPABLE = re.compile(
    "|".join(f"{re.escape(first)}(?=\\\\*(?:{behind}))" for first, behind in _BEHINDS.items())
)
_ESCAPED = re.compile(
    "|".join(rf"{re.escape(first)}\\(?=\\*(?:{behind}))" for first, behind in _BEHINDS.items())
)


def found(text: str) -> list[str]:
    """The marks in a text, in their order."""
    # Most texts have neither character, and looking for one is fast.
    return _MARK.findall(text) if "<" in text or "[" in text else []


def escape(text: str) -> str:
    """The text without a mark in it; ``unescape`` gives the text again."""
    return _ESCAPABLE.sub(lambda first: f"{first[0]}\\", text)


def unescape(text: str) -> str:
    """The text that was escaped."""
    return _ESCAPED.sub(lambda first: first[0][0], text)


def of_conversation(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> set[str]:
    """The marks in all texts of a conversation, names and arguments of calls among them, and of its tools."""
    marks: set[str] = set()

    def note(text: str) -> str:
        marks.update(found(text))
        return text

    _each_text([*messages, *tools], note)
    return marks


def escaped(value: Any) -> Any:
    """Turns, or tools, with all their texts escaped."""
    return _each_text(value, escape)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _each_text(item, change) for name, item in value.items()}
    return [_each_text(item, change) for item in value] if isinstance(value, list) else value
