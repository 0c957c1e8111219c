"""A dataset version as files: Parquet with where each pair comes from, and ShareGPT JSON.

The ShareGPT file comes with the ``dataset_info.json`` by which LLaMA-Factory loads it.
Which columns the Parquet file has is known with its last row: until then a temporary file
holds the rows.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.dataset import sharegpt
from aitp_tasks.records import conversations

PARQUET, SHAREGPT, _DATASET_INFO = "data.parquet", "sharegpt.json", "dataset_info.json"
_ROWS = "rows.jsonl"
#: A row group is so many rows, or fewer that have about so many characters.
_GROUP_ROWS, _GROUP_CHARACTERS = 1024, 64 * 2**20
_PROVENANCE = [
    pa.field("origin", pa.string()),  # "sft" or "aitp"
    pa.field("pair_id", pa.string()),
    pa.field("doc_id", pa.string()),
    pa.field("dump", pa.string()),
    pa.field("shard", pa.string()),
    pa.field("row", pa.int64()),
    pa.field("density_ratio", pa.float64()),
    pa.field("cut_characters", pa.int64()),  # of the document, not seen by who answered
    pa.field("quality", pa.int64()),
    pa.field("difficulty", pa.int64()),
    pa.field("prompt_digest", pa.string()),
    pa.field("prompts", pa.list_(pa.string())),  # as assemble.withdrawn_prompts names them
    pa.field("model", pa.string()),
    pa.field("version", pa.string()),  # that it came with
]
#: Of a pair, which is a question and its answer.
SCHEMA = pa.schema([*conversations.columns(()), *_PROVENANCE])


@dataclass
class Told:
    """What is told of the files; all counts are of conversations.

    Attributes:
        kept: how many have what only some have, by its name.
        lost: how many have what the ShareGPT file has no place for, by its name.
        unread: how many of that file LLaMA-Factory leaves out, by the reason.
    """

    kept: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)


class Export:
    """Writes the files of a dataset version row by row."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where the files are written; an existing one."""
        self.told = Told()
        self._folder = folder
        self._stack = ExitStack()
        self._rows, self._json = (
            self._stack.enter_context((folder / name).open("w", encoding="utf-8"))
            for name in (_ROWS, SHAREGPT)
        )
        self._separator = "["

    def __enter__(self) -> "Export":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, examples: list[dict[str, Any]]) -> None:
        """Add rows of ``SCHEMA``, with ``tools`` where there are any; what is absent is null."""
        for example in examples:
            messages, tools = example["messages"], example.get(conversations.TOOLS) or []
            self.told.kept.update(conversations.further(messages, tools))
            shared = sharegpt.record(messages, tools)
            self.told.kept.update([sharegpt.SYSTEM] if shared.system else [])
            self.told.lost.update(shared.lost)
            self.told.unread.update([shared.unread] if shared.unread else [])
            self._write_shared(shared)
            self._rows.write(f"{json.dumps(example)}\n")

    def close(self, dataset: str) -> dict[str, Path]:
        """Finish the files; each under the name that a manifest calls it by.

        Args:
            dataset: the name by which LLaMA-Factory is to know the dataset.
        """
        self._json.write("[]\n" if self._separator == "[" else "\n]\n")
        self._stack.close()
        self._write_parquet()
        # A column that is named has to be there.
        further = {name: name for name in (sharegpt.SYSTEM, sharegpt.TOOLS) if self.told.kept[name]}
        description = {
            "file_name": SHAREGPT,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", **further},
        }
        (self._folder / _DATASET_INFO).write_text(json.dumps({dataset: description}, indent=1))
        files = {"parquet": PARQUET, "sharegpt": SHAREGPT, "dataset_info": _DATASET_INFO}
        return {name: self._folder / file for name, file in files.items()}

    def _write_shared(self, shared: sharegpt.Record) -> None:
        row: dict[str, Any] = {"conversations": shared.turns}
        row |= {sharegpt.SYSTEM: shared.system} if shared.system else {}
        row |= {sharegpt.TOOLS: shared.tools} if shared.tools else {}
        self._json.write(f"{self._separator}\n{json.dumps(row, ensure_ascii=False)}")
        self._separator = ","

    def _write_parquet(self) -> None:
        schema = pa.schema([*conversations.columns(+self.told.kept), *_PROVENANCE])
        rows = self._folder / _ROWS
        with (
            rows.open(encoding="utf-8") as lines,
            pq.ParquetWriter(self._folder / PARQUET, schema, compression="zstd") as target,
        ):
            for group in _groups(lines):
                target.write_table(conversations.table(map(json.loads, group), schema))
        rows.unlink()


def _groups(lines: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    characters = 0
    for line in lines:
        group.append(line)
        characters += len(line)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
