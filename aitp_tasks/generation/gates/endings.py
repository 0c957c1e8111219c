"""Whether an answer breaks off, although the engine said that it was finished."""

import re
from collections import Counter

from aitp_tasks.generation.gates.analysis import Text

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_CODE = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]*`", re.DOTALL)
#: An environment that is opened, not named in a sentence: it begins a line, or rows or columns follow.
_OPENED = re.compile(
    r"(?:^[ \t$]*\\begin\{([^{}\n]{1,40})\}|\\begin\{([^{}\n]{1,40})\}(?=[^\n]{0,200}(?:&|\\\\)))",
    re.MULTILINE,
)
_CLOSED = re.compile(r"\\end\{([^{}\n]{1,40})\}")
_DISPLAY_OPENED = re.compile(
    r"(?<!\\)\\\[(?!\d+(?:\.\d+)?(?:pt|em|ex|mm|cm)\])(?=[^\n]{0,200}(?:\\[a-z]|[=^_]))"
)
_FORMULA = re.compile(r"\\\$|\$\$[^$]*\$\$|\$(?![\d\s])[^$\n]*\$")
#: Mathematics after a dollar sign; money and shell variables have none of these.
_MATHEMATICS_OPENED = re.compile(r"\$(?=[^$\n]*(?:\\[A-Za-z]|\^|_\{))[^$\n]*\Z")
#: No sentence ends like this; a letter's "Sincerely," and a line of code do.
_UNFINISHED = re.compile("(?<![:;=8-])\\($|[,、\\[{„「『]$|\\s[“«]$|[^\\W\\d_]-$")
#: An interval may have its brackets turned either way: ]0, 1[.
_INTERVAL = re.compile(r"[\[\](][^\[\]()]{1,60}[,;][^\[\]()]{1,60}[\[\])]")
#: A bracket or quotation mark that nothing closes, and what it opens; a smiley's is none.
_LEFT_OPEN = re.compile(
    '(?<![:;=8-])[(\\[{][^()\\[\\]{}]*$|„[^„“”"]*$|(?<!\\S)[«“][^«»“”]*$|「[^「」]*$|『[^『』]*$'
)
_END_MARK = re.compile("[.!?…。！？:;]['\"”’“»)]*$")
#: What needs no full stop: an address, a formula, a reaction.
_NO_SENTENCE = re.compile(r"https?://|www\.|\S@\S+\.|[=→⇒≈⇌↔⟶∈≤≥∞√∑∫←<>]|[₀-₉⁰-⁹]")
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
    opened = Counter("".join(names) for names in _OPENED.findall(prose))
    if opened - Counter(_CLOSED.findall(prose)) or prose.count("$$") % 2:
        return True
    if len(_DISPLAY_OPENED.findall(prose)) > prose.count("\\]"):
        return True
    if _MATHEMATICS_OPENED.search(_FORMULA.sub("", prose).rstrip().rpartition("\n")[2]):
        return True
    last_line = prose.rstrip().rpartition("\n")[2]
    return _ends_in_sentence(Text(_INTERVAL.sub("()", last_line)), text)


def _ends_in_sentence(line: Text, text: Text) -> bool:
    """Whether the last line of a text ends in the middle of a sentence."""
    if _leaves_open(line.flat):
        return True
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


def _leaves_open(line: str) -> bool:
    """Whether a line without an end mark ends inside brackets or quotation marks."""
    if _END_MARK.search(line):
        return False
    opened = _LEFT_OPEN.search(line)
    return opened is not None and bool(Text(opened[0]).words)


def _lacks_end(line: str) -> bool:
    """Whether the last sentence of a line has no end mark, though those before it have.

    A line of one sentence without a full stop is no sign: titles and short answers have none.
    """
    *whole, last = _sentences(line)
    if not whole or "#" in last or _ATTRIBUTION.search(last) or _NO_SENTENCE.search(last):
        return False
    return Text(last).length >= _SENTENCE_WORDS


def _sentences(line: str) -> list[str]:
    """The sentences of a line; where a small letter follows, a full stop ended an abbreviation."""
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(line) if not line[end.end()].islower())]
    return [line[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
