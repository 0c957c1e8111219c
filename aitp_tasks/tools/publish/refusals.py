"""What a hub's refusals mean: wrong input, or a fault that may be gone at the next try; never a token."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from aitp_tasks.errors import AitpError, InputError, TransientError

_UNAUTHORISED, _FORBIDDEN = 401, 403
_CONFLICTS = {409, 412}
_PASSING = {408, 425, 429}
_SERVER = 500
_AGAIN = "run the same command again; what is there is not uploaded again"
#: By which the hub's client tells of a card that the hub does not take.
_CARD = "Invalid metadata in README.md"
_USER_PART = re.compile(r"://[^/\s@]*@")
_CHARACTERS = 500


@contextmanager
def explained(where: str, token: str) -> Iterator[None]:
    """Raise what a hub's client raises as one of ours.

    Args:
        where: the repository, for the message.
        token: which no message has.
    """
    from httpx2 import HTTPError

    try:
        yield
    except AitpError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        raise _of(error, where, token) from None


def _of(error: Exception, where: str, token: str) -> AitpError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    told = _clean(error, token)
    cause = error.__cause__ if isinstance(error, RuntimeError) else None
    found = cause if isinstance(cause, HfHubHTTPError) else error
    if isinstance(found, HfHubHTTPError):
        if cause is not None:
            told = f"{told} {_clean(found, token)}"
        return _of_status(found.response.status_code, told, where)
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"HF_HUB_OFFLINE is set, so that {where} cannot be reached: unset it to publish")
    if _CARD in str(error):
        return InputError(f"{where} does not take the card: {told}: correct assemble.license or the card")
    return TransientError(f"{where} has failed ({type(error).__name__}: {told}): {_AGAIN}")


def _of_status(status: int, told: str, where: str) -> AitpError:
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return InputError(
            f"{where} refuses the token ({status}): give HF_TOKEN one that may write there, and correct the "
            f"name if the repository is not yours: {told}"
        )
    if status in _CONFLICTS:
        return TransientError(f"somebody else has written to {where} meanwhile ({status}): {_AGAIN}: {told}")
    if status in _PASSING or status >= _SERVER:
        return TransientError(f"{where} has failed ({status}): {_AGAIN}: {told}")
    return InputError(f"{where} refuses this ({status}): correct it, then publish again: {told}")


def _clean(error: Exception, token: str) -> str:
    """What an error says, in one line, without what is nobody's."""
    said = " ".join(str(error).split()).replace(token, "***")
    return _USER_PART.sub("://", said)[:_CHARACTERS]
