"""Turns, whoever has written them: names of roles, keys of turns, content in parts, calls of tools."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aitp_tasks.config import Tags
from aitp_tasks.inputs.examples import ROLES, Turn
from aitp_tasks.inputs.forms.values import (
    RefusedError,
    RejectedError,
    holds,
    kind,
    listed,
    optional_text,
    parsed,
    plain,
    text,
    whole,
)

#: The role of a turn that holds nothing but calls of tools.
_CALL = "function_call"
#: What sets call the roles, in lower case.
_NAMES = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter", "usr"),
    "assistant": (
        *("assistant", "gpt", "bot", "model", "ai", "chatbot", "chatgpt", "gpt-3.5", "gpt-4", "gpt3", "gpt4"),
        *("bard", "bing", "claude", "gemini", "llm"),
    ),
    "tool": (
        "tool",
        "observation",
        "function",
        "function_response",
        "tool_response",
        "tool_result",
        "ipython",
    ),
    _CALL: ("function_call", "tool_call"),
}
_ROLE_OF = {name: role for role, names in _NAMES.items() for name in names}
#: Of pairs that are written as one object, ``{"human": …, "assistant": …}``.
_SIDES = _ROLE_OF | {"input": "user", "output": "assistant"}
_WEIGHTS = ("weight", "loss_weight", "train", "training")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA = ("image", "audio", "video", "file", "media")
_SHOWN = 40


@dataclass(frozen=True)
class Names:
    """How the turns of a set are written."""

    roles: tuple[str, ...] = ("role", "from")
    contents: tuple[str, ...] = ("content", "value")
    role_of: dict[str, str] = field(default_factory=lambda: _ROLE_OF)

    @classmethod
    def of(cls, tags: Tags) -> "Names":
        """The usual names, and those that are given by hand."""
        given = {
            "user": tags.user_tag,
            "assistant": tags.assistant_tag,
            "tool": tags.observation_tag,
            _CALL: tags.function_tag,
            "system": tags.system_tag,
        }
        by_hand = {name.strip().lower(): role for role, name in given.items() if name is not None}
        return cls(
            (tags.role_tag,) if tags.role_tag else cls.roles,
            (tags.content_tag,) if tags.content_tag else cls.contents,
            _ROLE_OF | by_hand,
        )


def read(value: Any, name: str, names: Names, left: Callable[[str], object]) -> list[Turn]:
    """A list of turns.

    Args:
        value: the list, or a text that is one as JSON. Its items are turns, or texts in turn by user and
            assistant.
        name: of it, for messages.
        names: how its turns are written.
        left: is told of each key of a turn that holds something and is not kept.
    """
    found = parsed(value, name)
    if found is None:
        raise RefusedError("null", f"{name} is null or missing")
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise RefusedError("not_an_example", f"{name} is {kind(found)}, not a list of turns")
    if found and all(isinstance(item, bytes | str) for item in found):
        written = _written(found)
        if not written:
            return alternating(found, name)
        found = written
    try:
        return [
            turn
            for number, item in enumerate(found)
            for turn in _turns(item, f"{name}[{number}]", names, left)
        ]
    except RefusedError as error:
        if error.outcome.error_class == "unknown_role":
            raise RefusedError("unknown_role", f"{error}; {_roles_of(found, names)}") from None
        raise


def _written(found: list[Any]) -> list[Any]:
    """The turns, where each is written as JSON, as Parquet has it that keeps objects; or none."""
    try:
        turns = [json.loads(item, parse_int=whole) for item in found if item.strip()[:1] in ("{", b"{")]
    except ValueError:
        return []
    whole_list = len(turns) == len(found) and all("role" in turn or "from" in turn for turn in turns)
    return turns if whole_list else []


def _roles_of(found: list[Any], names: Names) -> str:
    """What the turns of a list call their roles."""
    values = (item.get(key) for item in found if isinstance(item, dict) for key in names.roles)
    roles = dict.fromkeys(text(value, "role") for value in values if holds(value))
    return f"the roles here are {listed(list(roles))}"


def alternating(value: list[Any], name: str) -> list[Turn]:
    """A list of texts in turn by user and assistant."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": text(item, f"{name}[{number}]")}
        for number, item in enumerate(value)
    ]


