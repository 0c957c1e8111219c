"""dataset rollback: ``latest`` names an earlier version again, and the next run builds on that.

Nothing is deleted. The dumps that the versions taken back have taken in stay taken in: a night
does not bring back by itself what a person has just taken back. Which ones those are is told.
"""

import logging
import sys
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.records import lease, manifest, promoted, rollback, versions
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.dataset import catalog, own
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)


def execute(config: RunConfig, version: str) -> dict[str, Any]:
    """Let ``latest`` name a version, and tell what follows, also to standard error.

    Args:
        config: names the root and the dataset.
        version: that the latest builds on, or that was taken back before.

    Raises:
        InputError: there is no such version, ``latest`` has never named it, or it is not whole.
        TransientError: somebody has moved ``latest`` meanwhile: nothing was done.
    """
    storage, line = open_storage(config.root), config.assemble.dataset
    seen = versions.seen(storage, line)
    if seen is not None:
        catalog.require_name(storage, line, version)
    moved = rollback.allowed(storage, line, version, seen)
    own.require_whole(storage, line, moved.after)
    assert seen is not None
    if moved.before != version:
        rollback.move(storage, line, moved, seen, catalog.now())
        log.info("latest of %s: %s -> %s", line, moved.before, version)
    # Also where latest is there already: whoever did that may have been stopped before this.
    checkpoint = promoted.follow(storage, line, moved.after)
    under_way = lease.holder(storage, line)
    result = {
        "stage": "dataset",
        "action": "rollback",
        "dataset": line,
        "moved": moved.before != version,
        "before": moved.before,
        "latest": version,
        "next_run_builds_on": version,
        "taken_back": list(moved.left),
        "dumps_that_stay_taken_in": _dumps(storage, line, moved.left),
        "checkpoint": {"before": checkpoint[0], "latest": checkpoint[1]},
        "under_way": under_way and {"name": under_way.name, "dump": under_way.dump},
        "settings_base": config.assemble.base,
    }
    sys.stderr.write(render(result))
    return result


def _dumps(storage: Storage, line: str, left: tuple[str, ...]) -> list[str]:
    """The dumps that some versions have taken in, or a run that has changed nothing of one of them."""
    taken = versions.taken_in_by(storage, line) if left else {}
    made = {run: _made(storage, run) for run in set(taken.values())}
    return sorted(dump for dump, run in taken.items() if made[run] in left)


def _made(storage: Storage, run: str) -> str | None:
    """The version that a run has made, or found unchanged; None where the run was deleted."""
    done = manifest.load(storage, f"{run}/assemble/manifest.json")
    return None if done is None else str(done.figures["version"])


def render(result: dict[str, Any]) -> str:
    """What was done, and what follows, as a person reads it."""
    version, base = result["latest"], result["settings_base"]
    if result["moved"]:
        lines = [
            f"latest of {result['dataset']} names {version} now, no longer {printable(result['before'])}"
        ]
    else:
        lines = [f"latest of {result['dataset']} names {version} already: nothing was moved"]
    if base == versions.LATEST:
        lines.append(f"the next run builds on {version}")
    else:
        lines.append(f"the next run builds on {base}, because assemble.base says so, and not on the latest")
    if result["taken_back"]:
        lines.append(f"taken back, and still there: {', '.join(result['taken_back'])}")
        lines.append(f"the way back: aitp dataset rollback {printable(result['before'])}")
    if dumps := result["dumps_that_stay_taken_in"]:
        lines.append(f"no night takes these dumps in again: {', '.join(map(printable, dumps))}")
        lines.append("to take one in again, start a run by hand, or a backfill, for it")
    before, after = result["checkpoint"].values()
    if before in result["taken_back"] or before != after:
        lines.append(
            f"the latest checkpoint is that of {printable(str(after))}"
            + (
                f", and no longer of {printable(str(before))}"
                if before != after
                else ", which was taken back"
            )
        )
    if under_way := result["under_way"]:
        lines.append(
            f"{printable(under_way['name'])} is under way for {printable(under_way['dump'])}: what it makes "
            "on another version does not become the latest; plan it again"
        )
    return "\n".join([*lines, ""])
