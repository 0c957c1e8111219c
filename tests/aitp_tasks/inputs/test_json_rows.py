"""JSON arrays and JSON Lines from real streams, cut into buffers of a few bytes."""

import json
import tracemalloc
from io import BufferedReader, BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.inputs import json_rows
from aitp_tasks.inputs.rows import Refusal

_TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=10,
)


def stream(data: bytes, buffer: int = 8) -> BufferedReader:
    return BufferedReader(BytesIO(data), buffer)


def classes(found: Any) -> list[Any]:
    return [value.error_class if isinstance(value, Refusal) else value for value in found]


@given(st.lists(_VALUES, max_size=8), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_an_array_reads_as_json_reads_it(
    values: list[Any], buffer: int, indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "BUFFER", buffer)
        assert list(json_rows.array(stream(data, buffer))) == json.loads(data)


@given(st.lists(_VALUES, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n \t\n"]), st.integers(0, 10))
def test_lines_read_as_json_reads_them(values: list[Any], newline: str, start: int) -> None:
    data = newline.join(map(json.dumps, values)).encode()
    assert list(json_rows.lines(stream(data), start)) == values[start:]


@pytest.mark.parametrize("data", [b"", b" \n", b"\xef\xbb\xbf", b"[]", b" [ \n ] ", b"\xef\xbb\xbf[]"])
def test_nothing_is_no_rows(data: bytes) -> None:
    read = stream(data)
    assert list(json_rows.array(read) if json_rows.is_array(read) else json_rows.lines(read)) == []


@pytest.mark.parametrize(
    ("data", "array"),
    [
        (b"[1]", True),
        (b'{"a": 1}', False),
        (b'\xef\xbb\xbf\n{"a": 1}\n{"b": 2}', False),
        (b'{"a": oops}\n', False),
    ],
)
def test_arrays_and_lines_are_told_apart(data: bytes, array: bool) -> None:
    assert json_rows.is_array(stream(data, 64)) is array


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"text", "neither"), (b'"text"', "neither")],
)
def test_what_is_neither_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_rows.is_array(stream(data, 64))


def test_a_bad_line_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 20_000)
    bad = [b"{", b'{"a": 1', b"{} {}", b"\xff", b'"' + b"x" * 30_000 + b'"', b"[" * 10_000, b"'a'", b"\x00"]
    data = b'{"first": "row"}\n' + b"\n".join(bad) + b'\n{"last": "row"}'
    refused = ["not_json"] * 3 + ["not_utf8", "too_long"] + ["not_json"] * 3
    assert classes(json_rows.lines(stream(data))) == [{"first": "row"}, *refused, {"last": "row"}]


@pytest.mark.parametrize("buffer", [1, 7, 1000])
def test_bytes_that_are_not_utf8_stay_in_their_item(buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "BUFFER", buffer)
    found = list(json_rows.array(stream(b'["a", "\xff\xe4\xbd", "\xe4\xbd\xa0", "\\ud800"]')))
    assert found == ["a", "\udcff\udce4\udcbd", "你", "\ud800"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'["a", "b', "item 1, byte 6: Unterminated string"),
        (b'["a", "b"', "item 1, byte 9: neither a comma nor the closing bracket follows"),
        (b'["a", b"]', "item 1, byte 6: Expecting value"),
        (b'["a" "b"]', "item 0, byte 5: neither a comma"),
        (b'["a", ]', "item 1, byte 6: "),
        (b'["\xe4\xbd\xa0"] ["b"]', "item 0, byte 8: text follows"),
        (b"[", "item 0, byte 1: Expecting value"),
        (b"[" * 100_000, "item 0, byte 100000: it does not end"),
        (b'["' + b"x" * 100_000, "item 0, byte 10000.: it does not end|item 0, byte 1: Unterminated string"),
    ],
)
@pytest.mark.parametrize("buffer", [1, 8, 200_000])
def test_a_broken_array_names_item_and_byte(
    data: bytes, message: str, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "BUFFER", max(buffer, len(data) // 100))
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 50_000)
    with pytest.raises(ValueError, match=message):
        list(json_rows.array(stream(data, buffer)))


@given(st.lists(_VALUES, max_size=6), st.integers(1, 30), st.integers(5, 60), st.booleans())
def test_an_item_that_is_too_large_is_refused_alone(
    values: list[Any], buffer: int, longest: int, ascii_only: bool
) -> None:
    data = json.dumps(values, ensure_ascii=ascii_only).encode(errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "BUFFER", buffer)
        patch.setattr(json_rows, "LONGEST_ROW", longest)
        found = list(json_rows.array(stream(data, buffer)))
    expected = json.loads(data)
    assert len(found) == len(expected)
    for item, value in zip(found, expected, strict=True):
        size = len(json.dumps(value, ensure_ascii=ascii_only))
        if size <= longest:
            assert item == value
        elif size > longest + buffer + json_rows._CUT:
            assert isinstance(item, Refusal)
            assert item.error_class == "too_long"
        else:
            assert item == value or isinstance(item, Refusal)


HOLLOW = b'{"text": "t", "x": [' + b"{}," * 1_500_000 + b"{}]}"


@pytest.mark.parametrize(
    ("row", "refused"),
    [
        (HOLLOW, "too_many_values"),
        (b"[" * 100_000 + b"]" * 100_000, "not_json"),
        (b'{"text": "' + b'a, {b} [c] \\" \\\\' * 200_000 + b'"}', None),
        (b'{"text": "' + "ü, [".encode() * 300_000 + b'"}', None),
        (b"[" + b"1," * 300_000 + b"1]", None),
    ],
    ids=["objects", "nested", "escapes", "text", "numbers"],
)
def test_memory_is_bounded_by_the_bytes_of_a_row_and_what_a_long_text_holds_does_not_count(
    row: bytes, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "MOST_VALUES", 2**20 if refused is None else 2**19)
    monkeypatch.setattr(json_rows, "BUFFER", 2**18)
    tracemalloc.start()
    try:
        (line,) = json_rows.lines(stream(row, 2**16))
        first, item, last = json_rows.array(stream(b"[1, " + row + b', {"a": "]"}]', 2**16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (first, last) == (1, {"a": "]"})
    if refused is None:
        assert line == item == json.loads(row)
    else:
        assert classes([line, item]) == [refused, refused]
        # A hollow row, read, takes 30 times its bytes.
        assert peak < 14 * len(row)


def test_an_item_is_read_as_soon_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "BUFFER", 100)
    source = BytesIO(b"[" + b'{"a": "b"}, ' * 10_000 + b"null]")
    items = json_rows.array(BufferedReader(source, 100))
    next(items)
    assert source.tell() <= 300
    assert sum(1 for _ in items) == 10_000


def test_a_number_has_any_number_of_digits() -> None:
    assert list(json_rows.array(stream(b"[" + b"9" * 5000 + b", 12]"))) == [float("inf"), 12.0]
