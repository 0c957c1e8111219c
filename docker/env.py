"""Writes ``.env`` for docker-compose.yaml: a random value for each secret that it does not have yet.

What is there is never replaced: the database and the store keep what they were made with. What
compose would read otherwise than it stands there is refused, before something is made with it.
Run by ``make compose-env``, with nothing but Python.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _version() -> str:
    found = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert found, "pyproject.toml names no version"
    return found[1]


#: Of letters, digits, "-", "_" and "=" only: they stand in addresses and between no quotes.
VALUES: dict[str, Callable[[], str]] = {
    "AITP_VERSION": _version,
    "AITP_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "AITP_POSTGRES_PASSWORD": lambda: secrets.token_urlsafe(24),
    "AITP_REDIS_PASSWORD": lambda: secrets.token_urlsafe(24),
    "AITP_STORE_ACCESS_KEY": lambda: secrets.token_hex(10),
    "AITP_STORE_SECRET_KEY": lambda: secrets.token_urlsafe(30),
    "AITP_STORE_TOKEN_KEY": lambda: secrets.token_urlsafe(32),
    "AITP_FERNET_KEY": _fernet_key,
    "AITP_API_SECRET": lambda: secrets.token_urlsafe(32),
    "AITP_JWT_SECRET": lambda: secrets.token_urlsafe(48),
}


#: A line as compose reads it; of a name that stands twice, the last one counts.
_LINE = re.compile(r"^\ufeff?[ \t]*(?:export[ \t]+)?(\w+)[ \t]*[=:][ \t]*(.*?)[ \t]*$", re.MULTILINE)
#: They stand in addresses, and Redis' in its configuration, as they are.
_IN_ADDRESSES = ("AITP_POSTGRES_PASSWORD", "AITP_REDIS_PASSWORD")


def complete(path: Path) -> list[str]:
    """Add what a file of variables lacks, and let only its owner read it; the names that were added.

    Raises:
        ValueError: a value that is there would not reach the services as it is; nothing is added.
    """
    with os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8"
    ) as file:
        # Of two that run at once, one makes the secrets.
        fcntl.flock(file, fcntl.LOCK_EX)
        os.fchmod(file.fileno(), 0o600)
        text = file.read()
        known = _values(text)
        missing = [name for name in VALUES if name not in known]
        begin = "\n" if text and not text.endswith("\n") else ""
        file.write(begin + "".join(f"{name}={VALUES[name]()}\n" for name in missing))
    return missing


def _values(text: str) -> dict[str, str]:
    """The variables that have a value; compose takes an empty one for none."""
    known = {name: _uncommented(value) for name, value in _LINE.findall(text)}
    known = {name: value for name, value in known.items() if value not in ("", "''", '""')}
    for name in known.keys() & VALUES.keys():
        value = known[name]
        if "$" in value and not value.startswith("'"):
            raise ValueError(f"{name} holds a $, which compose takes for a variable: put it in single quotes")
        if name in _IN_ADDRESSES and not re.fullmatch(r"""(["']?)[\w.~-]+\1""", value, re.ASCII):
            raise ValueError(f"{name} stands in an address: use letters, digits, '-', '_', '.' and '~' only")
    return known


def _uncommented(value: str) -> str:
    """A value without what follows a "#" that begins a word outside of quotes."""
    return value if value.startswith(("'", '"')) else re.sub(r"\s+#.*", "", value)


def _older(path: Path) -> str:
    """What to do where a file names the images of another release; else nothing."""
    named = _values(path.read_text(encoding="utf-8"))["AITP_VERSION"].strip("'\"")
    if named == _version():
        return ""
    page = "docs/how-to/compose.md"
    return f"; it keeps AITP_VERSION={named}, and this checkout is {_version()}: see Upgrade in {page}"


if __name__ == "__main__":
    try:
        written = complete(Path(sys.argv[1]))
    except UnicodeDecodeError:
        sys.exit(f"{sys.argv[1]} is no text in UTF-8: save it so")
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]}: {getattr(error, 'strerror', None) or error}")
    done = f"{', '.join(written)} written" if written else "all there"
    print(f"{sys.argv[1]}: {done}{_older(Path(sys.argv[1]))}")
