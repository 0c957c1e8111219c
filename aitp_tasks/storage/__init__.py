"""The one door to object storage: ``open_storage("s3://…" | "file://…")``.

Every stage reads and writes through the ``Storage`` that this returns. Keys are
relative to the root. Credentials come from the environment (the standard
``AWS_*`` variables), never from a URI or a configuration file.
"""

from aitp_tasks.errors import InputError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage, Tagged
from aitp_tasks.storage.local import LocalStorage

__all__ = ["ObjectChangedError", "ObjectInfo", "Storage", "Tagged", "open_storage"]


def open_storage(root: str) -> Storage:
    """Open the storage under ``root``.

    Args:
        root: ``s3://bucket[/prefix]`` or ``file:///absolute/folder``, taken letter by letter: nothing in it
            stands for something else, as ``%20`` would in an address of the web.

    Raises:
        InputError: another scheme, credentials inside the URI, no bucket, or no client for it can be made.
    """
    # Not urlsplit: a file system and a store have "#" and "?" in names, and line ends too.
    scheme, _, rest = root.partition("://")
    place, _, path = rest.partition("/")
    if "@" in place or ":" in place:
        raise InputError("the storage root holds credentials: put them into AWS_* variables instead")
    if scheme.lower() == "file" and rest.startswith("/"):
        return LocalStorage(rest)
    if scheme.lower() == "s3" and place:
        from aitp_tasks.storage.s3 import S3Storage

        return S3Storage(place, path.strip("/"))
    raise InputError(f"storage root {root!r}: use s3://bucket[/prefix] or file:///absolute/folder")
