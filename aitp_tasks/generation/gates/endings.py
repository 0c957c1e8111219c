"""Whether an answer breaks off, although the engine said that it was finished."""

import re
from collections import Counter

from aitp_tasks.generation.gates.analysis import Text

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_CODE = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]*`", re.DOTALL)
_OPENED = re.compile(r"\\begin\{([^{}\n]{1,40})\}")
_CLOSED = re.compile(r"\\end\{([^{}\n]{1,40})\}")
_DISPLAY_OPENED = re.compile(r"^[ \t]*\\\[", re.MULTILINE)
#: No sentence ends like this; a letter's "Sincerely," and a line of code do.
_UNFINISHED = re.compile("[,、(\\[{“„«「『]$|[^\\W\\d_]-$")
_SENTENCE_END = re.compile("[^\\W\\d_]{3}[.!?][\"'”’)]* +(?=[^\\W\\d_])|。")
#: After a quotation, its author.
_ATTRIBUTION = re.compile(r"[-–—~] ?[A-Z][^,;:]*$")
_LIST_ITEM = re.compile(r"[-*•–+>|]|\d+[.):]|[^\W\d_][.)] ")
#: For its end to count, the last line must have so many words, and a last sentence without a full stop.
_LINE_WORDS, _SENTENCE_WORDS = 5, 2


def breaks_off(text: Text) -> bool:
    """Whether a text ends inside a code block, a LaTeX environment or a sentence."""
    if len(_FENCE.findall(text.raw)) % 2:
        return True
    prose = _CODE.sub("`", text.raw)
    if Counter(_OPENED.findall(prose)) - Counter(_CLOSED.findall(prose)) or prose.count("$$") % 2:
        return True
    if len(_DISPLAY_OPENED.findall(prose)) > prose.count("\\]"):
        return True
    return _ends_in_sentence(Text(prose.rstrip().rpartition("\n")[2]), text)


def _ends_in_sentence(line: Text, text: Text) -> bool:
    """Whether the last line of a text ends in the middle of a sentence."""
    if line.length < _LINE_WORDS:
        return False
    if _UNFINISHED.search(line.flat):
        return True
    if not line.flat[-1].isalpha():
        return False
    language = text.language
    if language is not None and line.written_words[-1] in language.dangling:
        return True
    return not _LIST_ITEM.match(line.flat) and _lacks_end(line.flat)


def _lacks_end(line: str) -> bool:
    """Whether the last sentence of a line has no end mark, though those before it have.

    A line of one sentence without a full stop is no sign: titles and short answers have none.
    """
    *whole, last = _sentences(line)
    if not whole or "#" in last or _ATTRIBUTION.search(last):
        return False
    return Text(last).length >= _SENTENCE_WORDS


def _sentences(line: str) -> list[str]:
    """The sentences of a line; where a small letter follows, a full stop ended an abbreviation."""
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(line) if not line[end.end()].islower())]
    return [line[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
