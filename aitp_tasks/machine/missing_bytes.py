"""Bytes that a tokenizer of bytes passes over, because its vocabulary lacks them, as some control characters.

Of each token behind one, in the same word, such a tokenizer tells that it stands further left than it
does. So it is found out where tokens stand, by what they say.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

_SPACE = ord(" ")


def of(backend: Any) -> bytes:
    """The bytes that a fast tokenizer of bytes lacks; none of any other one.

    Args:
        backend: of the library tokenizers.
    """
    from tokenizers.decoders import ByteLevel
    from tokenizers.pre_tokenizers import ByteLevel as Bytes

    if not isinstance(backend.decoder, ByteLevel):
        return b""
    letters = _letters()
    assert set(letters) == set(Bytes.alphabet())
    return bytes(byte for byte, letter in enumerate(letters) if backend.token_to_id(letter) is None)


def holds(text: str, some: bytes) -> bool:
    """Whether a text has some of these bytes."""
    data = text.encode() if some else b""
    return len(data) != len(data.translate(None, some))


def spans(backend: Any, text: str, ids: Sequence[int], missing: bytes) -> list[tuple[int, int]] | None:
    """From which character to which each token stands, as the tokenizer tells it of other texts.

    Args:
        backend: whose normaliser, if it has one, leaves the text as it is.
        text: that was read.
        ids: of its first tokens.
        missing: see ``of``.

    Returns:
        None where the tokens do not say the text.
    """
    added = {id: token.content.encode() for id, token in backend.get_added_tokens_decoder().items()}
    byte_of = {letter: byte for byte, letter in enumerate(_letters())}
    characters = [place for place, character in enumerate(text) for _ in character.encode()]
    # Some tell it without the blanks at a token's ends.
    trims = backend.encode("x a", add_special_tokens=False).offsets[-1] == (2, 3)
    data, place = text.encode(), 0
    found = []
    for id in ids:
        said = added.get(id) or bytes(byte_of[letter] for letter in backend.id_to_token(id))
        places = []
        for byte in said:
            while place < len(data) and data[place] != byte and data[place] in missing:
                place += 1
            if place == len(data) or data[place] != byte:
                return None
            places.append(place)
            place += 1
        shown = [one for one in places if not trims or id in added or data[one] != _SPACE]
        end = characters[(shown or places)[-1]] + 1
        found.append((characters[shown[0]] if shown else end, end))
    return found


@cache
def _letters() -> list[str]:
    """The letter that each byte has in a vocabulary: its own where that is seen, the others behind them."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
