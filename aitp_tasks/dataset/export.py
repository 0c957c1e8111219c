"""A dataset version as files: Parquet with where each pair comes from, ShareGPT and Alpaca JSON.

The JSON files come with the ``dataset_info.json`` by which LLaMA-Factory loads them. Which
columns the files have is known with their last row: until then a spool holds the rows. All
files have the rows in the same order.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.config import Marks
from aitp_tasks.dataset import alpaca, sharegpt
from aitp_tasks.dataset.shards import Shards
from aitp_tasks.dataset.spool import Spool
from aitp_tasks.records import conversations, data_files, digest, generated, marks

SHAREGPT, ALPACA, DATASET_INFO = "sharegpt.json", "alpaca.json", "dataset_info.json"
_PROVENANCE = [
    pa.field("origin", pa.string()),  # "sft" or "aitp"
    pa.field("pair_id", pa.string()),
    pa.field("doc_id", pa.string()),
    pa.field("dump", pa.string()),
    pa.field("source", pa.string()),  # of difference.source_column, or the dump
    pa.field("shard", pa.string()),
    pa.field("row", pa.int64()),
    pa.field("density_ratio", pa.float64()),
    pa.field("cut_characters", pa.int64()),  # of the document, not seen by who answered
    pa.field("quality", pa.int64()),
    pa.field("difficulty", pa.int64()),
    pa.field(generated.VERDICT, pa.string()),  # of the judge; null where there was none
    pa.field(generated.LOG_PROBABILITY, pa.float64()),  # under the base; null where nothing was ranked
    pa.field("prompt_digest", pa.string()),
    pa.field("prompts", pa.list_(pa.string())),  # as assemble.withdrawn_prompts names them
    pa.field("model", pa.string()),
    pa.field("version", pa.string()),  # that it came with
]
_NAMES = ("messages", conversations.TOOLS, *(column.name for column in _PROVENANCE))
#: Of a pair, which is a question and its answer.
SCHEMA = pa.schema([*conversations.columns(()), *_PROVENANCE])


@dataclass
class Told:
    """What is told of the files; all counts are of conversations.

    Attributes:
        rows: how many each file has, by its path; those of the split for validations are apart.
        validation: how many each file of the split for validations has, by its path.
        columns: of the Parquet files: types by name.
        kept: how many have what only some have, by its name.
        lost: how many rows of the JSON files have what these have no place for, by its name.
        left_out: how many each JSON file does not have, by its name and the reason.
        marked: how many have marks of chat templates in their texts.
        marks: how many have each mark.
        dumps: how many pairs are from each dump.
        sources: how many pairs are from each source.
    """

    rows: dict[str, int] = field(default_factory=dict)
    validation: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = field(
        default_factory=lambda: {SHAREGPT: Counter(), ALPACA: Counter()}
    )
    marked: int = 0
    marks: Counter[str] = field(default_factory=Counter)
    dumps: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)


class Export:
    """Writes the files of a dataset version."""

    def __init__(self, folder: Path, marked: Marks = Marks.KEEP) -> None:
        """
        Args:
            folder: where the files are written; an existing, empty one.
            marked: what is done with marks in texts; whoever drops rows with them does not write these.
        """
        self.told = Told()
        self._folder, self._marked = folder, marked
        self._spool = Spool(folder)
        self._validation: list[dict[str, Any]] = []

    def __enter__(self) -> "Export":
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def write(self, examples: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of ``SCHEMA``, with ``tools`` where there are any; what is absent is null."""
        for example in examples:
            row = self._row(example)
            if "dump" in row:
                self.told.dumps.update([row["dump"]])
                self.told.sources.update([row.get("source", row["dump"])])
            self._spool.add(row)

    def write_validation(self, examples: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the split for validations, which are few and in no JSON file."""
        for example in examples:
            if self._marked is not Marks.DROP or not marks.of_conversation(
                example["messages"], example.get(conversations.TOOLS) or []
            ):
                self._validation.append(self._row(example))

    def _row(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """What is written of an example, and counted of what it holds."""
        found = {name: example.get(name) for name in _NAMES}
        row = {name: value for name, value in found.items() if value is not None}
        messages, tools = row["messages"], row.get(conversations.TOOLS, [])
        self.told.kept.update(conversations.further(messages, tools))
        self.told.kept.update([sharegpt.SYSTEM] if sharegpt.has_system(messages) else [])
        if held := marks.of_conversation(messages, tools):
            self.told.marked += 1
            self.told.marks.update(held)
            if self._marked is Marks.ESCAPE:
                row |= {name: marks.escaped(row[name]) for name in _NAMES[:2] if name in row}
        return row

    def close(self, dataset: str) -> None:
        """Write the files.

        Args:
            dataset: the name by which LLaMA-Factory is to know the dataset.
        """
        schema = pa.schema([*conversations.columns(+self.told.kept), *_PROVENANCE])
        # A column that is named has to be there, and in each row, for readers that take it from the first.
        side = [name for name in (sharegpt.SYSTEM, sharegpt.TOOLS) if self.told.kept[name]]
        shards = Shards(self._folder, schema)
        with (
            _Array(self._folder / SHAREGPT) as shared,
            _Array(self._folder / ALPACA) as asked,
        ):
            for row in self._spool.rows():
                shards.write(row, _characters(row["messages"]))
                self._share(row, side, shared, asked)
            self.told.rows = {SHAREGPT: shared.rows, ALPACA: asked.rows}
        made = shards.close()
        self.told.rows |= made
        self.told.validation = self._close_validation(schema)
        # As readers see them.
        columns = pq.read_schema(self._folder / min(made))
        self.told.columns = {column.name: str(column.type) for column in columns}
        info = _dataset_info(dataset, {name: name for name in side})
        (self._folder / DATASET_INFO).write_text(json.dumps(info, indent=1))

    def _close_validation(self, schema: pa.Schema) -> dict[str, int]:
        """Write the split for validations, in the order of a hash too; nothing where it has no row."""
        if not self._validation:
            return {}
        shards = Shards(self._folder, schema, data_files.VALIDATION)
        for row in sorted(self._validation, key=digest.of_value):
            shards.write(row, _characters(row["messages"]))
        return shards.close()

    def _share(self, row: Mapping[str, Any], side: Sequence[str], shared: "_Array", asked: "_Array") -> None:
        """Write a row into the JSON files that can say it."""
        record = sharegpt.record(row["messages"], row.get(conversations.TOOLS, []))
        if isinstance(record, str):
            self.told.left_out[SHAREGPT].update([record])
            self.told.left_out[ALPACA].update([record])
            return
        self.told.lost.update(record.lost)
        beside = {name: vars(record)[name] for name in side} | {"pair_id": row.get("pair_id", "")}
        shared.write({"conversations": record.turns, **beside})
        single = alpaca.row(record)
        if isinstance(single, str):
            self.told.left_out[ALPACA].update([single])
        else:
            asked.write({**single, **beside})


class _Array:
    """A JSON file with one array, a row a line."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> "_Array":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write("\n]\n" if self.rows else "[]\n")
        self._file.close()

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(f"{',' if self.rows else '['}\n{json.dumps(row, ensure_ascii=False)}")
        self.rows += 1


def _characters(messages: Iterable[Mapping[str, Any]]) -> int:
    return sum(len(str(value)) for turn in messages for value in turn.values())


def _dataset_info(dataset: str, beside: Mapping[str, str]) -> dict[str, Any]:
    asked = {"prompt": "instruction", "query": "input", "response": "output", "history": alpaca.HISTORY}
    return {
        dataset: {
            "file_name": SHAREGPT,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", **beside},
        },
        f"{dataset}_alpaca": {"file_name": ALPACA, "formatting": "alpaca", "columns": {**asked, **beside}},
    }
