"""Conversations in Alpaca's form, as LLaMA-Factory reads them: the last question and answer, those before
as ``history``.

It says what the record in ShareGPT's form says, in the same words; calls of tools and their
results have no place in it.
"""

from typing import Any

from aitp_tasks.dataset.sharegpt import Record

HISTORY = "history"


def row(record: Record) -> dict[str, Any] | str:
    """The record in this form, or the reason why the form cannot say it."""
    if any(turn["from"] in ("function_call", "observation") for turn in record.turns):
        return "tool_calls"
    *before, last = zip(record.turns[::2], record.turns[1::2], strict=True)
    question, answer = (turn["value"] for turn in last)
    history = [[turn["value"] for turn in pair] for pair in before]
    return {"instruction": question, "input": "", "output": answer, HISTORY: history}