def _turns(value: Any, name: str, names: Names, left: Callable[[str], object]) -> Iterator[Turn]:
    if value is None:
        raise RefusedError("null", f"{name} is null")
    if not isinstance(value, dict):
        raise RefusedError("not_an_example", f"{name} is {kind(value)}, not a turn")
    role_key = next((key for key in names.roles if holds(value.get(key))), None)
    if role_key is None:
        yield from _sides(value, name, names, left)
        return
    yield _Turn(value, name, names, left).read(role_key)


def _sides(value: dict[str, Any], name: str, names: Names, left: Callable[[str], object]) -> Iterator[Turn]:
    """A question and its answer that are written as one object."""
    found = {role: key for key in value if (role := _SIDES.get(key.lower())) and value[key] is not None}
    if not {"user", "assistant"} <= found.keys():
        keys = listed(list(value))
        raise RefusedError(
            "not_an_example", f"{name} has no {' or '.join(names.roles)} (it has {keys or 'nothing'})"
        )
    for role in ("system", "user", "assistant"):
        if role in found and (role != "system" or holds(value[found[role]])):
            yield {"role": role, "content": text(value[found[role]], f"{name}.{found[role]}")}
    for key, item in value.items():
        if key not in found.values() and holds(item):
            left(key)


class _Turn:
    """One turn that names its role."""

    def __init__(self, value: dict[str, Any], name: str, names: Names, left: Callable[[str], object]) -> None:
        self._value = value
        self._name = name
        self._names = names
        self._left = left
        self._taken: set[str] = set()
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []

    def read(self, role_key: str) -> Turn:
        role = self._role(role_key)
        content_key = next((key for key in self._names.contents if self._value.get(key) is not None), None)
        if content_key is not None:
            name = f"{self._name}.{content_key}"
            if role == _CALL:
                self._calls += calls(self._take(content_key), name)
            else:
                self._content(self._take(content_key), name)
        self._calls += self._called()
        for key in _REASONING:
            if holds(self._value.get(key)) and not self._reasoning:
                self._reasoning.append(text(self._take(key), f"{self._name}.{key}"))
        turn: Turn = {
            "role": "assistant" if role == _CALL else role,
            "content": "\n".join(self._texts),
        }
        if self._reasoning:
            turn["reasoning_content"] = "\n".join(self._reasoning)
        if self._calls:
            turn["tool_calls"] = self._calls
        for key in ("name", "tool_call_id"):
            if holds(self._value.get(key)):
                turn[key] = text(self._take(key), f"{self._name}.{key}")
        turn |= self._weight()
        self._look_at_rest(turn, content_key)
        return turn

    def _take(self, key: str) -> Any:
        self._taken.add(key)
        return self._value[key]

    def _role(self, key: str) -> str:
        name = f"{self._name}.{key}"
        written = text(self._take(key), name)
        role = self._names.role_of.get(written.strip().lower())
        if role is None:
            raise RefusedError(
                "unknown_role",
                f"{name} is {written[:_SHOWN]!r}, which is no role that is known ({', '.join(ROLES)} and "
                "their other names): name it in examples.mapping.tags",
            )
        return role

    def _content(self, value: Any, name: str) -> None:
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            self._texts.append(text(value, name))
            return
        for number, part in enumerate(value):
            self._part(part, f"{name}[{number}]")

    def _part(self, part: Any, name: str) -> None:
        if isinstance(part, bytes | str):
            self._texts.append(text(part, name))
            return
        if not isinstance(part, dict):
            raise RefusedError("not_text", f"{name} is {kind(part)}, not a part of type text")
        if part.get("type") is None:
            raise RefusedError("not_text", f"{name} is a part without a type (it has {listed(list(part))})")
        part_type = text(part["type"], f"{name}.type")
        if any(part_type.removeprefix("input_").startswith(media) for media in _MEDIA):
            raise RejectedError("multimodal", f"{name} is a part of type {part_type[:_SHOWN]!r}")
        if part_type in _TEXT_PARTS:
            self._texts.append(_first(part, ("text", "value"), name))
        elif part_type in _REASONING:
            self._reasoning.append(_first(part, ("value", "text", *_REASONING), name))
        elif part_type in ("tool_call", _CALL):
            self._calls += calls(part.get("value", part), f"{name}.value")
        else:
            raise RefusedError("not_text", f"{name} is a part of type {part_type[:_SHOWN]!r}, not text")

    def _called(self) -> list[dict[str, Any]]:
        return [
            call
            for key in ("tool_calls", _CALL)
            if holds(self._value.get(key))
            for call in calls(self._take(key), f"{self._name}.{key}")
        ]

    def _weight(self) -> dict[str, int]:
        for key in _WEIGHTS:
            weight = self._value.get(key)
            if weight is None:
                continue
            if not isinstance(weight, bool | int | float) or weight not in (0, 1):
                raise RefusedError(
                    "not_an_example", f"{self._name}.{key} is {str(weight)[:_SHOWN]}: a weight is 0 or 1"
                )
            self._taken.add(key)
            return {"weight": int(weight)}
        return {}

    def _look_at_rest(self, turn: Turn, content_key: str | None) -> None:
        rest = [key for key, value in self._value.items() if key not in self._taken and holds(value)]
        # Not a turn without text, but one whose text has another name.
        if rest and content_key is None and turn.keys() <= {"role", "content", "name", "weight"}:
            contents, keys = " or ".join(self._names.contents), listed(list(self._value))
            raise RefusedError("not_an_example", f"{self._name} has no {contents} (it has {keys})")
        for key in rest:
            self._left(key)


