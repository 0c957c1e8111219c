"""The way back: ``latest`` of a line names again a version that it has named before.

What it names instead is noted in ``latest.json`` as taken back, in the same write, so that no
stage that is run again brings it back: only a person does, by the same command.
"""

from dataclasses import dataclass

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import versions
from aitp_tasks.records.versions import Pointer, Version
from aitp_tasks.storage import Storage, Tagged


@dataclass(frozen=True)
class Moved:
    """What a rollback has done.

    Attributes:
        before: name of the version that ``latest`` has named.
        after: the one that it names now.
        left: names of the versions that are taken back now, the oldest first; none where nothing has moved.
    """

    before: str
    after: Version
    left: tuple[str, ...]


def allowed(storage: Storage, line: str, name: str, seen: Tagged | None) -> Moved:
    """What going back to a version would do.

    Args:
        storage: where the line lies.
        line: the dataset.
        name: of a version that the latest builds on, or of one that was taken back.
        seen: ``latest`` as it was seen.

    Raises:
        InputError: there is no line, or no such version, or ``latest`` has never named it.
    """
    said = versions.pointed(storage, line, seen)
    if said is None:
        raise InputError(f"{line} has no version yet: there is nothing to go back to")
    wanted = versions.load(storage, line, name)
    before = _if_there(storage, line, said.version)
    # Of a latest version that is gone nobody knows what it was built on.
    places = before.position if before is not None else {said.version: 0}
    if before is not None and name not in places and name not in said.rolled_back:
        raise InputError(
            f"{before.name}, the latest version of {line}, does not build on {name}, and that was never "
            "rolled back: it was finished late, or not promoted. To build on it, set assemble.base to it; to "
            "make it the latest, run `aitp promote` of its run"
        )
    return Moved(said.version, wanted, tuple(other for other in places if other not in wanted.position))


def move(storage: Storage, line: str, moved: Moved, seen: Tagged, now: str) -> None:
    """Do it, once.

    Args:
        storage: where the line lies.
        line: the dataset.
        moved: what is to be done.
        seen: ``latest`` as it was seen.
        now: the time, UTC.

    Raises:
        TransientError: somebody has moved it since.
    """
    said = versions.pointed(storage, line, seen)
    assert said is not None
    kept = {name: at for name, at in said.rolled_back.items() if name not in moved.after.position}
    told = Pointer(
        version=moved.after.name, run=moved.after.run, rolled_back=kept | dict.fromkeys(moved.left, now)
    )
    if not versions.move(storage, line, seen, told):
        by_now = versions.pointed(storage, line, versions.seen(storage, line))
        raise TransientError(
            f"latest of {line} was moved meanwhile, from {said.version} to "
            f"{by_now.version if by_now else 'nothing'}, and nothing was rolled back: look at "
            "`aitp dataset list`, then roll back again if you still want to"
        )


def _if_there(storage: Storage, line: str, name: str) -> Version | None:
    key = f"{versions.prefix(line, name)}/version.json"
    return versions.load(storage, line, name) if storage.find(key) is not None else None
