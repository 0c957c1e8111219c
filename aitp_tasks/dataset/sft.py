"""The SFT set's examples on their way into a version."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from aitp_tasks.config import Marks, SftHits
from aitp_tasks.dataset.apart import Apart
from aitp_tasks.dataset.export import Export
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, embedded, held_out, marks
from aitp_tasks.records.manifest import Ledger
from aitp_tasks.records.run import Run
from aitp_tasks.storage import ObjectInfo

Item = Example | Rejection | Refusal


def examples(run: Run) -> Iterator[tuple[str, Item]]:
    """Each row of the SFT set, in the order of its shards, with its place."""
    for group in run.plan.groups_of("sft"):
        # Pairs of earlier versions are shards too, and come from their own tables.
        for shard in embedded.shards(run, group) if group.source == run.config.sft else []:
            key = shard.figures["shard"]
            info = ObjectInfo(key, run.storage.stat(key).size, shard.figures["etag"])
            rows = shards.Sft(run.storage, info, run.config.sft_text, run.config.examples).examples()
            yield from ((f"{key}:{row}", item) for row, item in enumerate(rows))


def write(run: Run, export: Export, apart: Apart, rows: Iterable[tuple[Item, str | None]]) -> Ledger:
    """Write the examples, but those that somebody has left out before, or that are held out or dropped.

    Args:
        run: whose settings count.
        export: takes them.
        apart: takes what is held out.
        rows: all of the set, each with why it is left out already, if it is.

    Returns:
        Where each row went.
    """
    drops = run.config.assemble.marks is Marks.DROP
    read = written = quarantined = 0
    rejected: Counter[str] = Counter()
    for example, closed in rows:
        read += 1
        if isinstance(example, Rejection):
            rejected[example.reason] += 1
        elif not isinstance(example, Example):
            quarantined += 1
        elif closed is not None:
            rejected[closed] += 1
        elif apart.takes(example):
            rejected[held_out.HELD_OUT] += 1
        elif drops and marks.of_conversation(example.messages, example.tools):
            rejected[marks.HOLDS_MARKS] += 1
        else:
            export.write([{"messages": example.messages, "tools": example.tools, "origin": "sft"}])
            written += 1
    return Ledger(
        rows_in=read,
        rows_out=written,
        quarantined={"not_an_example": quarantined} if quarantined else {},
        rejected=dict(rejected),
    )


def identity(run: Run) -> str:
    """Identity of the SFT set as it was read, and of what of it comes into a version in which form."""
    found = [
        [shard.figures["shard"], shard.figures["etag"]]
        for group in run.plan.groups_of("sft")
        if group.source == run.config.sft
        for shard in embedded.shards(run, group)
    ]
    share, marked = run.config.evaluate.held_out, run.config.assemble.marks
    # Without what some of it is held out of, as before; and so of what else is left as it is.
    changed: list[Any] = [{held_out.HELD_OUT: share}] if share else []
    if run.config.contamination.sft is SftHits.DROP:
        files = [[file.set, file.key, file.etag] for file in run.plan.evaluation]
        changed.append([run.config.contamination.model_dump(mode="json"), files])
    if run.config.assemble.validation_split:
        changed.append({"validation_split": True})
    if marked is not Marks.KEEP:
        changed.append({"marks": marked.value})
    return digest.of_value([embedded.reading_of_sft(run.config), sorted(found), *changed])
