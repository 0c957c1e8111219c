"""Vectors from a server that speaks OpenAI's ``/v1/embeddings``: a vLLM or TEI of the user's own.

The server gets token ids, so that every text is cut at the same token wherever
vectors are computed. It has to be the same model: its pooling, prompts and
normalisation are what it does with the ids, and nothing is normalised here.
vLLM (0.32) normalises when the model's modules.json does; TEI normalises always,
and reads ids as the text that they decode to.

A request that the server refuses or answers with something else than vectors is
sent again in halves, down to the one sequence that is at fault.
"""

import base64
import email.utils
import json
import logging
import os
import random
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openai import APIConnectionError, APIStatusError, APITimeoutError, DefaultHttpxClient, OpenAI, Timeout

from aitp_tasks import config
from aitp_tasks.embed.batches import Answer, Batch, Tokens
from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.rows import Refusal

log = logging.getLogger(__name__)

KEY_VARIABLE = "AITP_EMBEDDINGS_API_KEY"
REFUSED = "refused_by_endpoint"
_BATCH_TOKENS = 16_384
#: What every model can embed: shows the dimension, and whether the server is well.
_PROBE = [np.zeros(1, dtype=np.int32)]
_CONNECT_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
#: A server that asks for a longer pause than this, in seconds, is asked again after it.
_LONGEST_RETRY_AFTER = 600.0
#: Of a request that was answered with nonsense, before the request is taken for the cause.
_NONSENSE_RETRIES = 2
_LOG_SECONDS = 5.0
_REASON_CHARACTERS = 200


class _RefusedError(Exception):
    """The server will not compute this request."""


