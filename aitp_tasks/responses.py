"""Placeholder until the tolerant reader is merged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator


class UnreadableError(ValueError):
    pass


@dataclass(frozen=True)
class Response:
    value: dict[str, Any]
    repairs: tuple[str, ...]


def read(text: str, schema: Mapping[str, Any]) -> Response:
    try:
        value = json.loads(text)
        Draft202012Validator(schema).validate(value)
        json.dumps(value, ensure_ascii=False).encode()
    except Exception as error:
        raise UnreadableError(type(error).__name__) from None
    return Response(value, ())
