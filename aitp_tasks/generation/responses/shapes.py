"""From what a response holds to the members that a schema asks for.

Models wrap the object (``{"result": {...}}``, a tool call, a chat message), divide
it, number its items, give a mark with its reason, and add members. Each is taken
for what it says if it says one thing; a member that is not asked for is dropped
only if it cannot change what the others say.
"""

import re
from typing import Any

from aitp_tasks.generation.responses import remarks
from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.keys import Keys, squash
from aitp_tasks.generation.responses.lines import ASKS
from aitp_tasks.generation.responses.values import Members, Repairs, within

_MOST_LAYERS = 6
#: What stands beside the content in a tool call or a chat message, if it is a word or a number.
_ENVELOPE = frozenset(
    {"name", "type", "id", "role", "index", "number", "tool", "toolname", "function", "action", "callid"}
    | {"recipientname", "object", "model"}
)
#: Under which the value itself stands, beside what explains it.
_VALUE_KEYS = frozenset(
    {"score", "value", "mark", "rating", "grade", "points", "result", "needed", "required", "answer", "text"}
    | {"content"}
)
_SCALARS = {"string", "integer", "number", "boolean"}
_ORDINALS = {"first": 1, "one": 1, "second": 2, "two": 2, "third": 3, "three": 3}
_NUMBERED = re.compile(rf"(?P<stem>\D*?)(?P<number>\d{{1,2}}|{'|'.join(_ORDINALS)})(?P<behind>\D*)")
_OBJECT = re.compile(r"\s*+\{\s*+[\"'].*\}\s*+", re.DOTALL)
#: Types of a message's parts that are no text of it.
_THOUGHTS = frozenset({"thinking", "reasoning", "redactedthinking"})


def unwrapped(value: Any, keys: Keys, repairs: Repairs) -> Members | str | None:
    """The members among which are those asked for, or a string that holds them; None for neither."""
    for _ in range(_MOST_LAYERS):
        if isinstance(value, str):
            return value
        if isinstance(value, Members):
            if holds(value, keys):
                inner = _encoded(value, keys)
                return value if inner is None else inner
            value = _content(value)
            if _are_strings(value) and not all(item.endswith(ASKS) for item in value):
                return None
            repairs["wrapper"] = None
        elif keys.only_list and _are_strings(value):
            repairs["bare list"] = None
            return Members([(keys.only_list, value)])
        elif value and isinstance(value, list) and all(isinstance(item, Members) for item in value):
            repairs["list of objects"] = None
            value = Members(member for item in value for member in item if not _is_thought(item))
        else:
            return None
    return None


def _are_strings(value: Any) -> bool:
    return bool(value) and isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_thought(part: Members) -> bool:
    return any(squash(key) == "type" and squash(str(value)) in _THOUGHTS for key, value in part)


def holds(members: Members, keys: Keys) -> bool:
    """Whether a member is one that is asked for, or an item of its list."""
    return any(keys.name(key) is not None or _place(key, keys) is not None for key, _ in members)


def _content(members: Members) -> Any:
    """What a wrapper holds: the value of its only member that is not about the wrapper."""
    content = [member for member in members if not _is_envelope(*member)]
    if len(content) != 1 or remarks.holds_no_answer(content[0][0]):
        return None
    return content[0][1]


def _is_envelope(key: str, value: Any) -> bool:
    return not isinstance(value, list) and squash(key) in _ENVELOPE


def _encoded(members: Members, keys: Keys) -> str | None:
    """The value of an only member that is the whole object, or the list, once more as a string."""
    if len(members) != 1 or not isinstance(members[0][1], str):
        return None
    name, text = keys.name(members[0][0]), members[0][1]
    if (name is not None and name == keys.only_list) or not keys.encoded.match(text):
        return text if name == keys.only_list else None
    text = text.strip("` \n").removeprefix("json").lstrip()
    if not keys.object.match(text) or not text.endswith("}"):
        raise UnreadableError(f"an object within a string: {excerpt(text)}")
    return text


def shaped(members: Members, keys: Keys, repairs: Repairs) -> Members:
    """The members asked for, and none besides.

    Raises:
        UnreadableError: another one may change what they say.
    """
    named = Members((key, value) for key, value in members if keys.name(key) is not None)
    given = {keys.name(key) for key, _ in named}
    others = [member for member in members if keys.name(member[0]) is None]
    if keys.only_list and keys.only_list not in given:
        others = _take_items(others, named, keys, repairs)
    if others:
        _check_others(members, others, keys)
        repairs["other members"] = None
    return Members((key, _value(value, keys, keys.name(key) or key, repairs)) for key, value in named)


