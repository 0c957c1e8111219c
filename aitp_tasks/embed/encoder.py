"""The one door to the sentence encoder: texts in, float16 vectors out."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from aitp_tasks import config
from aitp_tasks.errors import InputError

log = logging.getLogger(__name__)

#: Characters a token may stand for before the tokenizer is spared the rest of a text.
_CHARACTERS_PER_TOKEN = 64


class Encoder:
    """A model in the sentence-transformers layout, on the best device of this process.

    Pooling, prompts and normalisation are the model's own. Runs under bfloat16
    autocast where the device computes in it, else in float32.
    """

    def __init__(self, settings: config.Encoder) -> None:
        """Load the model.

        Raises:
            InputError: it cannot be loaded.
        """
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model = SentenceTransformer(
                settings.model,
                revision=settings.revision,
                device=self._device,
                trust_remote_code=False,
                local_files_only=settings.folder is not None,
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"encoder {settings.model} cannot be loaded: {' '.join(str(error).split())}"
            ) from error
        limit = self._model.max_seq_length or settings.max_tokens
        self._model.max_seq_length = self._max_tokens = min(int(limit), settings.max_tokens)
        self._batch = max(1, (settings.batch_tokens or 16384) // self._max_tokens)
        self._bfloat16 = _has_bfloat16(self._device)
        log.info(
            "encoder device=%s max_tokens=%d batch=%d bfloat16=%s",
            self._device,
            self._max_tokens,
            self._batch,
            self._bfloat16,
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """Vectors float16 (n, d) of n texts."""
        longest = self._max_tokens * _CHARACTERS_PER_TOKEN
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
            vectors = self._model.encode(
                [text[:longest] for text in texts],
                batch_size=self._batch,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        halves: NDArray[np.float16] = vectors.astype(np.float16)
        return halves

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)


def non_finite(vectors: NDArray[np.float16]) -> list[int]:
    """Positions of vectors with a component that is not a number, or infinite."""
    return [int(position) for position in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without these instructions bfloat16 on a CPU is slower than float32.
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()
