"""Conversations as LLaMA-Factory reads them: ShareGPT's turns, a system text, tools as a JSON text.

Its converter knows neither names, identifiers nor weights, and leaves out conversations
whose turns do not alternate. Turns of one role that follow one another become one, with a
blank line between; so do those of the system or a developer at the beginning. Where it has
a way of its own, that is taken: reasoning between ``<think>`` marks, a text before tool
calls with the calls between ``<tool_call>`` marks, the results of parallel calls in one
turn. What it would not take is no record, but the reason.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from aitp_tasks.records.conversations import to_json

Turn = Mapping[str, Any]

SYSTEM, TOOLS = "system", "tools"
UNKNOWN_ROLE = "unknown_role"
_SYSTEMS = ("system", "developer")
#: In these orders it takes turns: who asks, who answers.
_ASKING, _ANSWERING = {"human", "observation"}, {"gpt", "function_call"}
_CALL, _END_OF_CALL = "<tool_call>", "</tool_call>"
#: What stands between turns that are merged.
_BETWEEN_TURNS = "\n\n"
#: What it writes between the results of parallel calls, of sets in OpenAI's form.
_BETWEEN_RESULTS = "\n</tool_response>\n<tool_response>\n"


@dataclass(frozen=True)
class Record:
    """One conversation in this form.

    Attributes:
        turns: with ``from`` and ``value``.
        system: the texts of the turns that it begins with, where those are the system's or the developer's.
        tools: a JSON text, or nothing.
        lost: what of the conversation the form has no place for, by name.
    """

    turns: list[dict[str, str]]
    system: str
    tools: str
    lost: frozenset[str]


def record(messages: Sequence[Turn], tools: Sequence[Any] = ()) -> Record | str:
    """A conversation in this form, or the reason why the form cannot say it."""
    leading = list(takewhile(_is_of_system, messages))
    turns: list[dict[str, str]] = []
    for role, group in groupby(messages[len(leading) :], lambda turn: str(turn["role"])):
        made = _SAID[role](list(group)) if role in _SAID else UNKNOWN_ROLE
        if isinstance(made, str):
            return made
        turns.append(made)
    system = _joined(turn["content"] for turn in leading)
    lost = frozenset(_without_place(messages))
    return _unreadable(turns) or Record(turns, system, to_json(tools) if tools else "", lost)


def has_system(messages: Sequence[Turn]) -> bool:
    """Whether a conversation has a system text in this form."""
    return any(turn["content"] for turn in takewhile(_is_of_system, messages))


def _is_of_system(turn: Turn) -> bool:
    return turn["role"] in _SYSTEMS


def _without_place(messages: Sequence[Turn]) -> Iterator[str]:
    for turn in messages:
        yield from (name for name in ("name", "tool_call_id") if turn.get(name))
        # It learns all that the assistant says, and nothing else.
        if "weight" in turn and turn["weight"] != (turn["role"] == "assistant"):
            yield "weight"
        if any(call.get("id") for call in turn.get("tool_calls") or ()):
            yield "tool_calls.id"


def _asked(turns: Sequence[Turn]) -> dict[str, str]:
    return {"from": "human", "value": _joined(turn["content"] for turn in turns)}


def _results(turns: Sequence[Turn]) -> dict[str, str]:
    return {"from": "observation", "value": _BETWEEN_RESULTS.join(turn["content"] for turn in turns)}


def _answered(turns: Sequence[Turn]) -> dict[str, str] | str:
    """What the assistant says in one go: texts, then calls; the form has no place for a text behind calls."""
    saying = list(takewhile(lambda turn: not turn.get("tool_calls"), turns))
    calling = turns[len(saying) :]
    if not calling:
        return {"from": "gpt", "value": _joined(map(_text, turns))}
    if any(not turn.get("tool_calls") or _text(turn) for turn in calling[1:]):
        return "text_behind_tool_calls"
    text = _joined(map(_text, [*saying, calling[0]]))
    value = _calls([call for turn in calling for call in turn["tool_calls"]])
    if text and _CALL in text:
        # Its pattern would find the text's own mark first, and raise an error.
        return "tool_call_mark_before_tool_calls"
    return {"from": "function_call", "value": f"{text}{_CALL}{value}{_END_OF_CALL}" if text else value}


def _system_in_the_middle(turns: Sequence[Turn]) -> str:
    return "system_in_the_middle"


#: How each role's turns that follow one another are said.
_SAID: dict[str, Callable[[Sequence[Turn]], dict[str, str] | str]] = {
    "user": _asked,
    "assistant": _answered,
    "tool": _results,
    **dict.fromkeys(_SYSTEMS, _system_in_the_middle),
}


def _joined(texts: Iterable[str]) -> str:
    return _BETWEEN_TURNS.join(filter(None, texts))


def _text(turn: Turn) -> str:
    reasoning, content = turn.get("reasoning_content"), str(turn["content"])
    return content if reasoning is None else f"<think>\n{reasoning}\n</think>\n\n{content}"


def _calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Names and arguments as JSON, one call as an object, as its own sets have them."""
    found = [{name: call["function"][name] for name in ("name", "arguments")} for call in calls]
    # It looks for its marks in the JSON too, as it stands.
    return to_json(found[0] if len(found) == 1 else found).replace("<", "\\u003c")


def _unreadable(turns: Sequence[Mapping[str, str]]) -> str | None:
    """Why its converter or its processor would leave a conversation out."""
    if not turns:
        return "no_turns"
    if turns[0]["from"] in _ANSWERING:
        return "begins_with_assistant"
    if any(turn["from"] not in (_ASKING, _ANSWERING)[place % 2] for place, turn in enumerate(turns)):
        return "not_alternating"
    return None if len(turns) % 2 == 0 else "ends_without_assistant"
