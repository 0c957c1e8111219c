"""The first rows of the shards of an SFT set, read as embed will read them.

So that a set that is no SFT set, or of another kind, is refused before anything
is embedded. A shard that cannot be read is not judged here: its embed unit will
fail and say why.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.examples import Example, Rejection
from aitp_tasks.inputs.forms.rows import NOT_PREFERRED
from aitp_tasks.inputs.shards import Sft
from aitp_tasks.storage import ObjectInfo, Storage

log = logging.getLogger(__name__)

#: Rows that are read of each shard.
ROWS = 100
_NAMES_SHOWN = 3
_QUOTED = 400


@dataclass(frozen=True)
class Head:
    """What the first rows of a shard are.

    Attributes:
        rows: how many were read.
        forms: of the examples among them, by form.
        refused: messages of those that are damaged or of no form.
        rejected: messages of those that are sound and no example, by reason.
        not_kept: rows by names of what is not kept of the examples.
    """

    rows: int
    forms: Counter[str]
    refused: Counter[str]
    rejected: dict[str, Counter[str]]
    not_kept: dict[str, int]

    @property
    def problem(self) -> str:
        """Why the shard cannot be used; empty where it can, or where its further rows have to tell."""
        rejected = Counter(
            message
            for why, messages in self.rejected.items()
            if why != NOT_PREFERRED
            for message in messages.elements()
        )
        if self.forms or NOT_PREFERRED in self.rejected or not (self.refused or rejected):
            return ""
        if rejected and self.rows == ROWS:
            return ""
        ((commonest, _),) = (self.refused + rejected).most_common(1)
        told = " ".join(commonest.split())[:_QUOTED]
        return f"none of its first {self.rows} rows is an example, mostly: {told}"


def read(storage: Storage, info: ObjectInfo, config: RunConfig) -> Head:
    """The head of one shard.

    Raises:
        InputError: it cannot be read.
    """
    reader = Sft(storage, info, config.sft_text, config.examples)
    forms: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    rejected: dict[str, Counter[str]] = {}
    rows = 0
    for item in islice(reader.examples(), ROWS):
        rows += 1
        if isinstance(item, Example):
            forms[item.form] += 1
        elif isinstance(item, Rejection):
            rejected.setdefault(item.reason, Counter())[item.message] += 1
        else:
            refused[item.message] += 1
    # Of columns that are not read, it counts all the shard's rows.
    not_kept = {name: min(held, rows) for name, held in reader.not_kept.counts.items()}
    return Head(rows, forms, refused, rejected, not_kept)


def problems(storage: Storage, objects: Sequence[ObjectInfo], config: RunConfig) -> list[str]:
    """Why shards of an SFT set cannot be used; each reason names the first of its shards.

    Tells in the log which forms there are, and what is not kept.
    """
    with ThreadPoolExecutor(storage.concurrency) as readers:
        heads = list(readers.map(lambda info: _read(storage, info, config), objects))
    by_problem: dict[str, list[str]] = {}
    forms: Counter[str] = Counter()
    not_kept: Counter[str] = Counter()
    for info, head in zip(objects, heads, strict=True):
        if head is not None:
            forms += head.forms
            not_kept.update(head.not_kept)
            if head.problem:
                by_problem.setdefault(head.problem, []).append(info.key)
    log.info("plan sft_forms=%s of the first rows of %d shards", dict(forms), len(objects))
    if not_kept:
        log.warning("of the SFT set is not kept, by rows among the first of each shard: %s", dict(not_kept))
    return [f"{storage.uri(keys[0])}: {problem}{_same(keys[1:])}" for problem, keys in by_problem.items()]


def _read(storage: Storage, info: ObjectInfo, config: RunConfig) -> Head | None:
    try:
        return read(storage, info, config)
    except InputError as error:
        log.debug("shard=%s has no head: %s", info.key, error)
        return None


def _same(keys: Sequence[str]) -> str:
    names = [key.rpartition("/")[2] for key in keys[:_NAMES_SHOWN]]
    left = len(keys) - len(names)
    return f" (the same: {', '.join(names)}{f', and {left} more' if left else ''})" if names else ""
