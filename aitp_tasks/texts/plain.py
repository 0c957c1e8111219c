"""The words of a text as they are compared with those of another, whatever it was typed with.

Compatibility forms are composed (NFKC), case is folded, punctuation and characters without
width are left out, and a number is one word with or without marks between its thousands.
HTML's entities and accents stay what they are.
"""

import re

from aitp_tasks.texts import words

#: Soft hyphen, and what has no width: it may stand within a word that looks whole.
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
#: 1,000 and 1.000, 1'000 and 1 000; the same mark between all groups of three.
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}([,.'’ ])\d{3}(?:\1\d{3})*(?!\d)")
_NO_DIGITS = re.compile(r"\D+")


def split(text: str) -> list[str]:
    """The words of any text in order; of scripts without spaces, single characters or letters."""
    if not text.isascii():
        # Again, because a case folded may be decomposed.
        text = words.normal(words.normal(text.translate(_INVISIBLE)).casefold())
    else:
        text = text.lower()
    return words.split(_THOUSANDS.sub(_joined, text))


def _joined(number: re.Match[str]) -> str:
    return _NO_DIGITS.sub("", number[0])
