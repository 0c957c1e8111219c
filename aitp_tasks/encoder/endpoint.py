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
import json
import threading
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks import config
from aitp_tasks.encoder.batches import Answer, Batch, Tokens
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine.client import REFUSED, NonsenseError, Pool, RefusedError, Server

KEY_VARIABLE = "AITP_EMBEDDINGS_API_KEY"
_BATCH_TOKENS = 16_384
#: What every model can embed: shows the dimension, and whether the server is well.
_PROBE = [np.zeros(1, dtype=np.int32)]


class EndpointBackend:
    """A server and its connections."""

    name = "endpoint"
    #: The server forms its own batches.
    window_tokens = 0

    def __init__(self, settings: config.Encoder) -> None:
        """Connect, and learn the dimension from a first request.

        Raises:
            InputError: the server refuses the key, does not have the model, or does
                not embed token ids.
            TransientError: it does not answer.
        """
        assert settings.endpoint is not None
        self._settings = settings.endpoint
        self._server = Server(self._settings, "encoder", KEY_VARIABLE)
        self.batch_tokens = settings.batch_tokens or _BATCH_TOKENS
        self.dimension = 0
        try:
            self.dimension = self._request(_PROBE, threading.Event()).shape[1]
        except RefusedError as reason:
            raise InputError(
                f"{self._server} does not embed token ids ({reason}): correct encoder.endpoint.url, "
                "or use a server whose /v1/embeddings takes them"
            )

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """Answers in the order in which they come.

        Raises:
            InputError: the server refuses the key, or no longer has the model.
            TransientError: it does not answer, or answers nothing well any more.
        """
        pool = Pool(self._settings.concurrency)
        waiting: set[Future[Answer]] = set()
        try:
            for batch in batches:
                waiting.add(pool.submit(partial(self._answer, batch, pool.stopped)))
                # As many again stand by, so that the server need not wait for the next text.
                if len(waiting) >= 2 * self._settings.concurrency:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.close()

    def memory_mb(self) -> float:
        """None of this process."""
        return 0.0

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
            except RefusedError as reason:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += (part[middle:], part[:middle])
                else:
                    self._require_sense(reason, stopped)
                    refused[part.start] = Refusal(REFUSED, str(reason))
        return Answer(batch, vectors, refused)

    def _require_sense(self, reason: RefusedError, stopped: threading.Event) -> None:
        """Blame a sequence only while the server still computes another one."""
        try:
            self._request(_PROBE, stopped)
        except RefusedError:
            raise TransientError(f"{self._server} refuses whatever it is sent ({reason}): see its log")

    def _request(self, sequences: Sequence[Tokens], stopped: threading.Event) -> NDArray[np.float32]:
        """Vectors float32 (n, d); see ``Server.ask``."""
        return self._server.ask(partial(self._send, sequences), stopped)

    def _send(self, sequences: Sequence[Tokens]) -> NDArray[np.float32]:
        answer = self._server.client.embeddings.with_raw_response.create(
            model=self._settings.served_model,
            input=[sequence.tolist() for sequence in sequences],
            # A quarter of the bytes of decimal numbers; a server that does not know it sends those.
            encoding_format="base64",
        )
        return _decode(bytes(answer.http_response.content), len(sequences), self.dimension)


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
        raise NonsenseError(f"the answer of {len(body)} bytes is no list of vectors ({type(error).__name__})")
    if len(entries) != count:
        raise NonsenseError(f"{len(entries)} vectors came for {count} sequences")
    if not vectors.shape[1] or vectors.shape[1] != (dimension or vectors.shape[1]):
        raise NonsenseError(f"vectors of dimension {vectors.shape[1]} came instead of {dimension}")
    return vectors


def _vector(value: Any) -> NDArray[np.float32]:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    if not isinstance(value, list) or not all(isinstance(number, float | int) for number in value):
        raise ValueError("no list of numbers")
    return np.array(value, dtype=np.float32)
