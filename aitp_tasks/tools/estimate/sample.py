"""A few documents and SFT examples of the real input, drawn by hash and read by ranges.

Rows are taken in blocks of neighbours, so that few shards are opened.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, count, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import conversations, digest
from aitp_tasks.records.plan import Shard
from aitp_tasks.records.run import Run
from aitp_tasks.storage import ObjectInfo

log = logging.getLogger(__name__)

#: The name of the sample's dump and of its SFT set.
NAME = "sample"
#: About so many places are read of each role.
_BLOCKS = 8


def write(run: Run, folder: Path, documents: int, examples: int) -> None:
    """Write the sample's shards below ``folder``.

    Each role gets two shards, a quarter of the sample and the rest: the first of
    them warms the encoder up, the second is measured. Rows that have no text stay
    in the sample, empty.

    Args:
        run: the planned run.
        folder: the storage root to write to.
        documents: how many documents to draw; fewer where there are fewer.
        examples: the same of SFT examples.

    Raises:
        InputError: there are no documents or no examples, or a shard is damaged.
    """
    drawn = {"corpus": _documents(run, documents), "sft": _examples(run, examples)}
    for role, rows in drawn.items():
        if rows.column(0).null_count == len(rows):
            raise InputError(f"no row of the {role} of {run.uri} has a text: there is nothing to estimate")
        order = sorted(range(len(rows)), key=lambda number: digest.of_text(f"order:{number}"))
        mixed = rows.take(order)
        cut = -(-len(mixed) // 4)
        path = folder / role / NAME
        path.mkdir(parents=True)
        for number, part in enumerate((mixed[:cut], mixed[cut:])):
            if len(part):
                pq.write_table(part, path / f"{number}.parquet")
        log.info("estimate sampled role=%s rows=%d", role, len(mixed))


def blocks(rows: Sequence[int], wanted: int) -> list[tuple[int, int, int]]:
    """Draw blocks of neighbouring rows that hold ``wanted`` rows, every row as likely as any other.

    Args:
        rows: of each shard.
        wanted: how many rows to draw at least; with fewer rows in all, every block is drawn.

    Returns:
        Shard, first row and number of rows of each block, in order.
    """
    ends = list(accumulate(rows))
    total = ends[-1] if ends else 0
    size = max(-(-wanted // _BLOCKS), 1)
    if wanted >= total:
        return [
            (shard, first, min(size, held - first))
            for shard, held in enumerate(rows)
            for first in range(0, held, size)
        ]
    drawn: dict[tuple[int, int], int] = {}
    for number in count():
        if sum(drawn.values()) >= wanted:
            break
        place = int(digest.of_text(f"estimate:{number}"), 16) % total
        shard = bisect_right(ends, place)
        first = (place - (ends[shard] - rows[shard])) // size * size
        drawn[shard, first] = min(size, rows[shard] - first)
    return sorted((shard, first, held) for (shard, first), held in drawn.items())


def _documents(run: Run, wanted: int) -> pa.Table:
    corpus = _shards(run, "corpus")
    drawn: list[str | None] = []
    drawn_blocks = blocks([max(shard.rows, 0) for shard in corpus], wanted)
    for number, first, held in _readable(corpus, drawn_blocks):
        texts = shards.Corpus(run.storage, _info(corpus[number]), run.config.text_columns).texts(first)
        drawn += [None if isinstance(text, Refusal) else text for text in islice(texts, held)]
    return pa.table({"text": pa.array(drawn[:wanted], pa.large_string())})


def _readable(
    corpus: Sequence[Shard], drawn: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Blocks of shards whose rows are only estimated, from the beginning on: others may not exist.

    Besides, all rows before a block would have to be read.
    """
    taken: dict[int, int] = {}
    for number, first, held in drawn:
        if corpus[number].estimated:
            first = taken.get(number, 0)
            taken[number] = first + held
        yield number, first, held


def _examples(run: Run, wanted: int) -> pa.Table:
    """The first examples of some shards, with all that they say."""
    sft = sorted(_shards(run, "sft"), key=lambda shard: digest.of_text(f"estimate:{shard.key}"))
    quota = -(-wanted // min(_BLOCKS, len(sft)))
    found: list[Example | None] = []
    for shard in sft:
        reader = shards.reader(run.storage, _info(shard), "sft", run.config)
        assert isinstance(reader, shards.Sft)
        examples = islice(reader.examples(), quota)
        found += [example if isinstance(example, Example) else None for example in examples]
        if len(found) >= wanted:
            break
    rows = [
        {"messages": example.messages, "tools": example.tools} if example else {"messages": None}
        for example in found[:wanted]
    ]
    used = set().union(*(conversations.further(one.messages, one.tools) for one in found if one))
    return conversations.table(rows, pa.schema(conversations.columns(used)))


def _shards(run: Run, role: str) -> list[Shard]:
    return [shard for group in run.plan.groups if group.role == role for shard in group.shards]


def _info(shard: Shard) -> ObjectInfo:
    return ObjectInfo(shard.key, shard.size, shard.etag)
