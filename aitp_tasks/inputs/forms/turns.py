"""Turns, whoever has written them: names of roles, keys of turns, content in parts, calls of tools."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from aitp_tasks.config import Tags
from aitp_tasks.inputs.examples import ROLES, Turn
from aitp_tasks.inputs.forms import table
from aitp_tasks.inputs.forms.values import (
    RefusedError,
    RejectedError,
    held,
    holds,
    holds_file,
    kind,
    listed,
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
_CALL_PARTS = ("tool_call", _CALL)
#: What sets call the arguments of a call, which stand beside its name or beside ``function``.
_ARGUMENTS = ("arguments", "parameters", "args", "input")
#: What a call says of its kind, if at all.
_CALL_TYPES = ("function", *_CALL_PARTS)
_MEDIA = ("image", "audio", "video", "file", "media")
_SHOWN = 40
#: Is told of each key that holds something and is not kept.
Left = Callable[[str], object]


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


def read(value: Any, name: str, names: Names, left: Left, *, alternates: bool = True) -> list[Turn]:
    """A list of turns.

    Args:
        value: the list, or a text that is one as JSON. Its items are turns, or texts in turn by user and
            assistant.
        name: of it, for messages.
        names: how its turns are written.
        left: is told of each key of a turn that holds something and is not kept.
        alternates: whether its items may be texts.
    """
    found = parsed(value, name)
    if found is None:
        raise RefusedError("null", f"{name} is null or missing")
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise RefusedError("not_an_example", f"{name} is {kind(found)}, not a list of turns")
    if any(isinstance(item, bytes | str) for item in found):
        written = _written(found)
        if not written and not alternates:
            raise RefusedError("not_text", f"{name} is a list of texts, neither a text nor a list of turns")
        if not written and all(item is None or isinstance(item, bytes | str) for item in found):
            return alternating(found, name)
        found = written or found
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
        turns = [
            json.loads(item, parse_int=whole)
            for item in found
            if isinstance(item, bytes | str) and item.strip()[:1] in ("{", b"{")
        ]
    except (ValueError, RecursionError):
        return []
    whole_list = len(turns) == len(found) and all("role" in turn or "from" in turn for turn in turns)
    return turns if whole_list else []


def as_json(value: Any, names: Names) -> list[Any] | None:
    """The list of turns that a text is as JSON, each with a role and a content; None where it is none."""
    if not isinstance(value, bytes | str) or value.lstrip()[:1] not in ("[", b"["):
        return None
    try:
        found = json.loads(value, parse_int=whole)
    except (ValueError, RecursionError):
        return None
    is_list = found and all(
        isinstance(item, dict)
        and any(key in item for key in names.roles)
        and any(key in item for key in names.contents)
        for item in found
    )
    return found if is_list else None


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


def _turns(value: Any, name: str, names: Names, left: Left) -> Iterator[Turn]:
    if value is None:
        raise RefusedError("null", f"{name} is null")
    if not isinstance(value, dict):
        raise RefusedError("not_an_example", f"{name} is {kind(value)}, not a turn")
    role_key = next((key for key in names.roles if holds(value.get(key))), None)
    if role_key is None:
        yield from _sides(value, name, names, left)
        return
    yield _Turn(value, name, names, left).read(role_key)


def _sides(value: dict[str, Any], name: str, names: Names, left: Left) -> Iterator[Turn]:
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

    def __init__(self, value: dict[str, Any], name: str, names: Names, left: Left) -> None:
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
        self._refuse_media(role)
        content_key = next((key for key in self._names.contents if self._value.get(key) is not None), None)
        if content_key is not None:
            name = f"{self._name}.{content_key}"
            if role == _CALL:
                self._calls += calls(self._take(content_key), name, self._leave_of(content_key))
            else:
                self._content(self._take(content_key), name, content_key)
        self._calls += self._called()
        # Others have thought nothing that can be learnt.
        if role in ("assistant", _CALL):
            for key in _REASONING:
                if holds(self._value.get(key)) and not self._reasoning:
                    self._reasoning.append(text(self._take(key), f"{self._name}.{key}"))
        elif self._reasoning:
            self._left(f"{content_key}[].{_REASONING[0]}")
            self._reasoning.clear()
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

    def _refuse_media(self, role: str) -> None:
        """An answer's text can be learnt without them."""
        for key in table.MEDIA:
            if role != "assistant" and key in self._value and holds_file(self._take(key)):
                raise RejectedError("multimodal", f"{self._name} holds {key}")

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

    def _leave_of(self, key: str) -> Left:
        return lambda inner: self._left(f"{key}[].{inner}")

    def _content(self, value: Any, name: str, key: str) -> None:
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            self._texts.append(text(value, name))
            return
        for number, part in enumerate(value):
            self._part(part, f"{name}[{number}]", self._leave_of(key))

    def _part(self, part: Any, name: str, left: Left) -> None:
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
            self._texts += _said_in(part, ("text", "value"), name, left)
        elif part_type in _REASONING:
            self._reasoning += _said_in(part, ("value", "text", *_REASONING, "summary"), name, left)
        elif part_type in _CALL_PARTS:
            self._call_part(part, part_type, name, left)
        else:
            raise RefusedError("not_text", f"{name} is a part of type {part_type[:_SHOWN]!r}, not text")

    def _call_part(self, part: dict[str, Any], part_type: str, name: str, left: Left) -> None:
        """A part that is a call, or that holds calls."""
        key = next((key for key in ("value", part_type) if holds(part.get(key))), None)
        if key is None:
            self._calls += calls(part, name, left)
            return
        self._calls += calls(part[key], f"{name}.{key}", left)
        _leave_rest(part, ("type", key), left)

    def _called(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for key in ("tool_calls", _CALL):
            if holds(self._value.get(key)):
                name = f"{self._name}.{key}"
                found += calls(held(self._take(key), name), name, self._leave_of(key))
        return found

    def _weight(self) -> dict[str, int]:
        for key in _WEIGHTS:
            weight = self._value.get(key)
            if weight is None:
                continue
            self._taken.add(key)
            return {"weight": _weight(weight, f"{self._name}.{key}")}
        return {}

    def _look_at_rest(self, turn: Turn, content_key: str | None) -> None:
        rest = [key for key, value in self._value.items() if key not in self._taken and holds(value)]
        # Not a turn without text, but one whose text has another name.
        if rest and content_key is None and turn.keys() <= {"role", "content", "name", "weight"}:
            contents, keys = " or ".join(self._names.contents), listed(list(self._value))
            null = next((key for key in self._names.contents if key in self._value), None)
            problem = f"{self._name}.{null} is null" if null else f"{self._name} has no {contents}"
            raise RefusedError("not_an_example", f"{problem} (it has {keys})")
        for key in rest:
            self._left(key)


def calls(value: Any, name: str, left: Left) -> list[dict[str, Any]]:
    """Calls of tools in OpenAI's structure, from that or from bare ``{"name", "arguments"}``.

    Args:
        left: is told of each key of a call that holds something and is not kept.
    """
    found = parsed(value, name)
    return [_call(parsed(item, name), name, left) for item in (found if isinstance(found, list) else [found])]


def _call(value: Any, name: str, left: Left) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError("not_an_example", f"{name} is {kind(value)}, not a call of a tool")
    inner = value.get("function")
    function = inner if isinstance(inner, dict) else value
    if function.get("name") is None:
        keys = listed(list(function))
        raise RefusedError(
            "not_an_example", f"{name} calls a tool without a name (it has {keys or 'nothing'})"
        )
    identity = {"id": text(value["id"], f"{name}.id")} if holds(value.get("id")) else {}
    is_known = holds(value.get("type")) and text(value["type"], f"{name}.type") in _CALL_TYPES
    kept = ["id", "type"] if is_known else ["id"]
    if function is value:
        _leave_rest(value, (*kept, "name", *_ARGUMENTS), left)
    else:
        _leave_rest(value, (*kept, "function", *_ARGUMENTS), left)
        _leave_rest(function, ("name", *_ARGUMENTS), lambda key: left(f"function.{key}"))
    return {
        **identity,
        "type": "function",
        "function": {
            "name": text(function["name"], f"{name}.name"),
            "arguments": _arguments(value, function, name),
        },
    }


def _arguments(call: dict[str, Any], function: dict[str, Any], name: str) -> dict[str, Any]:
    """The arguments of a call, whatever they are called; if several are given, they are the same."""
    found: dict[str, Any] = {}
    for place, holder in {name: call, f"{name}.function": function}.items():
        for key in _ARGUMENTS:
            value = holder.get(key)
            if value is None or (isinstance(value, bytes | str) and not holds(value)):
                continue
            where = f"{place}.{key}"
            arguments = held(value, where) or {}
            if not isinstance(arguments, dict):
                raise RefusedError("not_an_example", f"{where} is {kind(arguments)}, not an object")
            found[where] = plain(arguments, where)
        if function is call:
            break
    for where, arguments in found.items():
        (first, expected), *_ = found.items()
        if json.dumps(arguments, sort_keys=True) != json.dumps(expected, sort_keys=True):
            raise RefusedError("not_an_example", f"{first} and {where} disagree: keep one of them")
    return next(iter(found.values()), {})


def tools(value: Any, name: str) -> list[dict[str, Any]]:
    """Definitions of tools, as a list or as JSON in a text."""
    found = held(value, name)
    items = [parsed(item, name) for item in (found if isinstance(found, list) else [found])]
    for item in items:
        if not isinstance(item, dict):
            raise RefusedError(
                "not_an_example", f"{name} is {kind(item)}, not a list of definitions of tools"
            )
    result: list[dict[str, Any]] = plain(items, name)
    return result


def _said_in(part: dict[str, Any], keys: tuple[str, ...], name: str, left: Left) -> list[str]:
    """The texts of a part, under the first of some keys that has one; none where that is null."""
    present = [key for key in keys if key in part]
    if not present:
        raise RefusedError("null", f"{name} has no {' or '.join(keys[:2])} (it has {listed(list(part))})")
    key = next((key for key in present if part[key] is not None), present[0])
    _leave_rest(part, ("type", key), left)
    if key == "summary" and isinstance(part[key], list):
        # OpenAI's, of what a model has thought: a list of parts.
        return [
            said
            for number, item in enumerate(part[key])
            for said in _summary(item, f"{name}.{key}[{number}]", lambda inner: left(f"{key}[].{inner}"))
        ]
    return [] if part[key] is None else [text(part[key], f"{name}.{key}")]


def _summary(item: Any, name: str, left: Left) -> list[str]:
    if not isinstance(item, dict):
        raise RefusedError("not_text", f"{name} is {kind(item)}, not a part with a text")
    return _said_in(item, ("text",), name, left)


def _leave_rest(value: dict[str, Any], taken: Collection[str], left: Left) -> None:
    for key, item in value.items():
        if key not in taken and holds(item):
            left(key)


def _weight(value: Any, name: str) -> int:
    """A weight, which a column of texts writes as one."""
    given = text(value, name).strip() if isinstance(value, bytes | str) else value
    if isinstance(given, str) and given in ("0", "1"):
        given = int(given)
    if not isinstance(given, bool | int | float) or given not in (0, 1):
        raise RefusedError("not_an_example", f"{name} is {repr(given)[:_SHOWN]}: a weight is 0 or 1")
    return int(given)