def calls(value: Any, name: str) -> list[dict[str, Any]]:
    """Calls of tools in OpenAI's structure, from that or from bare ``{"name", "arguments"}``."""
    found = parsed(value, name)
    return [_call(parsed(item, name), name) for item in (found if isinstance(found, list) else [found])]


def _call(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError("not_an_example", f"{name} is {kind(value)}, not a call of a tool")
    function = value.get("function")
    if not isinstance(function, dict):
        function = value
    if function.get("name") is None:
        keys = listed(list(function))
        raise RefusedError(
            "not_an_example", f"{name} calls a tool without a name (it has {keys or 'nothing'})"
        )
    arguments = function.get("arguments")
    found = parsed(arguments, f"{name}.arguments") if holds(arguments) else {}
    if not isinstance(found, dict):
        raise RefusedError("not_an_example", f"{name}.arguments is {kind(found)}, not an object")
    identity = {"id": text(value["id"], f"{name}.id")} if holds(value.get("id")) else {}
    return {
        **identity,
        "type": "function",
        "function": {
            "name": text(function["name"], f"{name}.name"),
            "arguments": plain(found, f"{name}.arguments"),
        },
    }


def tools(value: Any, name: str) -> list[dict[str, Any]]:
    """Definitions of tools, as a list or as JSON in a text."""
    found = parsed(value, name)
    items = [parsed(item, name) for item in (found if isinstance(found, list) else [found])]
    for item in items:
        if not isinstance(item, dict):
            raise RefusedError(
                "not_an_example", f"{name} is {kind(item)}, not a list of definitions of tools"
            )
    result: list[dict[str, Any]] = plain(items, name)
    return result


def _first(part: dict[str, Any], keys: tuple[str, ...], name: str) -> str:
    key = next((key for key in keys if part.get(key) is not None), keys[0])
    return optional_text(part.get(key), f"{name}.{key}") if key in part else text(None, f"{name}.{keys[0]}")
