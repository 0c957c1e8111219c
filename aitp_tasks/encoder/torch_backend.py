"""Vectors by torch: on a GPU, and on a CPU for a model that OpenVINO cannot take.

Pooling, prompts and normalisation are those of the model's own modules. Weights
are held in bfloat16 or float16, whichever the device computes in, else in
float32. While the device works on a batch, the next one is padded and sent, and the
vectors of the one before are fetched: nothing that is done for a batch waits for the
device until its vectors are wanted.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from aitp_tasks import config
from aitp_tasks.encoder.attention import masks_as_they_are
from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.errors import TransientError
from aitp_tasks.machine import models, processors

log = logging.getLogger(__name__)

_BATCH_TOKENS = {"cuda": 131_072, "cpu": 2048}
#: Batches that a window holds at least: as many as there are classes of length that pad by 5%.
_WINDOW_BATCHES = {"cuda": 32, "cpu": 0}
#: Batches on the device at a time: one that runs, one that waits.
_DEPTH = 2


@dataclass(frozen=True)
class _Started:
    """A batch that was given to the device.

    Attributes:
        batch: the batch.
        vectors: float32 (n, d) in the host's memory, whole once ``copied`` has happened.
        copied: None where the host has computed them itself.
    """

    batch: Batch
    vectors: torch.Tensor
    copied: torch.cuda.Event | None

    def answer(self) -> Answer:
        """The vectors, waited for."""
        if self.copied is not None:
            self.copied.synchronize()
        return Answer(self.batch, self.vectors.numpy())


class TorchBackend:
    """A model on one device."""

    def __init__(self, settings: config.Encoder, facts: Facts, device: str) -> None:
        self._device = device
        self._dtype = _precision(device)
        self._model = load(settings, device).to(self._dtype)
        self._facts = facts
        self.dimension = facts.dimension
        self.batch_tokens = settings.batch_tokens or _BATCH_TOKENS[device]
        self.window_tokens = _WINDOW_BATCHES[device] * self.batch_tokens
        self.name = f"{device}-torch-{str(self._dtype).removeprefix('torch.')}"

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        """Answers in the order of the batches."""
        under_way: deque[_Started] = deque()
        for batch in batches:
            under_way.extend(self._start(batch))
            while len(under_way) >= _DEPTH:
                yield under_way.popleft().answer()
        while under_way:
            yield under_way.popleft().answer()

    def memory_mb(self) -> float:
        """Largest memory that tensors took on the GPU."""
        return torch.cuda.max_memory_allocated() / 1e6 if self._device == "cuda" else 0.0

    def _start(self, batch: Batch) -> list[_Started]:
        """Start a batch; in halves, and smaller from now on, when the device has no room for it."""
        if batch.padded_tokens > self.batch_tokens and len(batch.sequences) > 1:
            return [started for half in batch.halves() for started in self._start(half)]
        try:
            return [_Started(batch, *_fetched(self._forward(batch)))]
        except torch.OutOfMemoryError as error:
            if len(batch.sequences) == 1:
                raise TransientError(
                    f"one text of {batch.padded_tokens} tokens does not fit on the device: "
                    "lower encoder.max_tokens, or free the device"
                ) from error
            self.batch_tokens = batch.padded_tokens // 2
            log.warning("device out of memory: batch_tokens=%d from now on", self.batch_tokens)
            torch.cuda.empty_cache()
        return [started for half in batch.halves() for started in self._start(half)]

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Vectors (n, d) on the device, which may still be computing them."""
        ids, mask = batch.padded(self._facts.pad)
        features = {"input_ids": self._sent(ids), "attention_mask": self._sent(mask)}
        with torch.inference_mode(), masks_as_they_are():
            return _sentences(self._model, features, self._facts.prompt_tokens, even=batch.even)

    def _sent(self, array: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def load(settings: config.Encoder, device: str) -> SentenceTransformer:
    """Load a model in the sentence-transformers layout.

    Raises:
        InputError: it cannot be loaded.
        TransientError: the hub does not answer.
    """
    place = models.local(settings)
    with models.loading(settings, "encoder"):
        return SentenceTransformer(
            place,
            revision=settings.revision,
            device=device,
            trust_remote_code=False,
            local_files_only=place.startswith("/"),
        ).eval()


def vectors(model: SentenceTransformer, texts: Sequence[str]) -> NDArray[np.float32]:
    """The model's own float32 vectors, one text after another."""
    found: NDArray[np.float32] = model.encode(list(texts), batch_size=1, show_progress_bar=False)
    return found


def trace(model: SentenceTransformer, facts: Facts) -> Any:
    """The whole model as OpenVINO's graph: token ids and attention mask in, sentence vectors out."""
    import openvino

    example = torch.ones((2, 16), dtype=torch.int64)
    return openvino.convert_model(
        _Sentences(model, facts.prompt_tokens),
        example_input={"input_ids": example, "attention_mask": example},
    )


class _Sentences(torch.nn.Module):  # type: ignore[misc]
    """A sentence-transformers model as one module with named tensor arguments."""

    def __init__(self, model: SentenceTransformer, prompt_tokens: int) -> None:
        super().__init__()
        self.model = model
        self._prompt_tokens = prompt_tokens

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        return _sentences(self.model, features, self._prompt_tokens)


def _sentences(
    model: SentenceTransformer, features: dict[str, Any], prompt_tokens: int, even: bool = False
) -> torch.Tensor:
    """Vectors (n, d); ``even`` says that nothing is padded, so that attention needs no mask."""
    if prompt_tokens:
        features["prompt_length"] = prompt_tokens
    transformer, *others = model
    # Pooling has the mask in any case: it is the transformer alone that is faster without.
    features = transformer(features, attention_mask=None) if even else transformer(features)
    for module in others:
        features = module(features)
    found: torch.Tensor = features["sentence_embedding"]
    return found


def _fetched(found: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Vectors float32 (n, d) in the host's memory, and when they are there.

    The copy is ordered before the device's next batch: to fetch one is not to wait for the next.
    """
    exact = found.float()
    if not exact.is_cuda:
        return exact, None
    host = torch.empty(exact.shape, dtype=torch.float32, pin_memory=True)
    host.copy_(exact, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return host, copied


def _precision(device: str) -> torch.dtype:
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if processors.compute_bfloat16() else torch.float32
