"""Why a response is not read."""


class UnreadableError(ValueError):
    """A response cannot be read, or not in one way only; the message says why."""


def excerpt(text: str, position: int = 0) -> str:
    """A few characters of a response, for a message."""
    return repr(text[position : position + 30])
