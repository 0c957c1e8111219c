"""How fast a unit is embedding: a log line every few seconds, and figures for the manifest."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aitp_tasks.encoder.batches import Answer, Backend

log = logging.getLogger(__name__)

_LOG_SECONDS = 5.0


class Progress:
    """Counts of one unit, over all its shards.

    Attributes:
        rows: rows embedded or quarantined now, not those found done.
    """

    def __init__(self, label: str, planned_rows: int | None) -> None:
        """``planned_rows``: of all shards; None where a shard's are not known."""
        self.rows = 0
        self._label = label
        self._planned_rows = planned_rows
        self._skipped = 0
        self._tokens = self._padded = 0
        self._device_mb = 0.0
        self._seconds = 0.0
        self._since: float | None = None
        self._logged = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While the backend works; loading it, and shards that were done before, do not count."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._seconds = self._elapsed()
            self._since = None

    def skip(self, rows: int) -> None:
        """Rows that are done without any work."""
        self._skipped += rows

    def answered(self, answer: Answer, backend: Backend) -> None:
        """A batch has its vectors."""
        self._tokens += sum(len(sequence) for sequence in answer.batch.sequences)
        self._padded += answer.batch.padded_tokens
        self._device_mb = backend.memory_mb()
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            told = " ".join(f"{name}={value}" for name, value in self.figures().items())
            log.info("embed label=%s %s seconds_left=%s", self._label, told, self._seconds_left())

    def finished(self, rows: int) -> None:
        """A chunk is in storage."""
        self.rows += rows

    def figures(self) -> dict[str, Any]:
        """For the log and the manifest."""
        seconds = max(self._elapsed(), 1e-3)
        return {
            "rows_embedded_now": self.rows,
            "busy_seconds": round(self._elapsed(), 3),
            "rows_per_second": round(self.rows / seconds, 1),
            "tokens_per_second": round(self._tokens / seconds),
            "padding": round(1 - self._tokens / self._padded, 4) if self._padded else 0.0,
            "device_mb": round(self._device_mb),
        }

    def _elapsed(self) -> float:
        return self._seconds + (time.monotonic() - self._since if self._since is not None else 0.0)

    def _seconds_left(self) -> str:
        """Whole seconds; ``?`` until a chunk is in storage, and where the planned rows are not known."""
        if self._planned_rows is None or not self.rows:
            return "?"
        left = max(self._planned_rows - self._skipped - self.rows, 0)
        return f"{left * self._elapsed() / self.rows:.0f}"
