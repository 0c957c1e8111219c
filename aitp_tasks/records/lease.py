"""The lease of a line: one run at a time works on a dataset, whatever has started it.

``datasets/<line>/lease.json`` says who holds it; it moves by compare-and-swap. Who
waits says so below ``datasets/<line>/waiting/``, and says it again each time that it
looks: of those that have lately, the one with the oldest dump comes first. All times
are those at which the storage has written an object, so that no machine's clock counts.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import digest
from aitp_tasks.storage import Storage, Tagged

log = logging.getLogger(__name__)

#: Seconds after which a lease is free whoever holds it: far longer than all stages together may take.
EXPIRES = 14 * 24 * 3600.0
#: Seconds after which who has not looked any more waits no more.
_LOOKS_AGAIN = 300.0
#: Looks before a free lease is taken where others may be about to wait: the oldest dump may come last.
_LOOKS = 3
_TRIES = 10


class Holder(BaseModel):
    """Who holds the lease, or waits for it.

    Attributes:
        name: of the run, as whoever has started it calls it.
        dump: that it is for.
        looks: how often it has looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dump: str
    looks: int = 0


@dataclass(frozen=True)
class Answer:
    """Whether the lease was taken, and otherwise for whom one waits: None for any that may come yet."""

    taken: bool
    waits_for: Holder | None = None


def take(
    storage: Storage, line: str, me: Holder, *, gone: Collection[str] = (), alone: bool = False
) -> Answer:
    """Take the lease, renew it, or wait.

    Args:
        storage: where the line lies.
        line: the dataset.
        me: who wants it; how often it has looked is counted here.
        gone: names of holders of which is known that they have ended.
        alone: nobody else is about to want it.

    Raises:
        TransientError: others changed the lease again and again.
    """
    key = f"datasets/{line}/lease.json"
    for _ in range(_TRIES):
        waiting, now = _look(storage, line, me)
        read = storage.read_tagged(key)
        holder = _held(storage, key, read, now)
        if holder is not None and holder.name != me.name and holder.name not in gone:
            return Answer(False, holder)
        if holder is None or holder.name != me.name:
            first = min(
                (one for one in waiting if one.name not in gone), key=lambda one: (one.dump, one.name)
            )
            if first.name != me.name:
                return Answer(False, first)
            mine = next(one for one in waiting if one.name == me.name)
            if not (alone and len(waiting) == 1) and mine.looks < _LOOKS:
                return Answer(False)
        data = me.model_dump_json().encode()
        if (
            storage.write_if_absent(key, data)
            if read is None
            else storage.write_if_matches(key, data, read.tag)
        ):
            storage.delete([_waiting_key(line, me.name)])
            return Answer(True)
    raise TransientError(f"{storage.uri(key)} was changed by others {_TRIES} times: retry")


def holder(storage: Storage, line: str) -> Holder | None:
    """Who holds the lease now.

    Raises:
        InputError: it names no holder.
    """
    key = f"datasets/{line}/lease.json"
    read = storage.read_tagged(key)
    return _held(storage, key, read, storage.now()) if read is not None else None


def begun(storage: Storage, line: str, name: str) -> str | None:
    """The dumps that a run was begun for; None where it was not yet."""
    read = storage.read_tagged(_begun_key(line, name))
    return None if read is None else str(json.loads(read.data)["dump"])


def begin(storage: Storage, line: str, name: str, dump: str) -> None:
    """Write down what a run is begun for, so that it is that again when it is begun again."""
    storage.write_if_absent(_begun_key(line, name), json.dumps({"name": name, "dump": dump}).encode())


def give_back(storage: Storage, line: str, name: str) -> bool:
    """Give the lease back, and wait no more; whether it was held."""
    storage.delete([_waiting_key(line, name)])
    key = f"datasets/{line}/lease.json"
    read = storage.read_tagged(key)
    if read is None or (_parsed(storage, key, read) or Holder(name="", dump="")).name != name:
        return False
    return storage.write_if_matches(key, b"{}", read.tag)


def _look(storage: Storage, line: str, me: Holder) -> tuple[list[Holder], float]:
    """Say that one waits; who else does, and what time it is."""
    mine = _waiting_key(line, me.name)
    before = _parsed_or_none(storage.read_tagged(mine))
    looks = 1 + (before.looks if before is not None else 0)
    storage.write(mine, me.model_copy(update={"looks": looks}).model_dump_json().encode())
    found = list(storage.list_dated(f"datasets/{line}/waiting/"))
    now = next((written for info, written in found if info.key == mine), 0.0)
    others = [
        _parsed_or_none(storage.read_tagged(info.key))
        for info, written in found
        if info.key != mine and now - written <= _LOOKS_AGAIN
    ]
    return [me.model_copy(update={"looks": looks}), *(one for one in others if one is not None)], now


def _held(storage: Storage, key: str, read: Tagged | None, now: float) -> Holder | None:
    """Who holds the lease, unless it has expired."""
    if read is None:
        return None
    found = _parsed(storage, key, read)
    written = next((written for info, written in storage.list_dated(key) if info.key == key), now)
    if found is not None and now - written > EXPIRES:
        log.warning("the lease of %s was taken %.0f days ago: it is free", found.name, EXPIRES / 86_400)
        return None
    return found


def _parsed(storage: Storage, key: str, read: Tagged) -> Holder | None:
    try:
        values = json.loads(read.data)
        return Holder.model_validate(values) if values else None
    except ValueError:
        raise InputError(f"{storage.uri(key)} names no holder: delete it if no run is under way") from None


def _parsed_or_none(read: Tagged | None) -> Holder | None:
    try:
        return None if read is None else Holder.model_validate_json(read.data)
    except ValueError:
        return None


def _begun_key(line: str, name: str) -> str:
    return f"datasets/{line}/begun/{digest.of_text(name)[:16]}.json"


def _waiting_key(line: str, name: str) -> str:
    return f"datasets/{line}/waiting/{digest.of_text(name)[:16]}.json"
