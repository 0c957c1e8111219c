"""Numbers of JSON, written so that datasets reads them as they are.

datasets gives trainers objects through pandas' reader of JSON, which takes a number's digits for a whole
number and multiplies that by a power of ten: the last bit of many a number is lost, and 0.82 becomes
0.8200000000000001 in what a model learns. The same number in other words, here 0.820000, it reads right; so
does everybody else.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

#: A text of JSON, or a number.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
#: So many zeros are tried behind a number, and so many powers of ten beside it. With these every number
#: from 1e-10 to 1e30 was found, of thousands.
_MOST_ZEROS, _MOST_SHIFTS = 7, 22


def spelt(text: str) -> str:
    """JSON of the same value, whose numbers pandas reads as they are.

    A number for which no such spelling is found, which are some below 1e-10 and above 1e30, stays as it is.
    """
    if _is_read_as(text, json.loads(text)):
        return text
    return _TOKEN.sub(lambda token: _number(token[0]) if token[0][0] != '"' else token[0], text)


def _number(written: str) -> str:
    value = json.loads(written)
    if isinstance(value, int):
        # With a point it would be none any more.
        return written
    return next((other for other in _spellings(written) if _is_read_as(other, value)), written)


def _is_read_as(written: str, value: Any) -> bool:
    from pandas.io.json import ujson_loads  # type: ignore[attr-defined]

    try:
        return bool(ujson_loads(written) == value)
    except ValueError:
        # More digits than it takes.
        return False


def _spellings(written: str) -> Iterator[str]:
    """The number in other words: as it is, with zeros behind it, and with its point elsewhere."""
    yield written
    sign, digits, exponent = Decimal(written).as_tuple()
    assert isinstance(exponent, int)
    plain = f"{Decimal(written):f}"
    plain += "" if "." in plain else ".0"
    yield from (plain + "0" * zeros for zeros in range(_MOST_ZEROS + 1))
    for shift in range(1, _MOST_SHIFTS + 1):
        for power in (shift, -shift):
            yield f"{Decimal((sign, digits, exponent - power)):f}e{power}"
