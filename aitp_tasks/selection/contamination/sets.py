"""The evaluation sets of a run, as its plan has frozen them."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aitp_tasks.config import Contamination
from aitp_tasks.errors import InputError
from aitp_tasks.inputs import benchmarks
from aitp_tasks.inputs.benchmarks import Item
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.records.plan import EvaluationFile, Shard
from aitp_tasks.storage import ObjectInfo, Storage

log = logging.getLogger(__name__)

#: Bytes that two files are compared by.
_BLOCK = 1 << 20


@dataclass
class EvaluationSets:
    """All items, one set after the other.

    Attributes:
        names: of the sets.
        items: of all sets.
        starts: number of each set's first item, and behind the last the number of all.
        layouts: of each set, the names of its files' layouts.
        refused: of each set, how many rows gave no item, by the reason.
    """

    names: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    layouts: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, dict[str, int]] = field(default_factory=dict)

    def set_of(self, item: int) -> str:
        """Name of the set that an item is of."""
        return self.names[int(np.searchsorted(self.starts, item, side="right")) - 1]

    @property
    def sizes(self) -> dict[str, int]:
        """How many items each set has."""
        pairs = zip(self.names, self.starts[:-1], self.starts[1:], strict=True)
        return {name: end - start for name, start, end in pairs}

    def figures(self) -> dict[str, Any]:
        """What was read, by set."""
        return {
            name: {"items": size, "layouts": self.layouts[name], "refused": self.refused[name]}
            for name, size in self.sizes.items()
        }


def planned(storage: Storage, settings: Contamination, sft: Sequence[Shard]) -> tuple[EvaluationFile, ...]:
    """The files of all sets, each looked into as far as its layout.

    Args:
        storage: where everything lies.
        settings: which sets.
        sft: the shards of the SFT set.

    Raises:
        InputError: a set is not there, empty, of no known layout, or the SFT set itself.
    """
    files = []
    for named in settings.sets:
        found = benchmarks.find(storage, named)
        layouts = [benchmarks.layout_of(storage, info, named).name for info in found]
        log.info(
            "plan evaluation=%s files=%d layouts=%s", named.path, len(found), "+".join(sorted({*layouts}))
        )
        for info in found:
            for shard in sft:
                if _is_copy(storage, info, shard):
                    raise InputError(
                        f"contamination.sets: {storage.uri(info.key)} is the SFT set's "
                        f"{storage.uri(shard.key)}: name what models are evaluated on, not what they learn"
                    )
            files.append(EvaluationFile(set=named.path, key=info.key, etag=info.etag, size=info.size))
    return tuple(files)


def _is_copy(storage: Storage, info: ObjectInfo, shard: Shard) -> bool:
    """Whether a file has the bytes of an SFT shard; both are read where only their sizes are equal."""
    if info.size != shard.size or info.etag == shard.etag:
        return info.etag == shard.etag
    with storage.open(info) as ours, storage.open(ObjectInfo(shard.key, shard.size, shard.etag)) as theirs:
        return all(ours.read(_BLOCK) == theirs.read(_BLOCK) for _ in range(0, info.size, _BLOCK))


def read(storage: Storage, settings: Contamination, files: Sequence[EvaluationFile]) -> EvaluationSets:
    """Read all items.

    Raises:
        InputError: a file is damaged, or none of a set's rows gives an item.
        ObjectChangedError: a file was replaced since the run was planned.
    """
    sets = EvaluationSets()
    for named in settings.sets:
        refused: Counter[str] = Counter()
        layouts = set()
        for file in files:
            if file.set != named.path:
                continue
            info = ObjectInfo(file.key, file.size, file.etag)
            layout = benchmarks.layout_of(storage, info, named)
            layouts.add(layout.name)
            for item in benchmarks.items(storage, info, layout):
                if isinstance(item, Refusal):
                    refused[item.error_class] += 1
                else:
                    sets.items.append(item)
        if len(sets.items) == sets.starts[-1]:
            raise InputError(
                f"contamination.sets: no row of {storage.uri(named.path)} gives an item {dict(refused)}: "
                "name the fields of its questions and answers, or leave it out"
            )
        if refused:
            log.warning("evaluation=%s rows without an item: %s", named.path, dict(refused))
        sets.names.append(named.path)
        sets.starts.append(len(sets.items))
        sets.layouts[named.path], sets.refused[named.path] = sorted(layouts), dict(refused)
    return sets
