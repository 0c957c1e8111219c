"""The loss of a model on held-out texts: mean nats per token of each, over what is learnt of it.

Conversations become tokens by the very rules of training: the same template, the same
lengths, the loss on what the assistant says. Of a document each token counts but the
first, which nothing is known before. Each example is read alone, so that none is padded.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aitp_tasks.config import Finetune
from aitp_tasks.errors import TransientError
from aitp_tasks.machine.control_tokens import reading_marks_only
from aitp_tasks.records import conversations
from aitp_tasks.training import making
from aitp_tasks.training.examples import IGNORED, Example, ExampleMaker, LeftOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

#: Reasons why something held out cannot be evaluated, beside those of training.
NO_TOKEN = "no_token_to_predict"


@dataclass(frozen=True)
class Text:
    """One example: token ids and labels of each of its parts; one part, unless it was split."""

    id: str
    parts: tuple[tuple[list[int], list[int]], ...]

    @property
    def tokens(self) -> int:
        """How many of them the loss is taken over."""
        return sum(label != IGNORED for _, labels in self.parts for label in labels[1:])


@dataclass(frozen=True)
class Texts:
    """One held-out set, ready to be read by models; and why some of it is not."""

    texts: list[Text]
    left: Counter[str]


def of_conversations(rows: Iterable[Mapping[str, Any]], maker: ExampleMaker, settings: Finetune) -> Texts:
    """Conversations as training would take them.

    Args:
        rows: each with ``id``, ``messages`` and perhaps ``tools``, as ``records.conversations`` stores them.
        maker: of the training's examples.
        settings: of the training.
    """

    make = making.parts(settings, maker)

    def parts(row: Mapping[str, Any]) -> Sequence[Example | LeftOut]:
        return make(*conversations.read(row["messages"], row.get(conversations.TOOLS)))

    return _gathered(rows, parts)


def of_documents(
    rows: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> Texts:
    """Documents as plain texts: their first ``max_length`` tokens, special tokens in them read as text.

    Args:
        rows: each with ``id`` and ``text``.
        tokenizer: of the base model.
        max_length: in tokens.
    """
    reading = reading_marks_only(tokenizer, (), "")
    most = max_length * max(len(token) for token in tokenizer.get_vocab())

    def parts(row: Mapping[str, Any]) -> Sequence[Example | LeftOut]:
        tokens: list[int] = reading(row["text"][:most])["input_ids"][:max_length]
        return [Example(tokens, tokens)]

    return _gathered(rows, parts)


def _gathered(
    rows: Iterable[Mapping[str, Any]], parts: Callable[[Mapping[str, Any]], Sequence[Example | LeftOut]]
) -> Texts:
    texts: list[Text] = []
    left: Counter[str] = Counter()
    for row in rows:
        made = parts(row)
        examples = [part for part in made if isinstance(part, Example)]
        text = Text(row["id"], tuple((one.input_ids, one.labels) for one in examples))
        if text.tokens:
            texts.append(text)
        else:
            left[next((part.reason for part in made if isinstance(part, LeftOut)), NO_TOKEN)] += 1
    return Texts(texts, left)


def of_model(model: "PreTrainedModel", texts: Sequence[Text]) -> NDArray[np.float64]:
    """The mean loss of each text, in nats per token.

    Raises:
        TransientError: an example does not fit the device's memory.
    """
    import torch

    losses = np.empty(len(texts))
    model.eval()
    try:
        with torch.inference_mode():
            for place, text in enumerate(texts):
                losses[place] = sum(_sum(model, *part) for part in text.parts) / text.tokens
    except torch.OutOfMemoryError:
        longest = max(len(tokens) for text in texts for tokens, _ in text.parts)
        raise TransientError(
            f"out of device memory on an example of up to {longest} tokens: lower finetune.max_length"
        ) from None
    return losses


def _sum(model: "PreTrainedModel", tokens: list[int], labels: list[int]) -> float:
    import torch

    read = torch.tensor([tokens], device=model.device)
    wanted = torch.tensor(labels[1:], device=model.device)
    logits = model(input_ids=read, use_cache=False).logits[0, :-1]
    kept = wanted != IGNORED
    # Only what is learnt is made precise: a vocabulary is wide.
    each = torch.nn.functional.cross_entropy(logits[kept].float(), wanted[kept], reduction="none")
    return float(each.double().sum())
