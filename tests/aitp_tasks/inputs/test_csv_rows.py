"""CSV and TSV against Python's own reader, and rows that are damaged."""

import csv
import io
from io import BufferedReader
from itertools import chain
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aitp_tasks.inputs import csv_rows
from aitp_tasks.inputs.rows import Refusal

FIELDS = st.text(st.sampled_from("a\",\t\n;ü \r'") | st.characters(codec="utf-8"), max_size=8)


def read(data: bytes, delimiter: str = ",", start: int = 0) -> list[Any]:
    found = csv_rows.rows(BufferedReader(io.BytesIO(data), 16), delimiter, start)
    return [f"<{row.message}>" if isinstance(row, Refusal) else row for row in found]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(FIELDS, FIELDS), max_size=5),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(0, 6),
    st.booleans(),
)
def test_what_a_writer_has_written_is_read(
    rows: list[tuple[str, str]], delimiter: str, end: str, quoting: Any, start: int, mark: bool
) -> None:
    # A carriage return that is not quoted is the end of a row.
    assume(quoting == csv.QUOTE_ALL or "\r" not in "".join(chain(*rows)))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(
        [("id", "text"), *rows]
    )
    data = (b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode()
    expected = [{"id": left, "text": right} for left, right in rows]
    assert read(data, delimiter, start) == expected[start:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"id,text\n", []),
        (b"\n\nid,text\n\n1,one\n\n", [("1", "one")]),
        (b"id,text\n1,one,more\n2\n3,three\n", ["line 2: 3 fields", "line 3: 1 fields", ("3", "three")]),
        (b'id,text\n1,"one" more\n2,two\n', ["line 2: ',' expected", ("2", "two")]),
        (b'id,text\n1,"one ""quoted"", and\nmore"\n2,two', [("1", 'one "quoted", and\nmore'), ("2", "two")]),
        (b'id,text\n1,"one\n2,two\n3,three\n', ["lines 2 to 4: unexpected end of data"] * 3),
        (b'id,text\n1,"one\n2,"two"\n3,three\n', ["lines 2 to 3: ',' expected"] * 2 + [("3", "three")]),
        (b"id,text\n1,\xff\n", [("1", "\udcff")]),
        (b"id,text\r1,one\r2,two", [("1", "one"), ("2", "two")]),
    ],
)
def test_a_damaged_row_costs_the_lines_that_it_takes(data: bytes, expected: list[Any]) -> None:
    found = read(data)
    assert len(found) == len(expected)
    for row, want in zip(found, expected, strict=True):
        if isinstance(want, tuple):
            assert row == dict(zip(("id", "text"), want, strict=True))
        else:
            assert row.startswith(f"<{want}")


def test_a_name_that_is_there_twice_is_told() -> None:
    with pytest.raises(ValueError, match="its header names text twice"):
        read(b"text,text\na,b\n")


def test_columns_without_a_name_cost_nothing() -> None:
    assert read(b"text,,,\na,,,\nb,,2,3\n") == [{"text": "a", "": ""}, {"text": "b", "": "2"}]
    assert read(b",text\n0,a\n") == [{"": "0", "text": "a"}]


def test_a_row_that_is_too_long_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "LONGEST_ROW", 100)
    told = "<line 3 has 250 characters: the most are 100>"
    for long in (b"x" * 249 + b"\n", b'"' + b'x""' * 82 + b'x"\n', b'"' + b"x\t," * 82 + b'x"\n'):
        assert len(long) == 250
        assert read(b"text\nfirst\n" + long + b"last\n") == [{"text": "first"}, told, {"text": "last"}]
    assert read(b"text\n" + b"x" * 101) == ["<line 2 has 101 characters: the most are 100>"]
    assert read(b"text\n" + b"x" * 99 + b"\n") == [{"text": "x" * 99}]
    # Behind a quote that is open for so long, nobody knows whether a line is in it.
    with pytest.raises(ValueError, match="lines 2 to 51: a row of more than 100 characters, or a quote"):
        read(b'text\n"' + b"x\n" * 60 + b'"\nlast\n')
    with pytest.raises(
        ValueError, match="line 2 has more than 100 characters, and a quote in it is not closed"
    ):
        read(b'text\n"' + b"x" * 200 + b"\nlast\n")


def test_a_field_of_many_megabytes_is_a_row() -> None:
    text = "word " * 4_000_000
    assert [
        row["text"] for row in csv_rows.rows(BufferedReader(io.BytesIO(f"text\n{text}\n".encode())), ",")
    ] == [text]
