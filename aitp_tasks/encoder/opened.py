"""The one door to the sentence encoder: texts to tokens, tokens to vectors.

Where it runs is chosen here: on the configured server, else on a GPU that this
process leases, else on the CPU.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aitp_tasks import config
from aitp_tasks.encoder import chunks, windows
from aitp_tasks.encoder.batches import Backend
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.encoder.prepared import Prepared, prepare
from aitp_tasks.encoder.tokens import Tokeniser
from aitp_tasks.inputs.rows import Refusal
from aitp_tasks.machine import devices, models
from aitp_tasks.records import vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """An encoder, ready to use."""

    facts: Facts
    tokeniser: Tokeniser
    backend: Backend

    def vectors_of(
        self, texts: Iterable[str | Refusal]
    ) -> Iterator[tuple[vectors.Vectors, dict[int, Refusal]]]:
        """The vectors that documents of these texts have, a chunk at a time, in order.

        Returns:
            Vectors whose rows are places among the texts, and by its place why a text has none.
        """
        backend, normalised = self.backend, self.facts.normalised
        read = chunks.read(iter(texts), self.tokeniser, backend.dimension, normalised, start=0)
        for window in windows.grouped(read, backend.window_tokens):
            for answer in backend.run(chunks.batches(window, backend.batch_tokens)):
                chunks.take(answer)
            for chunk in window:
                found, _, refused = chunk.finish()
                yield found, dict(refused)

    def vector_of(self, text: str) -> vectors.Values | Refusal:
        """The vector float16 (1, d) that a document of this text has, or why it has none."""
        ((found, refused),) = self.vectors_of([text])
        return refused[0] if refused else found.values


def open_encoder(settings: config.Encoder, identity: str) -> Encoder:
    """Load the encoder where it is to run.

    Args:
        settings: which model, and how it reads texts.
        identity: digest of the model's content.

    Raises:
        InputError: it cannot be loaded, is not the one of this identity, or the server does not know it;
            or no GPU is seen where one is required.
        TransientError: no GPU became free, or the server does not answer.
    """
    if settings.endpoint is None:
        devices.require(1, "encoder.model")
    models.require_planned(settings, identity, "encoder model")
    prepared = prepare(settings, identity)
    backend = _open_backend(settings, prepared)
    log.info(
        "encoder on=%s dimension=%d batch_tokens=%d", backend.name, backend.dimension, backend.batch_tokens
    )
    return Encoder(prepared.facts, Tokeniser(prepared.tokenizer_json, prepared.facts, settings), backend)


def _open_backend(settings: config.Encoder, prepared: Prepared) -> Backend:
    # Each import costs seconds or megabytes, and only one is needed.
    if settings.endpoint is not None:
        from aitp_tasks.encoder.endpoint import EndpointBackend

        return EndpointBackend(settings)
    on_gpu = devices.lease(1, "encoder.model") is not None
    if prepared.graph is not None and not on_gpu:
        from aitp_tasks.encoder.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(prepared.graph, prepared.facts, settings.batch_tokens)
    from aitp_tasks.encoder.torch_backend import TorchBackend

    return TorchBackend(settings, prepared.facts, "cuda" if on_gpu else "cpu")
