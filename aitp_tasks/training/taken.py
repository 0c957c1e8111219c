"""What a chat template takes of a conversation besides roles and texts: found by rendering one with each.

Many templates pass over what they do not know without a word: a tool call is lost, and
its turn is learnt as an empty answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aitp_tasks.records import conversations

Turns = list[dict[str, Any]]
#: Renders a conversation with its tools.
Render = Callable[[Turns, Sequence[Any]], str]

#: Without these a conversation is another one: answers come from nowhere.
INDISPENSABLE = {"tools", "tool_calls", "tool"}

_QUESTION, _ANSWER = {"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}
#: Stand for what is looked for; some templates want identifiers of nine letters and figures.
_NAME, _KEY, _VALUE, _RESULT, _THOUGHT, _ID = (
    "nameOfIt9",
    "keyOfIt99",
    "valueOf99",
    "resultOf9",
    "thought99",
    "idOfIt999",
)
_CALL = {"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": {_KEY: _VALUE}}}
_PARAMETERS = {"type": "object", "properties": {_KEY: {"type": "string", "description": "A."}}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "B.", "parameters": _PARAMETERS}}
_RETURNED = {"role": "tool", "content": _RESULT, "tool_call_id": _ID}
#: A conversation with calls, which is also how a template marks them.
CALLING: Turns = [_QUESTION, {**_ANSWER, "content": "", "tool_calls": [_CALL]}, _RETURNED, _ANSWER]
TOOLS = [_TOOL]
_PROBES: dict[str, tuple[tuple[str, ...], list[tuple[Turns, list[Any]]]]] = {
    "tools": ((_NAME, _KEY), [([_QUESTION, _ANSWER], TOOLS)]),
    "tool_calls": ((_NAME, _KEY, _VALUE), [(CALLING, [])]),
    "tool": ((_RESULT,), [(CALLING, []), ([_QUESTION, _ANSWER, _RETURNED, _ANSWER], [])]),
    "tool_call_id": ((_ID,), [(CALLING, [])]),
    "reasoning_content": ((_THOUGHT,), [([_QUESTION, {**_ANSWER, "reasoning_content": _THOUGHT}], [])]),
    "name": (
        (_NAME,),
        [
            ([{**_QUESTION, "name": _NAME}, _ANSWER], []),
            ([_QUESTION, _ANSWER, {**_RETURNED, "name": _NAME}, _ANSWER], []),
        ],
    ),
}


def by(render: Render) -> set[str]:
    """Which of the probes' names a template takes."""
    return {
        name
        for name, (wanted, probes) in _PROBES.items()
        if any(all(part in text for part in wanted) for text in _texts(render, probes))
    }


def passed_over(taken: set[str], messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> set[str]:
    """What of a conversation a template that takes ``taken`` leaves out."""
    held = conversations.further(messages, tools) & set(_PROBES)
    held |= {"tool"} & {turn["role"] for turn in messages}
    return held - taken


def _texts(render: Render, probes: Sequence[tuple[Turns, list[Any]]]) -> Iterator[str]:
    from jinja2.exceptions import TemplateError

    for messages, tools in probes:
        try:
            yield render(messages, tools)
        except (TemplateError, AttributeError, LookupError, TypeError, ValueError):
            continue
