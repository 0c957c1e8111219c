"""How likely a causal language model finds what follows on a prompt: log-probabilities of tokens, in nats.

Texts are read in batches of like lengths, padded at their ends, where nothing that comes
before looks; so a text is read in a batch as it is alone, up to rounding.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aitp_tasks.errors import TransientError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens of a batch, its padding among them; one longer text is a batch by itself.
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Continuation:
    """Token ids of a prompt, at least one, and of what follows on it, which may be none."""

    prompt: Sequence[int]
    tokens: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens)


def of_model(model: "PreTrainedModel", texts: Sequence[Continuation]) -> list[list[float]]:
    """The log-probability of each token that follows on a prompt, text by text.

    Raises:
        TransientError: a batch does not fit the device's memory.
    """
    import torch

    found: list[list[float]] = [[] for _ in texts]
    model.eval()
    try:
        with torch.inference_mode():
            for batch in _batches(texts):
                read = _read(model, [texts[place] for place in batch])
                for place, each in zip(batch, read, strict=True):
                    found[place] = each
    except torch.OutOfMemoryError:
        raise TransientError(
            f"out of device memory on {_BATCH_TOKENS} tokens at once, or on one text of "
            f"{max(map(len, texts))}: free the device, or take one with more memory"
        ) from None
    return found


def mean(values: Sequence[float]) -> float | None:
    """The mean of log-probabilities; None of no tokens, and where it is no finite number."""
    if not values:
        return None
    # Exact sums: whatever the order of their terms.
    found = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
    return found if math.isfinite(found) else None


def likeliest(means: Sequence[float | None]) -> int | None:
    """Place of the highest mean, the first of equal ones; what has none comes last. None of no means."""
    return max(range(len(means)), key=lambda place: _height(means[place]), default=None)


def _height(value: float | None) -> float:
    return -math.inf if value is None else value


def _batches(texts: Sequence[Continuation]) -> Iterator[list[int]]:
    """Places of the texts that are read together, the longest first."""
    batch: list[int] = []
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
        # The first is the longest of a batch.
        if batch and (len(batch) + 1) * len(texts[batch[0]]) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _read(model: "PreTrainedModel", texts: Sequence[Continuation]) -> list[list[float]]:
    import torch

    longest = max(map(len, texts))
    rows = [[*text.prompt, *text.tokens] for text in texts]
    # Any token serves as padding: none before it sees it.
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [_of_row(logits[place], ids[place], text) for place, text in enumerate(texts)]


def _of_row(logits: Any, ids: Any, text: Continuation) -> list[float]:
    import torch

    start, end = len(text.prompt), len(text)
    # Only what is asked for is made precise: a vocabulary is wide.
    each = torch.nn.functional.cross_entropy(
        logits[start - 1 : end - 1].float(), ids[start:end], reduction="none"
    )
    found: list[float] = (-each.double()).tolist()
    return found
