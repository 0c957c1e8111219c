"""The door to OpenAI-compatible servers of the user's own: connection, retries, and whose a fault is.

A fault that may pass is tried again, after a pause that doubles or that the
server asks for. What it refuses to do for one request is a ``RefusedError``, which
the caller lays at the right door; what no request would get past is an
``AitpError``. The key goes to the configured server only, and into no message.
"""

import email.utils
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, DefaultHttpxClient, OpenAI, Timeout

from aitp_tasks import config
from aitp_tasks.errors import InputError, TransientError

log = logging.getLogger(__name__)

#: Error class of a row that the server does not get done.
REFUSED = "refused_by_endpoint"
_CONNECT_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
#: A server that asks for a longer pause than this, in seconds, is asked again after it.
_LONGEST_RETRY_AFTER = 600.0
#: Of a request that was answered with nonsense, before the request is taken for the cause.
_NONSENSE_RETRIES = 2
_LOG_SECONDS = 5.0
_REASON_CHARACTERS = 200

T = TypeVar("T")


class RefusedError(Exception):
    """The server will not do this request.

    Attributes:
        status: of its answer; None where it was answered with nonsense.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class ForbiddenError(InputError):
    """403: the server refuses the key, or what stands before it the content.

    Attributes:
        reason: as the server gives it.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ExhaustedError(TransientError):
    """A request was tried as often as is allowed."""


class _FailedError(Exception):
    """The server did not answer this time."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class NonsenseError(_FailedError):
    """What the server answered is not what it was asked for."""


class Server:
    """A server and its connections.

    Attributes:
        client: sends one request; ``ask`` tells what its errors mean.
    """

    def __init__(self, settings: config.Endpoint, section: str, key_variable: str) -> None:
        """Connect at the first request.

        Args:
            settings: of the server.
            section: of the configuration that names it.
            key_variable: environment variable with its key.

        Raises:
            InputError: that is no key.
        """
        self._settings = settings
        self._section = section
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            # An HTTP header cannot hold it, and the client would show it in its error.
            raise InputError(f"{key_variable} holds characters that no key has: set it to the server's key")
        self.client = _client(settings, self._key)
        self._retried, self._logged = 0, -_LOG_SECONDS
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"the endpoint {self._settings.url}"

    def ask(self, send: Callable[[], T], stopped: threading.Event, retries: int | None = None) -> T:
        """What one request gives, after as many tries as it takes.

        Args:
            send: sends it by ``client``; raises NonsenseError for an answer that is none.
            stopped: once it is set, nothing is tried again.
            retries: by default as configured.

        Raises:
            RefusedError: the server does not do this request.
            InputError: it never will do any; ForbiddenError where that is not sure.
            ExhaustedError: it does not answer.
            TransientError: ``stopped`` is set.
        """
        tries = 0
        allowed = self._settings.retries if retries is None else retries
        while True:
            try:
                return self._send(send)
            except _FailedError as failure:
                tries += 1
                nonsense = isinstance(failure, NonsenseError)
                most = min(allowed, _NONSENSE_RETRIES) if nonsense else allowed
                if tries > most and nonsense:
                    raise RefusedError(str(failure))
                if tries > most:
                    raise ExhaustedError(
                        f"{self} failed {tries} times ({failure}): check that it is up, then retry"
                    )
                pause = max(failure.pause, _pause(tries))
                self._log_retry(tries, most, pause, failure)
            if stopped.wait(pause):
                raise TransientError(f"{self} was left: another request failed")

    def _send(self, send: Callable[[], T]) -> T:
        try:
            return send()
        except APIStatusError as error:
            raise self._explain(error) from None
        except APITimeoutError:
            raise _FailedError(
                f"no answer within timeout_seconds={self._settings.timeout_seconds:g}"
            ) from None
        except APIConnectionError as error:
            raise _FailedError(self._short(error.__cause__ or error)) from None

    def _explain(self, error: APIStatusError) -> Exception:
        status, reason = error.status_code, self._short(error)
        if status in (408, 409, 429) or status >= 500:
            return _FailedError(reason, _retry_after(error.response.headers.get("retry-after")))
        if status in (401, 403):
            message = f"{self} refuses the key ({status}): set {self._key_variable} to one it accepts"
            return ForbiddenError(message, reason) if status == 403 else InputError(message)
        if status == 404:
            return InputError(
                f"{self} answers 404 for the model {self._settings.served_model!r}: correct "
                f"{self._section}.endpoint.url, which ends with /v1, or served_model"
            )
        if status < 400:
            return InputError(
                f"{self} redirects ({status}): set {self._section}.endpoint.url to where it leads"
            )
        return RefusedError(reason, status)

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


class Pool:
    """Calls at the same time, in threads that keep no process from ending.

    ``ThreadPoolExecutor`` joins its threads when the interpreter ends, and so waits
    for the answer of a server that hangs.

    Attributes:
        stopped: set once the pool is closed.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads = 0
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.stopped = threading.Event()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Make a call as soon as a thread is free."""
        future: Future[T] = Future()
        self._calls.put(lambda: _make(call, future))
        if self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name="endpoint", daemon=True).start()
        return future

    def close(self) -> None:
        """Begin no further call, and wait for none."""
        self.stopped.set()
        for _ in range(self._threads):
            self._calls.put(lambda: None)

    def _work(self) -> None:
        while not self.stopped.is_set():
            call = self._calls.get()
            if not self.stopped.is_set():
                call()


def _make(call: Callable[[], T], future: "Future[T]") -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _client(settings: config.Endpoint, key: str) -> OpenAI:
    """A client that sends the key to the configured server only."""
    timeout = Timeout(settings.timeout_seconds, connect=min(_CONNECT_SECONDS, settings.timeout_seconds))

    def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _InTime(response.stream, settings.timeout_seconds)

    client = OpenAI(
        base_url=settings.url,
        # The client wants one, also for a server that wants none.
        api_key=key or "none",
        max_retries=0,
        timeout=timeout,
        http_client=DefaultHttpxClient(
            timeout=timeout,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=settings.concurrency),
            event_hooks={"response": [bound]},
        ),
    )
    # Read from OPENAI_ORG_ID and OPENAI_PROJECT_ID; no affair of this server.
    client.organization = client.project = None
    return client


class _InTime(httpx2.SyncByteStream):
    """A body that has to be complete in time; the client's own timeout begins anew with each piece."""

    def __init__(self, pieces: httpx2.SyncByteStream, seconds: float) -> None:
        self._pieces = pieces
        self._end = time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if time.monotonic() > self._end:
                raise httpx2.ReadTimeout("the answer came piece by piece")
            yield piece

    def close(self) -> None:
        self._pieces.close()


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
