"""What a training is validated on: the half of what is held out that has files of its own."""

from typing import Any

from aitp_tasks.records import conversations, tables
from aitp_tasks.records.held_out import PAIRS, SFT, VALIDATION
from aitp_tasks.records.run import Run


def rows(run: Run) -> list[dict[str, Any]]:
    """Conversations with ``messages`` and ``tools``, of SFT examples and pairs."""
    found = []
    for key in _keys(run):
        for row in tables.read(run.storage, key).to_pylist():
            messages, tools = conversations.read(row["messages"], row.get(conversations.TOOLS))
            found.append({"messages": messages, conversations.TOOLS: tools})
    return found


def identity(run: Run) -> list[str]:
    """What they are by content; empty where a training is not validated."""
    return [key.rpartition("/")[2] for key in _keys(run)]


def _keys(run: Run) -> list[str]:
    outputs = run.require_manifest("assemble").outputs
    names = [f"{VALIDATION}_{kind}" for kind in (SFT, PAIRS)]
    return [outputs[name] for name in names if name in outputs]
