"""Texts as tokens: many in one call of the tokenizer, and little of a text that was read before.

What needs tokens is a generator: it asks for a text, gets its tokens, and may then
ask for another. ``together`` runs many of them side by side, so that the tokenizer
works on all cores, and what one prompt needs is still written down as one story.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from aitp_tasks.machine import missing_bytes

#: Of a text that begins like another one, so many common characters are read again.
_OVERLAP = 128
#: Where so many tokens in a row are the same, both readings go on alike.
_AGREEING = 4

Span = tuple[int, int]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Encoding:
    """A text's tokens.

    Attributes:
        ids: of the tokens.
        span: from which character to which a token stands, where that was asked for and is known.
    """

    ids: list[int]
    span: Callable[[int], Span] | None = None


class Asked(NamedTuple):
    """A text to be read; ``placed``: where each token stands is asked for too, which takes a fifth longer."""

    text: str
    placed: bool = True


#: Asks for texts, is sent their tokens, and returns what it makes of them.
Steps = Generator[Asked, Encoding, Made]
Encode = Callable[[Sequence[str], bool], Sequence[Encoding]]


def encoder(tokenizer: Any) -> Encode:
    """Reads many texts in one call, without tokens around them.

    Args:
        tokenizer: of transformers, as ``reading_marks_only`` gives it; only one with a
            fast backend reads on all cores.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda texts, _: [Encoding(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    # What transformers sets at each call of its own.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens

    missing = missing_bytes.of(backend)

    def encode(texts: Sequence[str], placed: bool) -> Sequence[Encoding]:
        if not placed:
            read = backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [Encoding(one.ids) for one in read]
        read = backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            Encoding(one.ids, None if missing_bytes.holds(text, missing) else one.token_to_chars)
            for text, one in zip(texts, read, strict=True)
        ]

    return encode


def together(encode: Encode, steps: Sequence[Steps[Made]]) -> list[Made | ValueError]:
    """What each makes of its tokens, or the ValueError that it ends with, in their order.

    The texts that are asked for at the same time are read in one call.
    """
    outcomes: list[Made | ValueError | None] = [None] * len(steps)
    sent: list[tuple[int, Encoding | None]] = [(place, None) for place in range(len(steps))]
    while sent:
        asked: dict[bool, dict[int, str]] = {False: {}, True: {}}
        for place, encoding in sent:
            try:
                # The first step is sent nothing.
                text, placed = steps[place].send(encoding)  # type: ignore[arg-type]
                asked[placed][place] = text
            except StopIteration as done:
                outcomes[place] = done.value
            except ValueError as error:
                outcomes[place] = error
        sent = []
        for placed, texts in asked.items():
            if texts:
                sent += zip(texts, encode(list(texts.values()), placed), strict=True)
    return outcomes  # type: ignore[return-value]  # no place is left


def read_again(before: str, encoding: Encoding, text: str) -> Steps[Encoding]:
    """The tokens of a text that begins like another one, of which the tokens are known.

    Only what follows the common beginning is read, and some of that before: where the
    tokens agree at the same characters, those before are taken over. Where they do not,
    or the tokenizer does not tell where tokens stand, all of the text is read.
    """
    common = _common(before, text)
    if common > _OVERLAP and encoding.span is not None:
        start, _ = encoding.span(first_from(encoding, common - _OVERLAP))
        tail = yield Asked(text[start:])
        meet = common - 3 * _OVERLAP // 4
        if tail.span is not None:
            left, right = first_from(encoding, meet), first_from(tail, meet - start)
            if _agree(encoding, left, tail, right, start):
                return _joined(encoding, left, tail, right, start)
    whole = yield Asked(text)
    return whole


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    lengths = range(min(len(one), len(other)))
    return bisect_left(lengths, True, key=lambda length: one[: length + 1] != other[: length + 1])


def first_from(encoding: Encoding, place: int) -> int:
    """The first token that begins at a character or behind it; the tokenizer has to tell where they stand."""
    assert encoding.span is not None
    span = encoding.span
    return bisect_left(range(len(encoding.ids)), place, key=lambda token: span(token)[0])


def _agree(encoding: Encoding, left: int, tail: Encoding, right: int, start: int) -> bool:
    """Whether the next tokens of a text and of its tail, which begins at ``start``, are the same there."""
    if encoding.ids[left : left + _AGREEING] != tail.ids[right : right + _AGREEING]:
        return False
    assert encoding.span is not None
    assert tail.span is not None
    for token in range(min(_AGREEING, len(encoding.ids) - left)):
        begin, end = tail.span(right + token)
        if encoding.span(left + token) != (begin + start, end + start):
            return False
    return True


def _joined(encoding: Encoding, left: int, tail: Encoding, right: int, start: int) -> Encoding:
    """The tokens of a text before ``left``, and those of its tail from ``right`` on."""

    def span(token: int) -> Span:
        assert encoding.span is not None
        assert tail.span is not None
        if token < left:
            return encoding.span(token)
        begin, end = tail.span(token - left + right)
        return begin + start, end + start

    return Encoding(encoding.ids[:left] + tail.ids[right:], span)
