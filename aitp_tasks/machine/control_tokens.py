"""The tokens by which a model is steered, and how a text that holds them stays text."""

import re
from collections.abc import Iterable
from typing import Any

_MARK = re.compile(r"<\S+>|\[\S+\]")
_ZERO_WIDTH_SPACE = "\u200b"


def control_tokens(tokenizer: Any) -> list[str]:
    """The tokens of a transformers tokenizer that steer a conversation.

    Its special tokens, and added ones in brackets: some models do not flag their
    turn markers as special. Other added tokens (runs of spaces, say) are text.
    """
    marks = {token for token in tokenizer.get_added_vocab() if _MARK.fullmatch(token)}
    return sorted(marks.union(tokenizer.all_special_tokens))


def neutralise(text: str, special_tokens: Iterable[str]) -> str:
    """Make special tokens inside a text plain text.

    A zero-width space after the first character keeps the tokenizer from reading
    ``<|im_start|>`` in a document as the start of a turn; a reader sees no change.
    """
    tokens = sorted((token for token in special_tokens if len(token) > 1), key=len, reverse=True)
    if not tokens:
        return text
    pattern = re.compile("|".join(re.escape(token) for token in tokens))
    return pattern.sub(lambda match: match[0][0] + _ZERO_WIDTH_SPACE + match[0][1:], text)
