"""From a response's text to an object of its prompt's schema."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, ValidationError


class UnreadableError(ValueError):
    """A text is no object of the schema; says why, without the text."""


@dataclass(frozen=True)
class Response:
    """A response that was read.

    Attributes:
        value: the object.
        repairs: what had to be mended in the text; empty where it was JSON of the schema.
    """

    value: dict[str, Any]
    repairs: tuple[str, ...] = ()


def read(text: str, schema: Mapping[str, Any]) -> Response:
    """Read a response that is JSON.

    Raises:
        UnreadableError: it is not, does not fit the schema, or has a lone surrogate.
    """
    try:
        value = json.loads(text)
        Draft202012Validator(schema).validate(value)
        # It can be written in JSON's escapes but in no UTF-8 file.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableError("the response has a lone surrogate") from None
    except (ValueError, RecursionError, ValidationError) as error:
        reason = f"{type(error).__name__} in a response of {len(text)} characters"
        raise UnreadableError(reason) from None
    return Response(value)
