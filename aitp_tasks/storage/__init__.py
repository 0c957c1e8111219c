"""The one door to object storage: ``open_storage("s3://…" | "file://…")``.

Every stage reads and writes through the ``Storage`` that this returns. Keys are
relative to the root. Credentials come from the environment (the standard
``AWS_*`` variables), never from a URI or a configuration file.
"""

from urllib.parse import urlsplit

from aitp_tasks.errors import InputError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage, Tagged
from aitp_tasks.storage.local import LocalStorage

__all__ = ["ObjectChangedError", "ObjectInfo", "Storage", "Tagged", "open_storage"]


def open_storage(root: str) -> Storage:
    """Open the storage under ``root``.

    Args:
        root: ``s3://bucket[/prefix]`` or ``file:///absolute/folder``.

    Raises:
        InputError: another scheme, credentials inside the URI, or no bucket.
    """
    parts = urlsplit(root)
    if parts.username or parts.password:
        raise InputError("the storage root holds credentials: put them into AWS_* variables instead")
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return LocalStorage(parts.path)
    if parts.scheme == "s3" and parts.netloc:
        from aitp_tasks.storage.s3 import S3Storage

        return S3Storage(parts.netloc, parts.path.strip("/"))
    raise InputError(f"storage root {root!r}: use s3://bucket[/prefix] or file:///absolute/folder")
