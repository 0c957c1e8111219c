"""gc: what nobody refers to any more, told or deleted.

Kept is all that a version names, all that an unfinished run may still use, and all
that the newest finished runs of each line have made; and whatever is young. Of older
finished runs, plan, figures, questions, answers and report stay too: gone are the
indexes, vectors and coordinates that they alone used, responses that no kept run has
asked for, what killed tries have left, and the second copies of versions and
checkpoints. All of that costs its computation again, and no more.

It can run beside a night: what that uses is kept, and when another run was planned
meanwhile, nothing more is deleted.
"""

import logging
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records.manifest import Stopwatch, add_counts
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.gc import runs, sweep

log = logging.getLogger(__name__)

_DAY = 86_400.0
#: Objects that are deleted before it is looked again whether a run was planned.
_AT_A_TIME = 1000


def execute(
    config: RunConfig, keep: int | None = None, days: float | None = None, delete: bool | None = None
) -> dict[str, Any]:
    """Tell what can be deleted below the configuration's root, and delete it if so wanted.

    Args:
        config: names the root, and what counts where one of the others is None.
        keep: of each line, so many of the newest finished runs keep all that they have made.
        days: younger objects are kept.
        delete: whether to delete.

    Raises:
        InputError: ``keep`` or ``days`` is negative.
        TransientError: a run was planned meanwhile.
    """
    keep = config.maintenance.keep_runs if keep is None else keep
    days = config.maintenance.min_age_days if days is None else days
    delete = config.maintenance.delete if delete is None else delete
    if keep < 0 or days < 0:
        raise InputError(f"--keep {keep} and --older-than {days:g} must not be negative")
    watch = Stopwatch()
    storage = open_storage(config.root)
    found = runs.find(storage, keep)
    for uri in map(storage.uri, found.unfinished):
        log.warning(
            "run=%s is not finished: all that it may use is kept; delete its plan.json to give it up", uri
        )
    waste = sweep.waste(storage, found, storage.now() - days * _DAY)
    counts, sizes = dict[str, int](), dict[str, int]()
    for kind, info in waste.objects:
        counts, sizes = add_counts(counts, {kind: 1}), add_counts(sizes, {kind: info.size})
    for kind, count in counts.items():
        log.info(
            "gc kind=%s objects=%d bytes=%d %s", kind, count, sizes[kind], "deleted" if delete else "could be"
        )
    if delete:
        keys = [info.key for _, info in waste.objects]
        for start in range(0, len(keys), _AT_A_TIME):
            _require_no_new_plan(storage, found)
            storage.delete(keys[start : start + _AT_A_TIME])
        _require_no_new_plan(storage, found)
        sweep.rewrite(storage, waste)
    return {
        "stage": "gc",
        "root": storage.root,
        "deleted": delete,
        "objects": sum(counts.values()),
        "bytes": sum(sizes.values()),
        "kinds": {kind: {"objects": counts[kind], "bytes": sizes[kind]} for kind in counts},
        "responses_dropped": waste.responses,
        "kept_runs": len(found.kept),
        "unfinished_runs": len(found.unfinished),
        "seconds": watch.seconds(),
    }


def _require_no_new_plan(storage: Storage, found: runs.Runs) -> None:
    if runs.plans(storage) != found.plans:
        raise TransientError(
            f"a run was planned while {storage.root} was looked through, so that no more is deleted: "
            "run `aitp gc` again"
        )
