"""Writes ``.env`` for docker-compose.yaml: a random value for each secret that it does not have yet.

What is there is never replaced: the database and the store keep what they were made with.
Run by ``make compose-env``, with nothing but Python.
"""

from __future__ import annotations

import base64
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


def complete(path: Path) -> list[str]:
    """Add what a file of variables lacks, and let only its owner read it; the names that were added."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+") as file:
        os.fchmod(file.fileno(), 0o600)
        text = file.read()
        known = set(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE))
        missing = [name for name in VALUES if name not in known]
        begin = "\n" if text and not text.endswith("\n") else ""
        file.write(begin + "".join(f"{name}={VALUES[name]()}\n" for name in missing))
    return missing


if __name__ == "__main__":
    written = complete(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {', '.join(written) + ' written' if written else 'all there'}")
