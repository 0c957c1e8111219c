"""A small S3 server that is told what is wrong with it: which headers it ignores, when it says conflict."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler

from tests.aitp_tasks import loopback

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>as it was told</Message></Error>"


@dataclass
class Store:
    """What the server holds, and how it behaves."""

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    #: Headers that a write does not look at.
    ignores: set[str] = field(default_factory=set)
    #: Headers that a write answers with 501.
    unknown: set[str] = field(default_factory=set)
    #: Headers by which a write is refused whether they hold or not.
    refuses: set[str] = field(default_factory=set)
    #: Status and code by which it refuses whatever is asked.
    refuses_all: tuple[int, str] | None = None
    #: How many of the next writes meet another one.
    conflicts: int = 0
    #: What the other write leaves there.
    other: bytes | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving() -> Iterator[Store]:
    """A running store, on loopback."""
    store = Store()

    class Handler(_Handler):
        held = store

    with loopback.serving(Handler) as address:
        store.address = address
        yield store


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Store

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.held.lock:
            self.held.requests.append(("PUT", self.path))
            status, code = self._judged()
            if status == 200:
                self.held.objects[self.path] = body
            self._answer(status, code)

    def do_GET(self) -> None:
        with self.held.lock:
            self.held.requests.append((self.command, self.path))
            found = self.held.objects.get(self.path)
            if self.held.refuses_all:
                self._answer(*self.held.refuses_all)
            elif found is None and self.path.count("/") > 1:
                self._answer(404, "NoSuchKey")
            else:
                self._answer(200, "", found or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _judged(self) -> tuple[int, str]:
        held, found = self.held, self.held.objects.get(self.path)
        absent, matches = (self._condition(name) for name in ("If-None-Match", "If-Match"))
        if held.refuses_all:
            return held.refuses_all
        if held.unknown & set(self.headers):
            return 501, "NotImplemented"
        if held.conflicts:
            held.conflicts -= 1
            if held.other is not None:
                held.objects[self.path] = held.other
            return 409, "ConditionalRequestConflict"
        if held.refuses & set(self.headers):
            return 412, "PreconditionFailed"
        if absent and found is not None:
            return 412, "PreconditionFailed"
        if matches and found is None:
            return 404, "NoSuchKey"
        if matches and found is not None and matches != _tag(found):
            return 412, "PreconditionFailed"
        return 200, ""

    def _condition(self, name: str) -> str | None:
        return None if name in self.held.ignores else self.headers[name]

    def _answer(self, status: int, code: str, body: bytes = b"") -> None:
        found = self.held.objects.get(self.path)
        data = _ERROR.format(code=code).encode() if code else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if not code and found is not None:
            self.send_header("ETag", _tag(found))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _tag(data: bytes) -> str:
    return f'"{md5(data).hexdigest()}"'
