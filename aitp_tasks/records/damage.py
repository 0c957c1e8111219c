"""Objects of AITP's own that are there and cannot be read: which one, and what makes it again.

Storages keep what was written; a copy that was cut short, or a hand, does not. Without this a
stage would end with a reader's own words, which name no object, and be tried again in vain.
"""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError

from aitp_tasks.errors import InputError
from aitp_tasks.storage import Storage

#: Keys are those of contents: what is there is not written anew, so it has to go first.
AGAIN = "delete it and the manifest that names it, then clear the task that has made it"
#: What a run builds on, and no stage of its makes.
RESTORE = "restore it, or begin a line with another assemble.dataset"

_T = TypeVar("_T")
#: What readers of Parquet, safetensors and JSON raise; of bytes in memory, so that none is the machine's.
_UNREADABLE = (SafetensorError, OSError, ValueError, LookupError, TypeError, NotImplementedError)
#: Characters of what a reader says.
_QUOTED = 200


class DamagedError(InputError):
    """An object of AITP's own cannot be read."""


def read(storage: Storage, key: str, parse: Callable[[bytes], _T], remedy: str = AGAIN) -> _T:
    """What an object holds.

    Args:
        storage: that has it.
        key: of the object.
        parse: makes it of the object's bytes.
        remedy: what to do where it cannot be.

    Raises:
        DamagedError: it cannot be.
        InputError: there is no such object.
    """
    data = storage.read(key)
    try:
        return parse(data)
    except _UNREADABLE as error:
        raise DamagedError(f"{storage.uri(key)} is damaged ({_reason(error)}): {remedy}") from None


def _reason(error: Exception) -> str:
    """What a reader says, in one line; of a model not the values, which are nobody's that reads a log."""
    if isinstance(error, ValidationError):
        said = "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}" for one in error.errors()[:3])
    else:
        said = str(error)
    return " ".join(said.split())[:_QUOTED]