def _take_items(others: list[Any], named: Members, keys: Keys, repairs: Repairs) -> list[Any]:
    """Add the list that ``question_1`` and ``question_2`` make, or ``question``; return what is left."""
    taken = [member for member in others if _place(member[0], keys) is not None]
    if taken and keys.only_list:
        repairs["key"] = None
        is_list = len(taken) == 1 and isinstance(taken[0][1], list)
        named.append((keys.only_list, taken[0][1] if is_list else _in_order(taken, keys)))
    return [member for member in others if _place(member[0], keys) is None]


def _in_order(members: list[Any], keys: Keys) -> list[Any]:
    places = [_place(key, keys) for key, _ in members]
    values = [value for _, value in members]
    distinct = len(values) == len({str(value) for value in values})
    if not distinct or (any(places) and places != list(range(1, len(places) + 1))):
        raise UnreadableError(f"what the items of {keys.only_list} are is not clear")
    return values


def _place(key: str, keys: Keys) -> int | None:
    """The number that a key gives to an item of the list, 0 for none; None if it names no item."""
    key = squash(key)
    if keys.singular is None or len(key) > len(keys.singular) + 6:
        return None
    if key == keys.singular:
        return 0
    match = _NUMBERED.fullmatch(key)
    if match is None or {match["stem"], match["behind"]} - {"", "q", keys.singular}:
        return None
    if not match["stem"] and not match["behind"]:
        return None
    return _ORDINALS.get(match["number"]) or int(match["number"])


def _check_others(members: Members, others: list[Any], keys: Keys) -> None:
    last = max((place for place, (key, _) in enumerate(members) if keys.name(key)), default=0)
    behind = {id(member) for member in members[last + 1 :]}
    for member in others:
        key, value = member
        objects = [inner for inner in within(value) if isinstance(inner, Members)]
        names_any = any(keys.name(inner) for each in objects for inner, _ in each)
        taken_back = id(member) in behind and isinstance(value, str) and remarks.takes_back(value)
        if taken_back or not _is_harmless(key, value, keys) or names_any:
            raise UnreadableError(f"another member may change the object: {excerpt(key)}")


def _is_harmless(key: str, value: Any, keys: Keys) -> bool:
    """Whether a member that is not asked for says nothing, or nothing of what those say that are."""
    if _place(key, keys) is not None:
        return False
    if value in (None, "", []) or remarks.is_note(key, value, keys.has_text):
        return True
    rests = [squash(key).replace(squash(name), "", 1) for name in keys.kinds if squash(name) in squash(key)]
    return isinstance(value, str) and any(rest and remarks.is_note(rest, value) for rest in rests)


def _value(value: Any, keys: Keys, name: str, repairs: Repairs) -> Any:
    """A member's value without what is said of it, or of its items."""
    kinds = keys.kinds.get(name, set())
    if isinstance(value, Members) and len(kinds) == 1 and kinds <= _SCALARS:
        return _said_within(value, {squash(name)}, keys, repairs)
    if "string" not in keys.item_kinds.get(name, set()) or not isinstance(value, list):
        return value
    items: list[Any] = value
    if isinstance(value, Members):
        places = [_place(key, keys) or _place(f"q{key}", keys) for key, _ in value]
        if places != list(range(1, len(value) + 1)):
            return value
        repairs["numbered items"] = None
        items = [inner for _, inner in value]
    return [_item(item, keys, repairs) for item in items]


def _item(item: Any, keys: Keys, repairs: Repairs) -> Any:
    if isinstance(item, str) and _OBJECT.fullmatch(item):
        raise UnreadableError(f"an item is an object within a string: {excerpt(item)}")
    if not isinstance(item, Members):
        return item
    return _said_within(item, {f"{keys.singular}", f"{keys.singular}text"}, keys, repairs)


def _said_within(members: Members, names: set[str], keys: Keys, repairs: Repairs) -> Any:
    """The value among notes on it; the members themselves where that is not clear."""
    said = [member for member in members if squash(member[0]) in names]
    said = said or [member for member in members if squash(member[0]) in _VALUE_KEYS]
    others = [(key, value) for key, value in members if (key, value) not in said]
    if len(said) != 1 or not all(_is_envelope(*other) or _is_harmless(*other, keys) for other in others):
        return members
    repairs["nested value"] = None
    return said[0][1]
