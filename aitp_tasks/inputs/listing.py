"""What lies in the folder of a dump or an SFT set: shards, what is left out by convention, and the rest.

Every object is one of these. Left out, as Spark, Arrow and Hive do it, is what has
a name in its path that begins with ``_`` or ``.``; besides, empty objects that
stand for folders, and the files about files that datasets and LLaMA-Factory leave.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import formats
from aitp_tasks.storage import ObjectInfo, Storage

#: Of objects, in one message.
NAMES_SHOWN = 3
_HIDDEN = ("_", ".")
#: How Hadoop writes a folder into a store that has none.
_FOLDER_ENDINGS = ("/", "_$folder$")
_ABOUT_FILES = re.compile(
    r"(dataset_info|dataset_infos|dataset_dict|state)\.json|cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow"
)
#: Names in a path that only a table has whose log says which of its files count.
_TABLES = {"_delta_log": "a Delta", ".hoodie": "a Hudi"}
_ICEBERG = re.compile(r"(.*/)?metadata/[^/]+\.metadata\.json")


@dataclass
class Listing:
    """The objects of one folder.

    Attributes:
        shards: what is read, in the order of their keys.
        unknown: keys of what is not read, though no convention says so.
        skipped: how many are left out by which convention.
    """

    shards: list[ObjectInfo] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def named(self) -> str:
        """What is not read, in one line; empty where all is."""
        parts = []
        if self.unknown:
            parts.append(f"{len(self.unknown)} objects are not read: {shortened(self.unknown)}")
        parts += [f"{count} {convention} are left out" for convention, count in self.skipped.items()]
        return "; ".join(parts)


def read(storage: Storage, role: str, source: str) -> Listing:
    """The listing of ``corpus/<dump>/`` or ``sft/<name>/``.

    Raises:
        InputError: there is nothing to read, or it is a table with a log.
    """
    folder = f"{role}/{source}/"
    listing = of(storage, folder)
    if not listing.shards:
        raise _nothing(storage, role, source, listing)
    return listing


def of(storage: Storage, folder: str) -> Listing:
    """What lies below any folder, given with its ``/``, or below the storage's root.

    Raises:
        InputError: it is a table with a log.
    """
    listing = Listing()
    for info in storage.list(folder):
        path = info.key.removeprefix(folder)
        _refuse_table(path, storage.uri(folder))
        if convention := _convention(path, info.size):
            listing.skipped[convention] = listing.skipped.get(convention, 0) + 1
        elif formats.of(info.key) is None:
            listing.unknown.append(info.key)
        else:
            listing.shards.append(info)
    listing.unknown += sorted(
        key for key in storage.unlisted(folder) if not _convention(key.removeprefix(folder), size=1)
    )
    return listing


def shortened(names: Sequence[str]) -> str:
    """Some names, of many the first."""
    left = len(names) - NAMES_SHOWN
    return ", ".join(names) if left <= 0 else f"{', '.join(names[:NAMES_SHOWN])}, and {left} more"


def _convention(path: str, size: int) -> str:
    """Why an object is left out; empty where it is not."""
    if size == 0 and path.endswith(_FOLDER_ENDINGS):
        return "folder markers"
    if any(name.startswith(_HIDDEN) for name in path.split("/")):
        return "hidden files"
    if _ABOUT_FILES.fullmatch(path.rpartition("/")[2]):
        return "files about files"
    return ""


def _refuse_table(path: str, where: str) -> None:
    found = next((_TABLES[name] for name in path.split("/")[:-1] if name in _TABLES), None)
    if found is None and _ICEBERG.fullmatch(path):
        found = "an Iceberg"
    if found is not None:
        raise InputError(
            f"{where} is {found} table ({path}), whose log says which of its files count: write its rows "
            "as plain Parquet into a folder of their own (in Spark, spark.read.format(...).load(...)"
            ".write.parquet(...)) and name that"
        )


def _nothing(storage: Storage, role: str, source: str, listing: Listing) -> InputError:
    where = storage.uri(f"{role}/{source}/")
    others = [name for name in storage.folders(f"{role}/") if name != source]
    remedy = f"name one of {others}" if others else f"upload shards to it ({formats.READ})"
    if not listing.unknown and not listing.skipped:
        return InputError(f"{where} holds no objects: {remedy}")
    return InputError(
        f"{where} holds no shards ({listing.named()}): upload some to it ({formats.READ})"
        + (f", or {remedy}" if others else "")
    )
