"""What of a text can be seen: a text of which nothing can is as good as none."""

import unicodedata

#: Format characters that are printed all the same: signs that go with Arabic, Syriac and Kaithi numbers.
_PRINTED = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
#: Of other categories: the joiner, Hangul fillers, blank Braille, variation selectors.
_INVISIBLE = {0x34F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def is_blank(text: str) -> bool:
    """Whether a text is nothing but white space and characters without width, such as U+200B."""
    if "!" <= text[:1] <= "~":
        # Nearly every text ends here.
        return False
    return not text.strip() or all(character.isspace() or _is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    code = ord(character)
    return code in _INVISIBLE or (unicodedata.category(character) == "Cf" and code not in _PRINTED)
