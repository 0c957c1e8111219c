"""line: begin a run on a dataset's line, and end it.

``begin`` says which dumps the run is to refresh, and takes the line's lease; where
another run holds it, it says for whom to wait. ``end`` gives the lease back. Nothing
waits here: whoever starts runs asks again.
"""

import logging
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from aitp_tasks.config import Dumps, RunConfig
from aitp_tasks.config.run import DUMP_SEPARATOR
from aitp_tasks.records import lease, versions
from aitp_tasks.records.lease import Holder
from aitp_tasks.storage import Storage, open_storage

log = logging.getLogger(__name__)

_MARKER = "_SUCCESS"
#: Of the names of several dumps that one night takes: they are in keys, and in what tasks hand on.
_MOST_CHARACTERS = 100


def execute(
    config: RunConfig, action: str, holder: str, kind: str, gone: list[str], alone: bool
) -> dict[str, Any]:
    """Begin or end a run.

    Args:
        config: names the root, the dataset, and the dump.
        action: ``begin`` or ``end``.
        holder: how whoever starts the run calls it.
        kind: ``manual``, of a run that was started for its dump, ``backfill``, or ``nightly``.
        gone: holders that are known to have ended.
        alone: no other run of the dataset is about to begin.

    Raises:
        TransientError: others changed the lease again and again.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    if action == "end":
        held = lease.give_back(storage, line, holder)
        log.info("line=%s given_back=%s", line, held)
        return {"stage": "line", "action": action, "held": held}
    storage.require_conditional_writes()
    before = lease.begun(storage, line, holder)

    def find() -> tuple[str | None, dict[str, str]]:
        # A run that is begun again, because a task of it was cleared, is for what it was for.
        return due(storage, config, kind) if before is None else (before, {})

    dump, left = find()
    for name, why in left.items():
        log.info("dump=%s is left: %s", name, why)
    answer = lease.Answer(False)
    if dump is None:
        lease.give_back(storage, line, holder)
    else:
        # A night waits for older ones, though it would take in their dumps: then less is left for it.
        me = Holder(name=holder, dump=config.dump)
        answer = lease.take(storage, line, me, gone=gone, alone=alone)
        # Whoever held it may have taken in what was due.
        dump = find()[0] if answer.taken else dump
        if answer.taken and dump is None:
            lease.give_back(storage, line, holder)
        elif answer.taken and dump is not None:
            for name in dump.split(DUMP_SEPARATOR):
                versions.begin_with(storage, line, name, holder)
            if kind == "nightly":
                # What others are for follows from how they were started.
                lease.begin(storage, line, holder, dump)
    if answer.waits_for is not None:
        log.info("line=%s waits for %s (dump %s)", line, answer.waits_for.name, answer.waits_for.dump)
    return {
        "stage": "line",
        "action": action,
        "taken": answer.taken and dump is not None,
        "dump": dump,
        "left": dict(list(left.items())[:3]),
        "waits_for": answer.waits_for and answer.waits_for.name,
    }


def due(storage: Storage, config: RunConfig, kind: str) -> tuple[str | None, dict[str, str]]:
    """The dumps that a run is to refresh, joined, or None; and why others are left."""
    if kind == "manual":
        return config.dump, {}
    wanted = set(config.dumps)
    tried: dict[str, str] = {}
    if kind == "nightly" and config.schedule.dumps is Dumps.UNFINISHED:
        late, tried = _late(storage, config)
        wanted |= late
    left = tried | {name: why for name in sorted(wanted) if (why := _not_whole(storage, config, name))}
    found = sorted(wanted - left.keys())
    if kind == "nightly":
        known = versions.taken_in(storage, config.assemble.dataset)
        left |= {name: "it was taken in before" for name in found if name in known}
        found = [name for name in found if name not in known]
        fit = sum(end <= _MOST_CHARACTERS for end in accumulate(len(name) + 1 for name in found))
        left |= dict.fromkeys(found[max(fit, 1) :], "there are too many for one night: the next takes it")
        found = found[: max(fit, 1)]
    return DUMP_SEPARATOR.join(found) or None, left


def _late(storage: Storage, config: RunConfig) -> tuple[set[str], dict[str, str]]:
    """Dumps before this night's that are newer than the oldest that was taken in, and were not.

    Apart from these, those that a run was begun for: one that fails would make each night after it fail too.
    """
    line, own = config.assemble.dataset, max(config.dumps)
    known = {name for name in versions.taken_in(storage, line) if name < own}
    if not known:
        return set(), {}
    oldest = min(known)
    # A dump may be a link; one that leads to nothing is named as well.
    names = {*storage.folders("corpus/"), *(key.split("/")[1] for key in storage.unlisted("corpus/"))}
    late = {name for name in names if oldest < name < own and name not in known}
    late = {name for name in late if fnmatchcase(name, config.schedule.pattern)}
    begun = late & versions.begun_with(storage, line)
    return late - begun, dict.fromkeys(
        begun, "a run was begun for it: clear what failed of that, or start one by hand"
    )


def _not_whole(storage: Storage, config: RunConfig, dump: str) -> str:
    """Why a dump cannot be taken yet; empty where it can."""
    objects = list(storage.list_dated(f"corpus/{dump}/"))
    if not any(not info.key.endswith(f"/{_MARKER}") for info, _ in objects):
        return "there is none"
    if any(info.key == f"corpus/{dump}/{_MARKER}" for info, _ in objects):
        return ""
    age = (storage.now() - max(written for _, written in objects)) / 60
    if age < config.schedule.settle_minutes:
        return f"its newest object is {age:.0f} minutes old, and it has no {_MARKER}"
    return ""
