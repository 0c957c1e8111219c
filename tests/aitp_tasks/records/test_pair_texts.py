"""Pairs whose texts lie in a file are the pairs that were given."""

import gc
import os

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.records.pair_texts import PairTexts

any_text = st.text(st.characters(), max_size=20)
turns = st.lists(st.fixed_dictionaries({"role": any_text, "content": any_text}), max_size=3)


@given(
    st.lists(st.tuples(turns, st.dictionaries(any_text.filter(lambda name: name != "messages"), any_text)))
)
def test_equals_what_was_given_in_any_order_and_each_time(
    given_: list[tuple[list[object], dict[str, str]]],
) -> None:
    texts = PairTexts()
    pairs = [{**columns, "messages": messages} for messages, columns in given_]
    held = []
    for pair in pairs:
        held.append(texts.held(pair))
        # Reading between two writes moves neither.
        assert dict(held[0]) == pairs[0]
    assert [dict(one) for one in reversed(held)] == list(reversed(pairs))
    assert [len(one) for one in held] == [len(pair) for pair in pairs]
    assert all("messages" in one and one.get("missing " * 9) is None for one in held)


def test_is_a_row_of_a_table_and_its_file_goes_with_the_last_pair() -> None:
    # What other tests have left open is closed by the same collection.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    held = [
        PairTexts().held({"pair_id": "a", "messages": [{"role": "user", "content": "\ud800 é"}], "row": None})
    ]
    held = [held[0], PairTexts().held({**held[0], "messages": [{"role": "user", "content": "b"}], "row": 2})]
    assert held[0]["messages"][0]["content"] == "\ud800 é"
    table = pa.Table.from_pylist(
        held[1:], pa.schema([("pair_id", pa.string()), ("row", pa.int64()), ("x", pa.string())])
    )
    assert table.to_pylist() == [{"pair_id": "a", "row": 2, "x": None}]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del held
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
