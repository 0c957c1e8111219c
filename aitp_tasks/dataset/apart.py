"""What a dataset version does not hold, because models are to be compared on it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from aitp_tasks.inputs.examples import Example, Turn
from aitp_tasks.inputs.forms import compared
from aitp_tasks.records import conversations, digest, held_out, tables
from aitp_tasks.records.held_out import PAIRS, SFT
from aitp_tasks.storage import Storage


class Apart:
    """Collects what is held out: rows with an ``id``, and the ``identity`` that they are held out by."""

    def __init__(self, share: float, pairs: Iterable[Mapping[str, Any]]) -> None:
        """
        Args:
            share: that is held out.
            pairs: all pairs of a run, in training or not.
        """
        self._share = share
        self._rows: dict[str, dict[str, dict[str, Any]]] = {SFT: {}, PAIRS: {}}
        self._texts: set[str] = set()
        self._trained: set[str] = set()
        for pair in pairs:
            if held_out.is_held_out(pair["doc_id"], share):
                self._add(PAIRS, pair["pair_id"], pair["doc_id"], pair["messages"], [], pair)

    @property
    def pairs(self) -> int:
        """How many pairs are held out."""
        return len(self._rows[PAIRS])

    def takes(self, example: Example) -> bool:
        """Whether an SFT example is held out; else it is trained on."""
        if not self._share:
            return False
        text = identity(example.messages)
        if not held_out.is_held_out(text, self._share):
            self._note(text)
            return False
        said = {"messages": example.messages, "tools": example.tools}
        # Each once, however often it is there.
        row = {**said, "origin": "sft"}
        self._add(SFT, digest.of_value(said), text, example.messages, example.tools, row)
        return True

    def trained(self, pairs: Iterable[Mapping[str, Any]]) -> None:
        """Take in what pairs are trained on."""
        if self._share:
            for pair in pairs:
                self._note(identity(pair["messages"]))

    def write(self, storage: Storage, prefix: str, most: int, validated: bool = False) -> dict[str, str]:
        """Write what will be evaluated: of each kind so much, without what is trained on all the same.

        Args:
            storage: of the run.
            prefix: of the keys.
            most: of each file, rows at most.
            validated: whether half of it is for choosing by, in files of its own; see ``for_validation``.

        Returns:
            Keys, by ``held_out_sft`` and ``held_out_pairs``, and ``validation_sft`` and ``validation_pairs``,
            of what there is.
        """
        outputs = {}
        for kind, found in self._rows.items():
            halves: dict[str, list[dict[str, Any]]] = {held_out.HELD_OUT: [], held_out.VALIDATION: []}
            for row in found.values():
                if row["text"] not in self._trained:
                    for_choice = validated and held_out.is_validation(row["identity"])
                    halves[held_out.VALIDATION if for_choice else held_out.HELD_OUT].append(row)
            for use, rows in halves.items():
                if first := held_out.first(rows, "identity", most):
                    named = kind if use == held_out.HELD_OUT else f"{use}-{kind}"
                    outputs[f"{use}_{kind}"] = tables.write(storage, f"{prefix}{named}", _table(first))
        return outputs

    def for_validation(self) -> list[Mapping[str, Any]]:
        """The half that is for choosing by, without what is trained on all the same: rows of a version."""
        return [
            row["row"]
            for found in self._rows.values()
            for row in found.values()
            if held_out.is_validation(row["identity"]) and row["text"] not in self._trained
        ]

    def also_trained(self) -> dict[str, int]:
        """Of each kind, how many are not evaluated, because something with the same text is trained on."""
        return {
            kind: sum(row["text"] in self._trained for row in found.values())
            for kind, found in self._rows.items()
        }

    def _add(
        self,
        kind: str,
        key: str,
        place: str,
        messages: Sequence[Turn],
        tools: Sequence[Any],
        row: Mapping[str, Any],
    ) -> None:
        text = identity(messages)
        self._texts.add(text)
        found = {"id": key, "identity": place, "text": text, "messages": messages, "tools": tools, "row": row}
        self._rows[kind].setdefault(key, found)

    def _note(self, text: str) -> None:
        if text in self._texts:
            self._trained.add(text)


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    used = set().union(*(conversations.further(row["messages"], row["tools"]) for row in rows))
    schema = pa.schema([pa.field("id", pa.string()), *conversations.columns(used)])
    return conversations.table([{name: row[name] for name in schema.names} for row in rows], schema)


def identity(messages: Sequence[Turn]) -> str:
    """Of a conversation: by the question and answer that it begins with, whichever turns are compared."""
    text = compared.first_turns(messages)
    # Without both of them, by all that is said.
    return held_out.identity(text if isinstance(text, str) else conversations.to_json(list(messages)))
