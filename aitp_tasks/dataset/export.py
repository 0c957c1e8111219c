"""A dataset version as files: Parquet with where each pair comes from, and ShareGPT JSON.

The ShareGPT file comes with the ``dataset_info.json`` by which LLaMA-Factory loads it.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

PARQUET, SHAREGPT, _DATASET_INFO = "data.parquet", "sharegpt.json", "dataset_info.json"
_ROWS_PER_WRITE = 1024
_SPEAKERS = {"user": "human", "assistant": "gpt"}
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
        ("origin", pa.string()),  # "sft" or "aitp"
        ("pair_id", pa.string()),
        ("doc_id", pa.string()),
        ("dump", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("density_ratio", pa.float64()),
        ("cut_characters", pa.int64()),  # of the document, not seen by who answered
        ("quality", pa.int64()),
        ("difficulty", pa.int64()),
        ("prompt_digest", pa.string()),
        ("prompts", pa.list_(pa.string())),  # as assemble.withdrawn_prompts names them
        ("model", pa.string()),
        ("version", pa.string()),  # that it came with
    ]
)


class Export:
    """Writes the files of a dataset version row by row."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where the files are written; an existing one."""
        self._folder = folder
        self._stack = ExitStack()
        self._parquet = self._stack.enter_context(
            pq.ParquetWriter(folder / PARQUET, SCHEMA, compression="zstd")
        )
        self._json: TextIO = self._stack.enter_context((folder / SHAREGPT).open("w", encoding="utf-8"))
        self._pending: list[dict[str, Any]] = []
        self._separator = "["

    def __enter__(self) -> "Export":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, examples: list[dict[str, Any]]) -> None:
        """Add rows of ``SCHEMA``; what is absent is null."""
        for example in examples:
            turns = [
                {"from": _SPEAKERS.get(turn["role"], turn["role"]), "value": turn["content"]}
                for turn in example["messages"]
            ]
            self._json.write(f"{self._separator}\n{json.dumps({'conversations': turns}, ensure_ascii=False)}")
            self._separator = ","
        self._pending += examples
        if len(self._pending) >= _ROWS_PER_WRITE:
            self._write_pending()

    def close(self, dataset: str) -> dict[str, Path]:
        """Finish the files; each under the name that a manifest calls it by.

        Args:
            dataset: the name by which LLaMA-Factory is to know the dataset.
        """
        self._write_pending()
        self._json.write("[]\n" if self._separator == "[" else "\n]\n")
        self._stack.close()
        description = {
            "file_name": SHAREGPT,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations"},
        }
        (self._folder / _DATASET_INFO).write_text(json.dumps({dataset: description}, indent=1))
        files = {"parquet": PARQUET, "sharegpt": SHAREGPT, "dataset_info": _DATASET_INFO}
        return {name: self._folder / file for name, file in files.items()}

    def _write_pending(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._pending, SCHEMA))
        self._pending = []
