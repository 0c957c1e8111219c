"""Conversations as LLaMA-Factory reads them: ShareGPT's turns, a system text, tools as a JSON text.

Its converter knows neither names, identifiers nor weights, and leaves out conversations
whose turns do not alternate. Where it has a way of its own, that is taken: reasoning
between ``<think>`` marks, a text before tool calls with the calls between ``<tool_call>``
marks, the results of parallel calls in one turn. All else is counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from aitp_tasks.records.conversations import to_json

Turn = Mapping[str, Any]

SYSTEM, TOOLS = "system", "tools"
_SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}
#: In these orders it takes turns: who asks, who answers.
_ASKING, _ANSWERING = {"human", "observation"}, {"gpt", "function_call"}
_CALL, _END_OF_CALL = "<tool_call>", "</tool_call>"
#: What it writes between the results of parallel calls, of sets in OpenAI's form.
_BETWEEN_RESULTS = "\n</tool_response>\n<tool_response>\n"


@dataclass(frozen=True)
class Record:
    """One conversation in this form.

    Attributes:
        turns: with ``from`` and ``value``.
        system: the text of the first turn, where that is the system's or the developer's.
        tools: a JSON text, or nothing.
        lost: what of the conversation the form has no place for, by name.
        unread: why LLaMA-Factory leaves the conversation out; None where it takes it.
    """

    turns: list[dict[str, str]]
    system: str
    tools: str
    lost: frozenset[str]
    unread: str | None


def record(messages: Sequence[Turn], tools: Sequence[Any] = ()) -> Record:
    """A conversation in this form."""
    system, rest = "", messages
    if messages and messages[0]["role"] in ("system", "developer"):
        system, rest = messages[0]["content"], messages[1:]
    turns, lost = [], set(_without_place(messages))
    for is_result, group in groupby(rest, lambda turn: turn["role"] == "tool"):
        if is_result:
            results = _BETWEEN_RESULTS.join(turn["content"] for turn in group)
            turns.append({"from": _SPEAKERS["tool"], "value": results})
            continue
        for turn in group:
            made, text_is_lost = _turn(turn)
            turns.append(made)
            lost |= {"text_with_tool_calls"} if text_is_lost else set()
    return Record(turns, system, to_json(tools) if tools else "", frozenset(lost), _unread(turns))


def _without_place(messages: Sequence[Turn]) -> Iterator[str]:
    for turn in messages:
        yield from (name for name in ("name", "tool_call_id") if turn.get(name))
        # It learns all that the assistant says, and nothing else.
        if "weight" in turn and turn["weight"] != (turn["role"] == "assistant"):
            yield "weight"
        if any(call.get("id") for call in turn.get("tool_calls") or ()):
            yield "tool_calls.id"


def _turn(turn: Turn) -> tuple[dict[str, str], bool]:
    """A turn, and whether its text had to be left out."""
    text, calls, is_lost = _text(turn), turn.get("tool_calls"), False
    if not calls:
        role = str(turn["role"])
        return {"from": _SPEAKERS.get(role, role), "value": text}, False
    value = _calls(calls)
    if text:
        # Its pattern would find the text's own mark first, and raise an error.
        is_lost = _CALL in text
        value = value if is_lost else f"{text}{_CALL}{value}{_END_OF_CALL}"
    return {"from": "function_call", "value": value}, is_lost


def _text(turn: Turn) -> str:
    reasoning, content = turn.get("reasoning_content"), str(turn["content"])
    return content if reasoning is None else f"<think>\n{reasoning}\n</think>\n\n{content}"


def _calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Names and arguments as JSON, one call as an object, as its own sets have them."""
    found = [{name: call["function"][name] for name in ("name", "arguments")} for call in calls]
    # It looks for its marks in the JSON too, as it stands.
    return to_json(found[0] if len(found) == 1 else found).replace("<", "\\u003c")


def _unread(turns: Sequence[Mapping[str, str]]) -> str | None:
    """Why its converter or its processor leaves a conversation out."""
    if not turns:
        return "no_turns"
    if turns[0]["from"] in _ANSWERING:
        return "begins_with_assistant"
    if any(turn["from"] not in (_ASKING, _ANSWERING)[place % 2] for place, turn in enumerate(turns)):
        return "not_alternating"
    return None if len(turns) % 2 == 0 else "ends_without_assistant"
