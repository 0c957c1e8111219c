"""The same value in other words: json says that it is the same, and pandas, that it reads it so."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.io.json import ujson_loads

from aitp_tasks.records.spelling import spelt

_USUAL = st.floats(1e-9, 1e25) | st.floats(-1e25, -1e-9)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _USUAL | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_pandas_reads_what_json_reads(value: Any) -> None:
    text = spelt(json.dumps(value, ensure_ascii=False))
    assert json.dumps(json.loads(text)) == json.dumps(value)
    assert json.dumps(ujson_loads(text)) == json.dumps(json.loads(text))


@pytest.mark.parametrize(
    "number", [0.82, -0.7, -5.935, 4.7391, -45.925141, 0.24758563941, 0.006845231161118126]
)
def test_numbers_whose_last_bit_pandas_loses_are_written_otherwise(number: float) -> None:
    assert ujson_loads(repr(number)) != number
    assert ujson_loads(spelt(repr(number))) == json.loads(spelt(repr(number))) == number


@pytest.mark.parametrize(
    "text",
    [
        "[1, 1.0, -0.0, 1e22]",
        '{"0.82": "0.82 \\" 0.7", "b": [18446744073709551615]}',
        "[18446744073709551616, 1]",
    ],
)
def test_what_is_read_right_stays_as_it_is(text: str) -> None:
    assert spelt(text) == text


def test_numbers_in_texts_and_keys_are_none() -> None:
    text = json.dumps({"0.82": ["-0.7", 'a "0.82"', "0.82\\", 0.82]})
    assert spelt(text) == text.replace(", 0.82]", ", 0.820000]")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_becomes_another(number: float) -> None:
    assert json.dumps(json.loads(spelt(repr(number)))) == repr(number)
