"""The keys that a schema asks for, under the spellings that models give them."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

#: Opening quotation marks and those that close them.
CLOSING = {
    '"': '"', "'": "'", "`": "`", "“": "”", "”": "”", "„": "“”", "«": "»", "»": "«", "‘": "’", "’": "’",
    "‚": "‘’",
}  # fmt: skip
#: All quotation marks, as a character class.
QUOTES = "\"'`“”„«»‘’‚"
COMMA = "[,，]"
#: A key that may be any schema's, with its colon.
_KEY_QUOTES = rf"[{QUOTES}*]{{0,4}}+"
_COLON = r"\s*+[:：]"
ANY_KEY = rf"{_KEY_QUOTES}[^\W\d][\w \-.]{{0,40}}{_KEY_QUOTES}{_COLON}"


class Keys:
    """The properties of a schema.

    Attributes:
        schema: of the object.
        properties: the schema of each property.
        kinds: JSON types of each property.
        item_kinds: JSON types of the items of each property that is a list.
        required: properties without which no object is whole.
        only_list: the one property that a bare list may stand for.
        spellings: pattern of a key alone.
        key: matches a key and its colon; groups: quotation marks, the key, quotation marks.
        object: matches an opening brace and a key.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.properties: Mapping[str, Any] = schema.get("properties", {})
        self.kinds = {name: _kinds(value) for name, value in self.properties.items()}
        self.item_kinds = {name: _kinds(value.get("items", {})) for name, value in self.properties.items()}
        self.required = frozenset(schema.get("required", self.properties))
        lists = [name for name, kinds in self.kinds.items() if kinds == {"array"}]
        self.only_list = lists[0] if len(lists) == 1 else None
        self._names = {_squash(name): name for name in self.properties}
        self.spellings = "|".join(map(_spelling, self.properties)) or "(?!)"
        key = rf"({_KEY_QUOTES})({self.spellings})({_KEY_QUOTES}){_COLON}"
        comment = r"(?:(?://[^\n]{0,100}+\n|/\*[^*]{0,100}+\*/)\s*+)?+"
        self.key = re.compile(key, re.IGNORECASE)
        self.object = re.compile(rf"\{{\s*+{comment}{key}", re.IGNORECASE)

    def name(self, written: str) -> str | None:
        """The property that a key names."""
        return written if written in self.kinds else self._names.get(_squash(written))


def of(schema: Mapping[str, Any]) -> Keys:
    """The keys of a schema; of equal schemas the same ones."""
    return _of(json.dumps(dict(schema)))


@lru_cache(maxsize=16)
def _of(schema: str) -> Keys:
    return Keys(json.loads(schema))


def _kinds(schema: Any) -> set[str]:
    kinds = schema.get("type", []) if isinstance(schema, dict) else []
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _squash(key: str) -> str:
    return re.sub(r"[\W_]", "", key).casefold()


def _spelling(name: str) -> str:
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name)
    return r"[\s_\\\-]{0,3}+".join(re.escape(word) for word in words if word)
