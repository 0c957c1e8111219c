"""Words of any script: their normal form, where they begin and end, and how many they are.

A word is a run of letters and digits; in scripts without spaces it is a single
character (Chinese, Japanese), or a letter with its marks (Thai, Lao, Khmer,
Burmese). There is no dictionary: in these scripts words are pieces of words.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

_HAN_KANA = (
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
#: Combining marks belong to the letter before them; to Python they are no word characters.
_MARKS = "".join(chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] == "M")
_WORD = re.compile(
    rf"[{_HAN_KANA}]|[{_SOUTH_EAST_ASIAN}][{_MARKS}]*|[^\W_{_HAN_KANA}{_SOUTH_EAST_ASIAN}](?:[^\W_{_HAN_KANA}{_SOUTH_EAST_ASIAN}]|[{_MARKS}])*+"
)
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
_HAN_KANA_CHARACTER = re.compile(f"[{_HAN_KANA}]")
_SOUTH_EAST_ASIAN_LETTER = re.compile(f"[{_SOUTH_EAST_ASIAN}]")
_UNSPACED_LETTER = re.compile(f"[{_HAN_KANA}{_SOUTH_EAST_ASIAN}]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
#: More marks on one letter than any script has; putting them in order takes quadratic time (UAX 15, D4).
_MARK_RUN = re.compile(rf"([{_MARKS}]{{30}})[{_MARKS}]+")
#: Letters that make a word of average length.
_HANGUL_PER_WORD, _HAN_KANA_PER_WORD, _SOUTH_EAST_ASIAN_PER_WORD = 2, 2, 3


def normal(text: str) -> str:
    """Compatibility forms composed (NFKC): full-width marks are ASCII; case is kept."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _MARK_RUN.sub(r"\1", text))


def split(text: str) -> list[str]:
    """The words of a text in normal form."""
    return _ASCII_WORD.findall(text) if text.isascii() else _WORD.findall(text)


def count(words: Sequence[str]) -> int:
    """How many words a reader would count, estimated in scripts without spaces."""
    if "".join(words).isascii():
        return len(words)
    han_kana = south_east_asian = spaced = 0
    for word in words:
        if _HAN_KANA_CHARACTER.match(word):
            han_kana += 1
        elif _SOUTH_EAST_ASIAN_LETTER.match(word):
            south_east_asian += 1
        else:
            spaced += math.ceil(len(word) / _HANGUL_PER_WORD) if _HANGUL.match(word) else 1
    return (
        spaced
        + math.ceil(han_kana / _HAN_KANA_PER_WORD)
        + math.ceil(south_east_asian / _SOUTH_EAST_ASIAN_PER_WORD)
    )


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script without spaces."""
    return bool(_UNSPACED_LETTER.match(word))


def mostly_unspaced(words: Sequence[str]) -> bool:
    """Whether most words are of scripts without spaces."""
    return not "".join(words).isascii() and 2 * sum(map(is_unspaced, words)) > len(words)


def stem(word: str) -> str:
    """A word's beginning, which its inflections mostly share: five letters, or two Korean syllables."""
    return word[:2] if _HANGUL.match(word) else word[:5]


def runs(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    """All runs of so many words."""
    return zip(*(words[first:] for first in range(length)), strict=False)
