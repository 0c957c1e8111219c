"""Column paths, decoding and joining, on real Arrow batches and rows of JSON."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.errors import InputError
from aitp_tasks.inputs.paths import TextPath, decode, join
from aitp_tasks.inputs.rows import Refusal


def batch(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema)


NESTED: list[dict[str, Any]] = [
    {
        "conversations": [{"from": "human", "value": "first"}, {"from": "gpt", "value": "second"}],
        "meta": {"t": "m"},
    },
    {"conversations": [], "meta": {"t": None}},
    {"conversations": None, "meta": None},
    {"conversations": [{"from": "human", "value": "third"}], "meta": {"t": "n"}},
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("conversations[0].value", [b"first", None, None, b"third"]),
        ("conversations[1].value", [b"second", None, None, None]),
        ("meta.t", [b"m", None, None, b"n"]),
    ],
)
def test_nested_paths(path: str, expected: list[bytes | None]) -> None:
    text_path = TextPath(path)
    data = batch(NESTED)
    text_path.check(data.schema, "shard")
    assert text_path.extract(data) == expected
    # A slice of a batch has offsets that do not start at zero.
    assert text_path.extract(data.slice(1)) == expected[1:]


_CONVERSATIONS = st.lists(
    st.none() | st.lists(st.none() | st.fixed_dictionaries({"value": st.none() | st.text()}), max_size=3),
    max_size=8,
)


@given(_CONVERSATIONS, st.integers(0, 3), st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_an_element_of_a_list_stays_in_its_row(
    lists: list[Any], index: int, offset: int, length: int, large: bool
) -> None:
    list_of = pa.large_list if large else pa.list_
    kind = list_of(pa.struct([("value", pa.string())]))
    data = pa.RecordBatch.from_arrays([pa.array(lists, kind)], ["c"]).slice(offset, length)
    expected = [
        (turns[index] or {}).get("value") if turns and index < len(turns) else None
        for turns in lists[offset : offset + length]
    ]
    found = TextPath(f"c[{index}].value").extract(data)
    assert found == [None if text is None else text.encode() for text in expected]


def test_a_list_that_is_null_may_still_have_items_below_it() -> None:
    values = pa.array(["a", "hidden", "b"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), values, mask=pa.array([False, True, False]))
    assert TextPath("c[0]").extract(pa.RecordBatch.from_arrays([lists], ["c"])) == [b"a", None, b"b"]


@pytest.mark.parametrize("path", ["t", "t.inner", "t[0].inner"])
def test_a_column_of_nothing_but_nulls_is_null(path: str) -> None:
    data = pa.RecordBatch.from_arrays([pa.nulls(2)], ["t"])
    TextPath(path).check(data.schema, "shard")
    assert TextPath(path).extract(data) == [None, None]


def test_a_column_that_is_there_twice_is_named() -> None:
    schema = pa.schema([("text", pa.string()), ("text", pa.string())])
    with pytest.raises(InputError, match="shard has several columns 'text'"):
        TextPath("text").check(schema, "shard")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"a", b"b"], "a\nb"),
        ([b" a ", None, b"", b"\n", "\u3000".encode(), b"b"], " a \nb"),
        ([None, b"b"], "b"),
        ([None, None], "<null>"),
        ([None, b" "], "<empty>"),
        ([b"a", b"\xff"], "<not_utf8>"),
        ([b"\x00", b"\x01"], "<control_characters>"),
        ([b" a "], " a "),
    ],
)
def test_columns_that_are_not_blank_are_joined(values: list[bytes | None], expected: str) -> None:
    found = join(values)
    assert (f"<{found.error_class}>" if isinstance(found, Refusal) else found) == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_any_arrow_type(kind: pa.DataType) -> None:
    data = pa.RecordBatch.from_arrays([pa.array(["a", None, "b"]).cast(kind)], ["text"])
    TextPath("text").check(data.schema, "shard")
    assert TextPath("text").extract(data) == [b"a", None, b"b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("body", "has no column 'body' .it has conversations, meta."),
        ("meta.u", "no field 'u'"),
        ("meta[0]", "not a list"),
        ("meta", "not text"),
        ("[0].x", "does not start with a column name"),
        ("conversations[x]", "is not a column path"),
        ("", "does not start with a column name"),
    ],
)
def test_wrong_paths_are_named(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextPath(path).check(batch(NESTED).schema, "shard-7")


@pytest.mark.parametrize(
    ("value", "error_class"),
    [
        (None, "null"),
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"\xff\xfe", "not_utf8"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not_utf8"),
        (b"\x00\x01\x02 \n", "control_characters"),
    ],
)
def test_what_is_no_text_is_refused_with_its_class(value: bytes | None, error_class: str) -> None:
    refused = decode(value)
    assert isinstance(refused, Refusal)
    assert refused.error_class == error_class


@pytest.mark.parametrize(
    "text", ["a", "{}", "<|im_start|>", "nul\x00inside", "𝒳 \U0010ffff", "x" * 1_000_000]
)
def test_every_other_text_is_unchanged(text: str) -> None:
    assert decode(text.encode()) == text


def test_rows_that_are_not_utf8_cost_themselves_only() -> None:
    column = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xff\xfeb")
    )
    values = TextPath("text").extract(pa.RecordBatch.from_arrays([column], ["text"]))
    assert [decode(value) if value == b"a" or value == b"b" else type(decode(value)) for value in values] == [
        "a",
        Refusal,
        "b",
    ]
