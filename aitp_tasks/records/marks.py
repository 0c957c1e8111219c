"""Marks of chat templates in texts: what a trainer takes for a turn although somebody has written it.

The well-known ones, letter by letter as the tokenizers and templates of common families have
them; finetune needs none of this, since it makes the marks of its own template plain.

The escape puts a backslash behind a mark's first character, ``<\\|im_end|>``, one more where
some stand there already; taking one away is the way back.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Why a pair or an example is left out, where ``assemble.marks`` is ``drop``.
HOLDS_MARKS = "holds_marks"
#: Between ``<|`` and ``|>``.
_BARRED = (
    # ChatML, Qwen, Phi 4, Kimi; GPT's end of a text.
    *("im_start", "im_end", "im_sep", "im_user", "im_assistant", "im_system", "im_middle"),
    *("endoftext", "startoftext", "endofprompt", "fim_prefix", "fim_middle", "fim_suffix"),
    # Llama 3 and 4.
    *("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id", "eom_id", "python_tag"),
    *("header_start", "header_end", "eot", "eom"),
    # Phi 3, Zephyr, GLM, Granite.
    *("system", "user", "assistant", "tool", "observation", "end", "tool_call", "/tool_call"),
    *("tool_response", "start_of_role", "end_of_role"),
    # gpt-oss.
    *("start", "message", "channel", "constrain", "call", "return"),
    # Cohere.
    *("START_OF_TURN_TOKEN", "END_OF_TURN_TOKEN", "USER_TOKEN", "CHATBOT_TOKEN", "SYSTEM_TOKEN"),
    *("START_RESPONSE", "END_RESPONSE", "START_THINKING", "END_THINKING", "START_ACTION", "END_ACTION"),
)
#: Between ``<｜`` and ``｜>``: DeepSeek.
_FULL_WIDTH = (
    *("begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant", "tool▁sep"),
    *(f"tool▁{what}▁{end}" for what in ("calls", "call", "outputs", "output") for end in ("begin", "end")),
)
#: Between ``<`` and ``>``: Gemma, Llama 2, tags around reasoning and calls.
_TAGS = (
    *("start_of_turn", "end_of_turn", "s", "/s", "bos", "eos", "<SYS>", "</SYS>"),
    *("think", "/think", "tool_call", "/tool_call", "tool_response", "/tool_response"),
)
#: Between ``[`` and ``]``: Llama 2, Mistral.
_BRACKETED = (
    *("INST", "/INST", "SYSTEM_PROMPT", "/SYSTEM_PROMPT", "AVAILABLE_TOOLS", "/AVAILABLE_TOOLS"),
    *("TOOL_CALLS", "TOOL_RESULTS", "/TOOL_RESULTS", "TOOL_CONTENT", "THINK", "/THINK"),
)
MARKS = (
    *(f"<|{name}|>" for name in _BARRED),
    *(f"<｜{name}｜>" for name in _FULL_WIDTH),
    *(f"<{name}>" for name in _TAGS),
    *(f"[{name}]" for name in _BRACKETED),
)


def _pattern(form: str) -> re.Pattern[str]:
    """A pattern over all marks: ``form`` has a place for the first character, and one for what follows."""
    behind = {first: "|".join(re.escape(mark[1:]) for mark in MARKS if mark[0] == first) for first in "<["}
    return re.compile("|".join(form.format(re.escape(first), names) for first, names in behind.items()))


_MARK, _ESCAPABLE = _pattern("{}(?:{})"), _pattern(r"{}(?=\\*(?:{}))")
_ESCAPED = _pattern(r"{}\\(?=\\*(?:{}))")


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
