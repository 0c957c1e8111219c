"""Counts and speed of a part's requests to one prompt."""

import logging
import math
import time
from collections import Counter
from typing import Any

from aitp_tasks.generation.engine import Completion, Engine

log = logging.getLogger(__name__)

_LOG_SECONDS = 5.0


class Figures:
    """Counts and speed of a part's requests to one prompt."""

    def __init__(self) -> None:
        self.reused = self.cut = 0
        self.repairs: Counter[str] = Counter()
        self.neutralised: Counter[str] = Counter()
        self._generated = self._retried = 0
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self.begin()
        self._seconds = self._load_seconds = 0.0
        self._restarts = 0

    def begin(self, load_seconds: float = 0.0, restarts: int = 0) -> None:
        """Generating begins, on an engine that has spent so much on others."""
        self._start = self._logged = time.monotonic()
        self._before = load_seconds, restarts

    def add(self, completion: Completion, again: bool) -> None:
        """Count a completion."""
        self._generated += 1
        self._retried += again
        self._prompt_tokens += completion.prompt_tokens
        self._cached_tokens += completion.cached_tokens
        self._generated_tokens += completion.generated_tokens

    def tick(self, engine: Engine, done: int, total: int) -> None:
        """Take the time, and tell how far it is, every few seconds."""
        now = time.monotonic()
        loaded, restarted = self._before
        self._seconds, self._load_seconds, self._restarts = (
            now - self._start,
            engine.load_seconds - loaded,
            engine.restarts - restarted,
        )
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        left = self._busy / done * (total - done) if done else math.nan
        log.info(
            "done=%d of=%d tokens_per_second=%s prefix_hit_share=%s restarts=%d seconds_left=%.0f",
            done, total, *(self.told()[name] for name in ("tokens_per_second", "prefix_hit_share")),
            self._restarts, left,
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "requests": self.reused + self._generated,
            "reused": self.reused,
            "generated": self._generated,
            "retried": self._retried,
            "documents_cut": self.cut,
            "repairs": dict(sorted(self.repairs.items())),
            "neutralised": dict(sorted(self.neutralised.items())),
            "prompt_tokens": self._prompt_tokens,
            "generated_tokens": self._generated_tokens,
            "tokens_per_second": round(self._generated_tokens / self._busy, 1) if self._busy else 0.0,
            "prefix_hit_share": round(self._cached_tokens / max(self._prompt_tokens, 1), 4),
            "load_seconds": round(self._load_seconds, 1),
            "busy_seconds": round(self._busy, 1),
            "engine_restarts": self._restarts,
        }

    @property
    def _busy(self) -> float:
        return max(self._seconds - self._load_seconds, 0.0)
