"""The SFT set's examples on their way into a version."""

from collections import Counter
from collections.abc import Iterator

from aitp_tasks.config import Marks
from aitp_tasks.dataset.apart import Apart
from aitp_tasks.dataset.export import Export
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records import digest, embedded, held_out, marks
from aitp_tasks.records.manifest import Ledger
from aitp_tasks.records.run import Run
from aitp_tasks.storage import ObjectInfo


def write(run: Run, export: Export, apart: Apart) -> Ledger:
    """Write the examples, in the order of their shards, but those that are held out or dropped."""
    drops = run.config.assemble.marks is Marks.DROP
    read = written = quarantined = 0
    rejected: Counter[str] = Counter()
    for example in _examples(run):
        read += 1
        if isinstance(example, Rejection):
            rejected[example.reason] += 1
        elif not isinstance(example, Example):
            quarantined += 1
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
    # Without what some of it is held out of, as before; and so of what leaves marks in texts alone.
    apart = [{held_out.HELD_OUT: share}] if share else []
    changed = [{"marks": marked.value}] if marked is not Marks.KEEP else []
    return digest.of_value([embedded.reading_of_sft(run.config), sorted(found), *apart, *changed])


def _examples(run: Run) -> Iterator[Example | Rejection | Refusal]:
    for group in run.plan.groups_of("sft"):
        # Pairs of earlier versions are shards too, and come from their own tables.
        for shard in embedded.shards(run, group) if group.source == run.config.sft else []:
            key = shard.figures["shard"]
            info = ObjectInfo(key, run.storage.stat(key).size, shard.figures["etag"])
            yield from shards.Sft(run.storage, info, run.config.sft_text, run.config.examples).examples()
