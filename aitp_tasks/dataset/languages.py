"""Which languages the rows of a version are in, as far as their first texts tell."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aitp_tasks.records import data_files
from aitp_tasks.texts import identification

#: Rows come in the order of a hash: the first ones are a fair sample.
SAMPLE = 1000
#: Below this probability a text tells no language.
_SURE = 0.9
#: A language of fewer rows may be a mistake.
_LEAST_SHARE, _LEAST_ROWS = 0.05, 2
_NONE = "zxx"


def of_version(folder: Path) -> dict[str, int]:
    """Of the first rows of a version, how many are in each language; those that tell none do not count."""
    found = Counter[str]()
    for messages in islice(_conversations(folder), SAMPLE):
        language, probability = identification.most_likely(_text(messages))
        if probability >= _SURE and language != _NONE:
            found[language] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def main(counts: Mapping[str, int]) -> list[str]:
    """The languages that more than a few rows are in, those of most rows first."""
    told = sum(counts.values())
    order = sorted(counts, key=lambda name: (-counts[name], name))
    enough = [name for name in order if counts[name] >= max(_LEAST_ROWS, _LEAST_SHARE * told)]
    return enough or order[:1]


def _conversations(folder: Path) -> Iterator[Sequence[Any]]:
    for path in sorted(folder.glob(data_files.pattern(data_files.SPLIT))):
        for batch in pq.ParquetFile(path).iter_batches(SAMPLE, columns=["messages"]):
            yield from batch.column("messages").to_pylist()


def _text(messages: Sequence[Any] | None) -> str:
    """What is said in a conversation."""
    turns = [json.loads(turn) if isinstance(turn, str) else turn for turn in messages or ()]
    return "\n".join(turn["content"] for turn in turns if isinstance(turn.get("content"), str))
