"""What LLaMA-Factory's export holds of a conversation, by cases whose author had not read the code."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.dataset.export import ALPACA, SHAREGPT
from aitp_tasks.dataset.sharegpt import record
from aitp_tasks.inputs.examples import ROLES
from tests.aitp_tasks.dataset.layout_cases import EXPORTED, Exported, LeftOut
from tests.aitp_tasks.dataset.test_sharegpt import as_row, exported, read_in
from tests.aitp_tasks.llama_factory import LlamaFactory

#: Said by a way that LLaMA-Factory has of its own, where the case's author knew of none: its templates find
#: calls between ``<tool_call>`` marks behind a text, and a test beside this one shows that they learn both.
OWN_WAY = {"text_beside_a_call"}


def example(case: Exported, folder: Path) -> dict[str, Any] | None:
    """The conversation as it is read from an SFT set; None where it is no example."""
    row = {"messages": case.messages} | ({"tools": case.tools} if case.tools else {})
    (folder / "set.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = read_in(folder, "set.jsonl")
    return found and as_row(found)


@pytest.mark.parametrize("case", EXPORTED, ids=lambda case: case.name)
def test_it_is_said_or_left_out(case: Exported, tmp_path: Path) -> None:
    read = example(case, tmp_path)
    made = record(**read) if read else "no example of any kind"
    if isinstance(case.expected, LeftOut):
        assert isinstance(made, str) == (case.name not in OWN_WAY)
        return
    assert not isinstance(made, str)
    assert (made.system or None) == case.system
    assert len(made.turns) == len(case.expected)
    for ours, theirs in zip(made.turns, case.expected, strict=True):
        assert ours["from"] == theirs["from"]
        if ours["from"] == "function_call":
            assert calls(ours["value"]) == calls(theirs["value"])
        else:
            assert ours["value"] == theirs["value"]


def calls(value: str) -> list[Any]:
    found = json.loads(value)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("case", EXPORTED, ids=lambda case: case.name)
def test_a_conversation_that_was_read_by_no_form_is_said_or_left_out_too(case: Exported) -> None:
    messages = [turn | {"content": turn["content"] or ""} for turn in case.messages]
    if not any(turn.get("tool_calls") for turn in messages):
        made = record(messages, case.tools or [])
        assert isinstance(made, str) == isinstance(case.expected, LeftOut)
        if not {turn["role"] for turn in messages} <= {*ROLES}:
            assert made == "unknown_role"


def test_it_takes_just_as_many_as_are_stated(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    examples = [read for case in EXPORTED if (read := example(case, tmp_path)) is not None]
    told = exported(tmp_path, *examples).told
    rows = told.rows["data/train-00000-of-00001.parquet"]
    assert rows == len(examples) > 40
    factory = LlamaFactory(tmp_path_factory.mktemp("llama-factory"))
    taken = {}
    for file, dataset in ((SHAREGPT, "aitp"), (ALPACA, "aitp_alpaca")):
        read = factory.read(tmp_path, dataset)
        assert all(one is not None for one in read)
        assert len(read) == told.rows[file] == rows - told.left_out[file].total()
        taken[file] = [one for one in read if one is not None]
    assert told.left_out[SHAREGPT].total() > 10
    assert told.left_out[ALPACA] - told.left_out[SHAREGPT] == {
        "tool_calls": told.rows[SHAREGPT] - told.rows[ALPACA]
    }
    # The same conversations, in the same order and the same words.
    spoken = [
        one for one in taken[SHAREGPT] if all(turn["role"] in ("user", "assistant") for turn in one.turns)
    ]
    assert spoken == taken[ALPACA]