class _FailedError(Exception):
    """The server did not answer this time."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _NonsenseError(_FailedError):
    """What the server answered are not the vectors that were asked for."""


class EndpointBackend:
    """A server and its connections."""

    name = "endpoint"

    def __init__(self, settings: config.Encoder) -> None:
        """Connect, and learn the dimension from a first request.

        Raises:
            InputError: the server refuses the key, does not have the model, or does
                not embed token ids.
            TransientError: it does not answer.
        """
        assert settings.endpoint is not None
        self._settings = settings.endpoint
        self._key = os.environ.get(KEY_VARIABLE, "")
        self._client = _client(self._settings, self._key)
        self._retried, self._logged = 0, -_LOG_SECONDS
        self._lock = threading.Lock()
        self.batch_tokens = settings.batch_tokens or _BATCH_TOKENS
        self.dimension = 0
        try:
            self.dimension = self._request(_PROBE, threading.Event()).shape[1]
        except _RefusedError as reason:
            raise InputError(
                f"{self._where} does not embed token ids ({reason}): correct encoder.endpoint.url, "
                "or use a server whose /v1/embeddings takes them"
            )

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """Answers in the order in which they come.

        Raises:
            InputError: the server refuses the key, or no longer has the model.
            TransientError: it does not answer, or answers nothing well any more.
        """
        stopped = threading.Event()
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="endpoint")
        waiting: set[Future[Answer]] = set()
        try:
            for batch in batches:
                waiting.add(pool.submit(self._answer, batch, stopped))
                # As many again stand by, so that the server need not wait for the next text.
                if len(waiting) >= 2 * self._settings.concurrency:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def memory_mb(self) -> float:
        """None of this process."""
        return 0.0

    @property
    def _where(self) -> str:
        return f"the endpoint {self._settings.url}"

    def _answer(self, batch: Batch, stopped: threading.Event) -> Answer:
        vectors = np.full((len(batch.sequences), self.dimension), np.nan, dtype=np.float32)
        refused: dict[int, Refusal] = {}
        parts = [range(len(batch.sequences))]
        while parts:
            part = parts.pop()
            try:
                vectors[part.start : part.stop] = self._request(
                    batch.sequences[part.start : part.stop], stopped
                )
            except _RefusedError as reason:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += (part[middle:], part[:middle])
                else:
                    self._require_sense(reason, stopped)
                    refused[part.start] = Refusal(REFUSED, str(reason))
        return Answer(batch, vectors, refused)

    def _require_sense(self, reason: _RefusedError, stopped: threading.Event) -> None:
        """Blame a sequence only while the server still computes another one."""
        try:
            self._request(_PROBE, stopped)
        except _RefusedError:
            raise TransientError(f"{self._where} refuses whatever it is sent ({reason}): see its log")

    def _request(self, sequences: Sequence[Tokens], stopped: threading.Event) -> NDArray[np.float32]:
        """Vectors float32 (n, d), after as many tries as it takes.

        Raises:
            _RefusedError: the server does not compute vectors for this request.
            AitpError: it never will compute any, or does not answer.
        """
        tries = 0
        while True:
            try:
                return _decode(self._send(sequences), len(sequences), self.dimension)
            except _FailedError as failure:
                tries += 1
                nonsense = isinstance(failure, _NonsenseError)
                retries = (
                    min(self._settings.retries, _NONSENSE_RETRIES) if nonsense else self._settings.retries
                )
                if tries > retries and nonsense:
                    raise _RefusedError(str(failure))
                if tries > retries:
                    raise self._exhausted(failure, tries)
                pause = max(failure.pause, _pause(tries))
                self._log_retry(tries, retries, pause, failure)
            if stopped.wait(pause):
                raise TransientError(f"{self._where} was left: another request failed")

    def _send(self, sequences: Sequence[Tokens]) -> bytes:
        """One request; the body of its answer."""
        try:
            answer = self._client.embeddings.with_raw_response.create(
                model=self._settings.served_model,
                input=[sequence.tolist() for sequence in sequences],
                # A quarter of the bytes of decimal numbers; a server that does not know it sends those.
                encoding_format="base64",
            )
        except APIStatusError as error:
            raise self._explain(error) from None
        except APITimeoutError:
            raise _FailedError(
                f"no answer within timeout_seconds={self._settings.timeout_seconds:g}"
            ) from None
        except APIConnectionError as error:
            raise _FailedError(self._short(error.__cause__ or error)) from None
        return bytes(answer.http_response.content)

    def _explain(self, error: APIStatusError) -> Exception:
        status, reason = error.status_code, self._short(error)
        if status in (408, 409, 429) or status >= 500:
            return _FailedError(reason, _retry_after(error.response.headers.get("retry-after")))
        if status in (401, 403):
            return InputError(
                f"{self._where} refuses the key ({status}): set {KEY_VARIABLE} to one it accepts"
            )
        if status == 404:
            return InputError(
                f"{self._where} answers 404 for the model {self._settings.served_model!r}: correct "
                "encoder.endpoint.url, which ends with /v1, or served_model"
            )
        if status < 400:
            return InputError(
                f"{self._where} redirects ({status}): set encoder.endpoint.url to where it leads"
            )
        return _RefusedError(reason)

    def _exhausted(self, failure: _FailedError, tries: int) -> AitpError:
        return TransientError(
            f"{self._where} failed {tries} times ({failure}): check that it is up, then retry"
        )

    def _short(self, error: BaseException) -> str:
        """An error in few characters, one line, without the key."""
        text = f"{error.status_code} " if isinstance(error, APIStatusError) else f"{type(error).__name__} "
        text += " ".join(str(error).removeprefix(f"Error code: {text.strip()}").strip(" -").split())
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(filter(str.isprintable, text))[:_REASON_CHARACTERS].strip()

    def _log_retry(self, tries: int, retries: int, pause: float, failure: _FailedError) -> None:
        with self._lock:
            self._retried += 1
            now = time.monotonic()
            if now - self._logged < _LOG_SECONDS:
                return
            self._logged = now
        log.warning(
            "endpoint=%s retry=%d of=%d pause_seconds=%.1f retries_so_far=%d reason=%r",
            self._settings.url, tries, retries, pause, self._retried, str(failure),
        )  # fmt: skip


def _client(settings: config.Endpoint, key: str) -> OpenAI:
    """A client that sends the key to the configured server only."""
    timeout = Timeout(settings.timeout_seconds, connect=min(_CONNECT_SECONDS, settings.timeout_seconds))
    client = OpenAI(
        base_url=settings.url,
        # The client wants one, also for a server that wants none.
        api_key=key or "none",
        max_retries=0,
        timeout=timeout,
        http_client=DefaultHttpxClient(timeout=timeout, follow_redirects=False),
    )
    # Read from OPENAI_ORG_ID and OPENAI_PROJECT_ID; no affair of this server.
    client.organization = client.project = None
    return client


def _decode(body: bytes, count: int, dimension: int) -> NDArray[np.float32]:
    """The vectors of an answer, float32 (n, d), by their index.

    Args:
        body: the answer.
        count: vectors that were asked for.
        dimension: length that they should have; 0 when it is not known yet.
    """
    try:
        entries = json.loads(body)["data"]
        places = {int(entry["index"]): _vector(entry["embedding"]) for entry in entries}
        vectors = np.stack([places[place] for place in range(count)])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _NonsenseError(
            f"the answer of {len(body)} bytes is no list of vectors ({type(error).__name__})"
        )
    if len(entries) != count:
        raise _NonsenseError(f"{len(entries)} vectors came for {count} sequences")
    if not vectors.shape[1] or vectors.shape[1] != (dimension or vectors.shape[1]):
        raise _NonsenseError(f"vectors of dimension {vectors.shape[1]} came instead of {dimension}")
    return vectors


def _vector(value: Any) -> NDArray[np.float32]:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    if not isinstance(value, list) or not all(isinstance(number, float | int) for number in value):
        raise ValueError("no list of numbers")
    return np.array(value, dtype=np.float32)


def _pause(tries: int) -> float:
    """Seconds before the next try: doubling, and different for each request."""
    return min(_FIRST_PAUSE * 2.0 ** (tries - 1), _LONGEST_PAUSE) * random.uniform(0.75, 1.0)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0 without one."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if seconds == seconds else 0.0
