"""The responses in storage, each as the engine gave it, apart from what is read out of it.

They lie in small objects, each named by the range of its ids, in the order in which
they were finished.
"""

import json
import math
import queue
import threading
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa

from aitp_tasks.generation.engine import Completion
from aitp_tasks.records import tables
from aitp_tasks.storage import Storage

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("attempt", pa.int64()),
        ("cut_characters", pa.int64()),
        ("text", pa.large_string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("numbers", pa.large_string()),  # JSON
    ]
)
_FLUSH_SECONDS = 1.0
#: Characters of an id that a stored object's name tells its range by.
_RANGE = 8


@dataclass(frozen=True)
class Response:
    """What an engine has answered.

    Attributes:
        cut_characters: of the document, left out at the end of the prompt.
    """

    completion: Completion
    cut_characters: int = 0


def load(storage: Storage, prefix: str, wanted: AbstractSet[str]) -> dict[str, list[Response]]:
    """The attempts that are there of each request that is wanted, in their order."""
    if not wanted:
        return {}
    low, high = min(wanted)[:_RANGE], max(wanted)[:_RANGE]
    keys = []
    for info in storage.list(prefix):
        first, last = info.key.removeprefix(prefix).split("-")[:2]
        if first <= high and last >= low:
            keys.append(info.key)
    found: dict[str, dict[int, Response]] = {}
    with ThreadPoolExecutor(storage.concurrency) as pool:
        for table in pool.map(lambda key: tables.read(storage, key), keys):
            for row in table.to_pylist():
                key, attempt = row.pop("id"), row.pop("attempt")
                if key in wanted:
                    found.setdefault(key, {}).setdefault(attempt, _response(row))
    return {key: _unbroken(attempts) for key, attempts in found.items()}


def _response(row: dict[str, Any]) -> Response:
    cut, numbers = row.pop("cut_characters"), json.loads(row.pop("numbers"))
    return Response(Completion(**row, numbers=numbers), cut)


def _unbroken(attempts: Mapping[int, Response]) -> list[Response]:
    """The attempts from the first on; what follows a gap was decided by what is missing."""
    return [attempts[number] for number in range(len(attempts)) if set(range(number + 1)) <= attempts.keys()]


class Writer:
    """Makes responses durable within a second after they finish, beside the generation."""

    def __init__(self, storage: Storage, prefix: str, at_most: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._at_most = at_most
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="responses")

    def add(self, key: str, attempt: int, response: Response) -> None:
        """Take in a response; raises what writing an earlier one has raised."""
        if self._failure is not None:
            raise self._failure
        values = vars(response.completion) | {"numbers": json.dumps(response.completion.numbers)}
        self._rows.put({"id": key, "attempt": attempt, "cut_characters": response.cut_characters, **values})

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.put(None)
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        written = -math.inf
        try:
            while rows := self._next(written + _FLUSH_SECONDS):
                self._write(rows)
                written = time.monotonic()
        except BaseException as failure:
            self._failure = failure

    def _next(self, until: float) -> list[dict[str, Any]]:
        """Waits for a row; then those that come until then. Empty at the end."""
        rows: list[dict[str, Any]] = []
        row = self._rows.get()
        while row is not None:
            rows.append(row)
            left = until - time.monotonic()
            if len(rows) >= self._at_most or left <= 0:
                return rows
            try:
                row = self._rows.get(timeout=left)
            except queue.Empty:
                return rows
        if rows:
            self._rows.put(None)
        return rows

    def _write(self, rows: list[dict[str, Any]]) -> None:
        ids = sorted(row["id"][:_RANGE] for row in rows)
        table = pa.Table.from_pylist(rows, _SCHEMA)
        tables.write(self._storage, f"{self._prefix}{ids[0]}-{ids[-1]}", table)
