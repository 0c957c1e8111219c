"""Texts to token sequences, for every backend alike.

Only as much of a text is tokenised as the encoder can take: a prefix is tried
first, and a longer one when its tokens were too few. The last tokens of a
prefix may be cut words, hence the margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from aitp_tasks import config
from aitp_tasks.config import LongTexts
from aitp_tasks.encoder.batches import Tokens
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.errors import InputError
from aitp_tasks.inputs.rows import Refusal

#: Characters of the first prefix, per token wanted; English has four or five.
_CHARACTERS_PER_TOKEN = 8
#: Tokens beyond the wanted ones that show that the wanted ones are whole.
_MARGIN = 16


@dataclass(frozen=True)
class Tokenised:
    """One text.

    Attributes:
        windows: token sequences with special tokens; one unless the text rule is windows.
        truncated: whether the text has more tokens than were kept.
    """

    windows: list[Tokens]
    truncated: bool


class Tokeniser:
    """Cuts texts into token sequences as the encoder and the text rule want them."""

    def __init__(self, tokenizer_json: str, facts: Facts, settings: config.Encoder) -> None:
        """Read the tokenizer.

        Raises:
            InputError: the limit leaves no room for a token.
        """
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._facts = facts
        self._windows = settings.max_windows if settings.long_texts is LongTexts.WINDOWS else 1
        self._prefix, self._suffix = self._special_tokens()
        limit = min(settings.max_tokens, facts.max_tokens or settings.max_tokens)
        self._room = limit - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise InputError(f"encoder.max_tokens={settings.max_tokens} leaves no room for text: raise it")
        self._wanted = self._room * self._windows
        self._tokenizer.enable_truncation(self._wanted + _MARGIN)

    def __call__(self, texts: Sequence[str]) -> list[Tokenised | Refusal]:
        """The token sequences of each text, or why it has none."""
        ids: list[list[int]] = [[] for _ in texts]
        size = max(_CHARACTERS_PER_TOKEN * self._wanted, 256)
        open_ = list(range(len(texts)))
        while open_:
            found = self._encode([texts[place][:size] for place in open_])
            for place, tokens in zip(open_, found, strict=True):
                ids[place] = tokens
            open_ = [
                place
                for place in open_
                if len(texts[place]) > size and len(ids[place]) < self._wanted + _MARGIN
            ]
            size *= 4
        return [self._cut(tokens) for tokens in ids]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._facts.lower_case:
            texts = [text.lower() for text in texts]
        texts = [self._facts.prompt + text for text in texts]
        return [
            encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def _cut(self, tokens: list[int]) -> Tokenised | Refusal:
        if not tokens:
            return Refusal("empty", "the tokenizer finds no token in the text")
        truncated = len(tokens) > self._wanted
        if truncated and self._windows > 1:
            return Refusal(
                "too_long",
                f"more than {self._wanted} tokens, which encoder.max_windows={self._windows} allows",
            )
        kept = tokens[: self._wanted]
        windows = [kept[start : start + self._room] for start in range(0, len(kept), self._room)]
        return Tokenised(
            [np.array([*self._prefix, *window, *self._suffix], dtype=np.int32) for window in windows],
            truncated,
        )

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """The tokens that the model's template puts before and after a text."""
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
        raise InputError("the encoder's tokenizer changes a text when it adds special tokens: use another")
