"""The keys that a schema asks for, under the spellings that models give them."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aitp_tasks.generation.responses import aliases

#: Opening quotation marks and those that close them.
CLOSING = {
    '"': '"', "'": "'", "`": "`", "“": "”", "”": "”", "„": '“”"', "«": "»", "»": "«", "‘": "’", "’": "’",
    "‚": "‘’",
}  # fmt: skip
#: All quotation marks, as a character class.
QUOTES = "\"'`“”„«»‘’‚"
COMMA = "[,，;；、،]"
#: A key that may be any schema's, with its colon; one in quotation marks.
_KEY_QUOTES = rf"[{QUOTES}*]{{0,4}}+"
ANY_KEY = rf"{_KEY_QUOTES}[^\W\d][\w \-.]{{0,40}}{_KEY_QUOTES}\s*+[:：]"
QUOTED_KEY = r"(?P<open>[\"'“])(?P<other>[^\W\d][\w \-.]{0,40})(?P<close>[\"'”])\s*+[:：]"
_COLON = r"\s*+(?:[:：]|=>?)"
_COMMENT = r"(?:(?://[^\n]{0,100}+\n|/\*[^*]{0,100}+\*/)\s*+)?+"
#: What models put before a name without changing what it says.
_PREFIXES = ("", "the", "my", "your", "final")


class Keys:
    """The properties of a schema.

    Attributes:
        schema: of the object.
        properties: the schema of each property.
        kinds: JSON types of each property.
        item_kinds: JSON types of the items of each property that is a list.
        required: properties without which no object is whole.
        has_text: whether a property, or an item of a list, is text.
        only_list: the one property that a bare list may stand for.
        singular: the name of one item of that list.
        spellings: pattern of a key alone.
        key: matches a key and its colon; groups: quotation marks, the key, quotation marks.
        object: matches an opening brace and a key.
        encoded: matches the beginning of a string that holds the object once more.
        any_object: matches an opening brace and a key, of the schema or in quotation marks.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.properties: Mapping[str, Any] = schema.get("properties", {})
        self.kinds = {name: _kinds(value) for name, value in self.properties.items()}
        self.item_kinds = {name: _kinds(value.get("items", {})) for name, value in self.properties.items()}
        self.has_text = any("string" in kinds for kinds in [*self.kinds.values(), *self.item_kinds.values()])
        self.required = frozenset(schema.get("required", self.properties))
        lists = [name for name, kinds in self.kinds.items() if kinds == {"array"}]
        self.only_list: str | None = lists[0] if len(lists) == 1 else None
        self.singular = squash(self.only_list).removesuffix("s") if self.only_list else None
        spelt = {other: name for name in self.properties for other in aliases.spellings(name)}
        self._names = {prefix + squash(other): spelt[other] for prefix in _PREFIXES for other in spelt}
        self.spellings = "|".join(map(_spelling, spelt)) or "(?!)"
        key = rf"({_KEY_QUOTES})({self.spellings})({_KEY_QUOTES}){_COLON}"
        self.key = re.compile(key, re.IGNORECASE)
        self.object = re.compile(rf"\{{\s*+{_COMMENT}{key}", re.IGNORECASE)
        fence = r"[`\s]*+(?:json\w{0,3}+\s*+)?+"
        self.encoded = re.compile(
            rf"{fence}(?=[{{\"'“])[\s{{\"'“\\]*+(?:{self.spellings})[\"'”\\]*+\s*+[:：\"']", re.IGNORECASE
        )
        self.any_object = re.compile(rf"\{{\s*+{_COMMENT}(?:{key}|{QUOTED_KEY})", re.IGNORECASE)

    def name(self, written: str) -> str | None:
        """The property that a key names."""
        return written if written in self.kinds else self._names.get(squash(written))


def of(schema: Mapping[str, Any]) -> Keys:
    """The keys of a schema; of equal schemas the same ones."""
    return _of(json.dumps(dict(schema)))


@lru_cache(maxsize=16)
def _of(schema: str) -> Keys:
    return Keys(json.loads(schema))


def _kinds(schema: Any) -> set[str]:
    kinds = schema.get("type", []) if isinstance(schema, dict) else []
    return {kinds} if isinstance(kinds, str) else set(kinds)


def squash(key: str) -> str:
    """A key without what its spellings differ in."""
    return re.sub(r"[\W_]", "", key).casefold()


def _spelling(name: str) -> str:
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name)
    return r"[\s_\\\-]{0,3}+".join(re.escape(word) for word in words if word)
