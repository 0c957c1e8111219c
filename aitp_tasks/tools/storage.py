"""storage: how much there is of each kind, and how it has grown.

Lists the root once: one request a thousand objects, and nothing is read but the
figures of the last time. Writes ``maintenance/storage/<time>.json``, some kilobytes
whatever the storage holds; nothing deletes these, and nothing but this reads them.
"""

import logging
import time
from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aitp_tasks.config import RunConfig
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools.terminal import printable

log = logging.getLogger(__name__)

PREFIX = "maintenance/storage/"
#: The folders below the root that AITP reads and writes; all else is of another kind.
KINDS = (
    "corpus",
    "sft",
    "footers",
    "embeddings",
    "density",
    "index",
    "generations",
    "runs",
    "datasets",
    "models",
    "baselines",
    "probes",
    "maintenance",
)
OTHER = "other"
#: Folders below a kind that are told, and names of others.
_LARGEST, _NAMED = 10, 5
_NAME_CHARACTERS = 80


class Count(BaseModel):
    """Objects and their bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objects: int
    bytes: int


_NONE = Count(objects=0, bytes=0)


class Figures(BaseModel):
    """What was there at one time.

    Attributes:
        at: that time, UTC.
        kinds: by the folder below the root.
        largest: the largest folders below these.
        others: names beside the kinds, some of them, as they can be printed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    kinds: dict[str, Count]
    largest: dict[str, Count]
    others: tuple[str, ...] = ()


def execute(config: RunConfig) -> dict[str, Any]:
    """Count what lies below the configuration's root, tell it, and write it down."""
    watch = Stopwatch()
    storage = open_storage(config.root)
    before = _last(storage)
    now = count(storage, time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime()))
    key = f"{PREFIX}{now.at}.json"
    storage.write_if_absent(key, now.model_dump_json(indent=1).encode())
    for line in table(now, before):
        log.info("%s", line)
    if now.others:
        log.warning("AITP writes nothing that is called %s", ", ".join(now.others))
    return {
        "stage": "storage",
        "figures": key,
        "since": before and before.at,
        "objects": sum(kind.objects for kind in now.kinds.values()),
        "bytes": sum(kind.bytes for kind in now.kinds.values()),
        # Objects and bytes of each kind, and by how many bytes it has grown.
        "kinds": {
            name: [kind.objects, kind.bytes, grown] for name, (kind, grown) in _growth(now, before).items()
        },
        "seconds": watch.seconds(),
    }


def count(storage: Storage, at: str) -> Figures:
    """Count all objects."""
    objects, sizes = Counter[str](), Counter[str]()
    others = dict[str, None]()
    for info in storage.list(""):
        kind, *folders = info.key.split("/")[:-1][:2] or [OTHER]
        if kind not in KINDS:
            if len(others) < _NAMED:
                others.setdefault(printable(info.key.split("/")[0], _NAME_CHARACTERS))
            kind, folders = OTHER, []
        for name in (kind, *(f"{kind}/{folder}" for folder in folders)):
            objects[name] += 1
            sizes[name] += info.size
    folders = sorted((name for name in objects if "/" in name), key=lambda name: (-sizes[name], name))

    return Figures(
        at=at,
        kinds={
            name: Count(objects=objects[name], bytes=sizes[name]) for name in (*KINDS, OTHER) if objects[name]
        },
        largest={
            printable(name): Count(objects=objects[name], bytes=sizes[name]) for name in folders[:_LARGEST]
        },
        others=tuple(others),
    )


def table(now: Figures, before: Figures | None) -> list[str]:
    """The figures as a person reads them: kinds, and the largest folders below them."""
    growth = _growth(now, before)
    whole = Count(
        objects=sum(kind.objects for kind, _ in growth.values()),
        bytes=sum(kind.bytes for kind, _ in growth.values()),
    )
    return [
        f"{'':<40}{'objects':>12}{'bytes':>20}{f'since {before.at}' if before else '':>28}".rstrip(),
        *(_line(name, kind, grown) for name, (kind, grown) in growth.items()),
        _line("all", whole, sum(grown or 0 for _, grown in growth.values()) if before else None),
        *(_line(name, kind, None) for name, kind in now.largest.items()),
    ]


def _growth(now: Figures, before: Figures | None) -> dict[str, tuple[Count, int | None]]:
    """Of each kind that is there, or was, how much there is and by how many bytes it has grown."""
    earlier = before.kinds if before else {}
    names = [name for name in (*KINDS, OTHER) if name in now.kinds or name in earlier]
    kinds = {name: now.kinds.get(name, _NONE) for name in names}
    return {
        name: (kind, kind.bytes - earlier.get(name, _NONE).bytes if before else None)
        for name, kind in kinds.items()
    }


def _line(name: str, kind: Count, grown: int | None) -> str:
    shown = "" if grown is None else f"{grown:+,}"
    return f"{name:<40}{kind.objects:>12,}{kind.bytes:>20,}{shown:>28}".rstrip()


def _last(storage: Storage) -> Figures | None:
    """The figures of the last time; None where there are none that can be read."""
    keys = [info.key for info in storage.list(PREFIX) if info.key.endswith(".json")]
    for key in reversed(keys):
        try:
            return Figures.model_validate_json(storage.read(key))
        except ValidationError:
            log.warning("%s holds no figures: those before it count; delete it", storage.uri(key))
    return None
