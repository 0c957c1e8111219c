r"""What a model meant by the backslashes of a JSON string, most of all by LaTeX's.

A model that writes LaTeX into JSON forgets to double backslashes: ``\frac`` is
then a form feed and "rac", ``\nu`` a line break and "u", and ``\alpha`` no JSON.
What JSON has no escape for is text. What it has one for is what JSON says, unless
the opposite is proved:

- a form feed or a backspace before letters is in no text;
- within mathematics (``regions``) no control character stands before letters, but
  line breaks and the tabs behind them in a display;
- outside of it, a command whose rest is a word in no language, where a blank stands
  before it or nothing at all, and a relation between two operands (``p \neq 1``);
- where a backslash elsewhere in the string is not doubled, such a command anywhere, and
  a doubtful one (``\nu``, ``\top``) behind a blank, a bracket or another command;
- paths and regular expressions (``literals``).

Nothing is proved in code, or where the response doubles the backslash of a command:
there an eaten command within mathematics is refused. So is ``\x27``, which JSON does
not have: it may be a quotation mark or those four characters.
"""

import re
from functools import cached_property

from aitp_tasks.generation.responses import literals
from aitp_tasks.generation.responses.errors import UnreadableError, excerpt
from aitp_tasks.generation.responses.regions import Region, Regions

#: Names of the repairs.
LATEX, ESCAPE, CONTROL = "latex", "escape", "control character"

_WORDS = re.compile(r"[A-Za-z]+")
#: Commands whose rest is a word in no language, nor a column of a table.
_CERTAIN = frozenset(
    _WORDS.findall("""
    nabla newcommand node noindent nolinebreak nopagebreak nonumber normalsize
    raggedleft raggedright rangle rceil renewcommand rfloor rho rightarrow rightharpoonup rightleftharpoons
    rtimes rVert rvert
    text textbf textcolor textdegree textit textrm textsc textsf textsubscript textsuperscript texttt textup
    therefore theta thickapprox thicksim times triangle triangleleft triangleq triangleright
    twoheadrightarrow
    """)
)
_RELATIONS = frozenset(
    _WORDS.findall("""
    ncong ne neq ngeq ngtr ni nleq nless nmid not notin nparallel nprec nsim nsubseteq nsucc nsupseteq to
    """)
)
#: The rest is a variable's name.
_AMBIGUOUS = frozenset({"nu", "ne", "ni"})
_KNOWN = (
    _CERTAIN
    | _RELATIONS
    | set(_WORDS.findall("natural nearrow neg newline nexists nu nwarrow tan tanh tau tilde tfrac top"))
)

_TOKEN = re.compile(
    r'(?P<pairs>(?:\\\\)++)|(?P<code>\\u[0-9a-fA-F]{4})|\\(?P<word>[A-Za-z]++)|\\.|\\|["\x00-\x1f]', re.DOTALL
)
#: An escape of other languages; JSON has none of the kind.
_HEXADECIMAL = re.compile(r"\\x[0-9A-Fa-f]{2}")
#: Whoever doubles the backslash of one command doubles it of all; whoever does not, of none.
_DOUBLED = re.compile(r"(?<!\\)\\\\[A-Za-z]{2}")
_SINGLE = re.compile(r"(?<!\\)\\(?:[ac-egh-mo-qsv-zA-Z][A-Za-z]|[()\[\]{}]|[bf][A-Za-z])")
#: What proves it in a string, whatever the others do.
_UNDOUBLED = re.compile(r"(?<!\\)\\(?:[ac-egh-mo-qsv-zA-Z][A-Za-z]|[()\[\]])")
_EXPRESSION = re.compile(r"(?<!\\)\\[dswDSW](?![a-z])")
_ROW_HEIGHT = re.compile(r"\[-?\d[\d.]*+ ?(?:pt|em|ex|mm|cm|in)\]")
_BREAK = re.compile(r"(?<!\\)(?:\\\\)++(?![A-Za-z\\])|(?<!\\)\\n(?![a-z])|\n")
_LINE_START = re.compile(r"[ \t]*+(?:\\(n[A-Za-z]*+)|\n)")
_LINE_END = re.compile(r"(?:\\n|\n)[ \t]*+\Z")
_AT_LINE_START = re.compile(r"(?:(?<!\\)(?:\\\\)*+\\n|\n)(?:\s|\\t)*+\Z")
_PRICE = re.compile(r"\d[\d.,]*+\\[nrt]")
_RELATION_SIGN = re.compile(r"[=<>&]|\\(?:leq?|geq?|approx|equiv|sim|propto)(?![A-Za-z])")
_COMMAND_BEHIND = re.compile(r"\\(?![bfnrt])[A-Za-z]++\Z")
_NEGATED_AHEAD = re.compile(r"\s*[=<>\\]")
_OPERAND_BEHIND = re.compile(r"(?:\A|[\s($])[A-Za-z0-9)}\]']{1,3} \Z")
_OPERAND_AHEAD = re.compile(r" [A-Za-z0-9(\\-]{1,3}(?![A-Za-z])")
_MID_LINE = tuple(" ([{=+-*/^_|,")
_ELISION_BEHIND = re.compile(
    r"(?<![^\W\d_])(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quelqu|aujourd|(?:d|n|s)?[ae]ll|un)\Z", re.IGNORECASE
)
_CONTRACTION_AHEAD = re.compile(r"(?:s|t|re|ve|ll|d|m)(?![^\W_])", re.IGNORECASE)
#: Characters that a look around goes at most.
_NEAR = 80
#: Characters of an environment at most.
_LONGEST_ROWS = 1000
#: A string with more words or escapes that may be either is no text.
_MOST_DOUBTFUL = 2000


def doubles(text: str) -> bool:
    """Whether a response escapes the backslash of a command as JSON wants it, and none of a share."""
    return any(not literals.is_share(text, match.start()) for match in _DOUBLED.finditer(text))


def repair(raw: str, doubled: bool) -> tuple[str, list[str]]:
    """The content of a JSON string as its writer meant it.

    Args:
        raw: what stands between the delimiters, escapes and all.
        doubled: whether the response doubles backslashes elsewhere (``doubles``).

    Returns:
        Content of a well-formed JSON string, and the names of the repairs made.

    Raises:
        UnreadableError: an escape has two readings.
    """
    content = _Content(raw, doubled)
    return _TOKEN.sub(content.replace, raw), list(content.repairs)


class _Content:
    """One string's content, while its escapes are replaced from left to right."""

    def __init__(self, raw: str, doubled: bool) -> None:
        self._doubled = doubled and bool(_DOUBLED.search(raw) or not _UNDOUBLED.search(raw))
        self._writes_single = not self._doubled and bool(_SINGLE.search(raw))
        self._has_expression = not self._doubled and bool(_EXPRESSION.search(raw))
        self._doubtful = 0
        self._of_paths = frozenset() if self._doubled else literals.of_paths(raw)
        self._raw = raw
        self.repairs: dict[str, None] = {}

    def replace(self, match: re.Match[str]) -> str:
        token = match[0]
        if token == '"':
            return '\\"'
        if token < " ":
            self.repairs[CONTROL] = None
            return f"\\u{ord(token):04x}"
        if match.start() in self._of_paths:
            self.repairs[ESCAPE] = None
            return token.replace("\\", "\\\\")
        if match["pairs"]:
            return self._pairs(match)
        if match["code"]:
            return token
        if match["word"]:
            return self._word(match)
        if token == "\\'" and self._is_apostrophe(match):
            self.repairs[ESCAPE] = None
            return "'"
        return token if token in ('\\"', "\\/") else self._literal(token, ESCAPE)

    def _literal(self, token: str, repair: str) -> str:
        self.repairs[repair] = None
        rest = token[1:]
        return "\\\\" + (f"\\u{ord(rest):04x}" if rest and rest < " " else rest)

    def _word(self, match: re.Match[str]) -> str:
        word = match["word"]
        if word[0] == "x" and _HEXADECIMAL.match(self._raw, match.start()):
            raise UnreadableError(f"{excerpt(self._raw, match.start())} may be a character or text")
        if word[0] not in "bfnrt":
            return self._literal(match[0], ESCAPE)
        self._doubtful += self._has_expression or word in _KNOWN
        if self._doubtful > _MOST_DOUBTFUL:
            raise UnreadableError(f"more than {_MOST_DOUBTFUL} escapes that may be text")
        if self._is_latex(word, match.start(), match.end()):
            return self._literal(match[0], LATEX)
        return self._literal(match[0], ESCAPE) if self._is_of_expression(word, match.start()) else match[0]

    def _is_of_expression(self, word: str, start: int) -> bool:
        if not self._has_expression or word[0] == "f":
            return False
        return word[0] == "b" or literals.is_of_expression(self._raw, start)

    def _pairs(self, match: re.Match[str]) -> str:
        """Two backslashes stand for one, but where those of commands are not doubled they end a row."""
        ahead = self._raw[match.end() : match.end() + 2]
        if match[0] != "\\\\" or ahead.isalpha() or not self._ends_row(match):
            return match[0]
        self.repairs[LATEX] = None
        return match[0] * 2

    def _ends_row(self, match: re.Match[str]) -> bool:
        behind = self._raw[max(match.start() - _LONGEST_ROWS, 0) : match.start()]
        if not self._writes_single or behind.rfind("\\begin{") > behind.rfind("\\end{"):
            return self._writes_single
        if self._raw.startswith(tuple("()]${}"), match.end()):
            return False
        region = self._regions.at(match.start())
        is_mathematics = region is not None and region.kind != "code"
        return is_mathematics or bool(_ROW_HEIGHT.match(self._raw, match.end()))

    def _is_apostrophe(self, match: re.Match[str]) -> bool:
        r"""``don\'t``, ``l\'eau``; but ``caf\'e`` is an accent."""
        behind = self._raw[max(0, match.start() - 8) : match.start()]
        ahead = _CONTRACTION_AHEAD.match(self._raw, match.end())
        return bool(behind[-1:].isalpha() and (ahead or _ELISION_BEHIND.search(behind)))

    @cached_property
    def _regions(self) -> Regions:
        return Regions(self._raw)

    def _is_latex(self, word: str, start: int, end: int) -> bool:
        region = self._regions.at(start)
        is_code, rest = region is not None and region.kind == "code", word[1:]
        if is_code or (not rest and not (region and word != "n" and self._raw.startswith("{", end))):
            return False
        if word[0] in "bf":
            return region is not None or not (self._doubled or (word[0] == "b" and self._has_expression))
        if region is None:
            return not self._doubled and self._is_latex_in_text(word, start, end)
        meant = self._is_latex_in_mathematics(word, start, end, region)
        if meant and self._doubled:
            raise UnreadableError(
                f"backslashes are doubled, but not in {excerpt(self._raw, start)}: a command or a line break"
            )
        return meant

    def _is_latex_in_mathematics(self, word: str, start: int, end: int, region: Region) -> bool:
        """Whether a control character before letters is none: all but breaks and tabs that begin a line."""
        if word[0] == "r":
            return True
        is_known = word in _KNOWN or self._raw.startswith("{", end)
        if not is_known and _PRICE.match(self._raw, region.start):
            return False
        if word[0] == "t":
            before = self._raw[max(region.start, start - _NEAR) : start]
            return is_known or region.kind == "inline" or not _AT_LINE_START.search(before)
        if len(word) == 2 and word not in _AMBIGUOUS:
            return False
        if region.kind == "inline" or (is_known and word not in _AMBIGUOUS):
            return True
        return self._is_displayed(self._line_before(start, region), start, end, region)

    def _is_displayed(self, line: str, start: int, end: int, region: Region) -> bool:
        r"""Whether ``\nu``, ``\ne`` or ``\ni`` in a display is LaTeX, or a line break and a variable."""
        if not line and start > region.start:
            # A line break before it: a formula has no empty lines.
            return self._raw.endswith("\\n", 0, start)
        if not line:
            # What opens with a line break closes with one.
            return not _LINE_END.search(self._raw, region.start, region.end)
        if line[-1] in " ([{^_|&/" or _COMMAND_BEHIND.search(line) or not self._is_on_lines(region):
            return True
        rest = _BREAK.split(self._raw[end : min(region.end, end + _NEAR)], maxsplit=1)[0]
        return not (_RELATION_SIGN.search(line) and _RELATION_SIGN.search(rest))

    def _is_on_lines(self, region: Region) -> bool:
        """Whether a formula opens with a line break, one that is no command."""
        match = _LINE_START.match(self._raw, region.start)
        return match is not None and match[1] not in _KNOWN - _AMBIGUOUS

    def _is_latex_in_text(self, word: str, start: int, end: int) -> bool:
        """Whether a word outside of mathematics is LaTeX, by what stands beside it or elsewhere.

        Nobody writes a space, an opening bracket or an operator before a line break, nor a break first.
        """
        if word not in _KNOWN:
            return False
        line = self._line_before(start, None)
        is_beside = line[-1:] in _MID_LINE or bool(_COMMAND_BEHIND.search(line))
        if word == "text" and not self._raw.startswith("{", end):
            return False
        if word in _CERTAIN:
            is_behind_blank = bool(line.strip()) and line[-1] == " " and word[0] != "n"
            return start == 0 or self._writes_single or is_behind_blank
        if word in _RELATIONS and _OPERAND_BEHIND.search(line) and _OPERAND_AHEAD.match(self._raw, end):
            return True
        if word == "not" and not _NEGATED_AHEAD.match(self._raw, end):
            return False
        return self._writes_single and is_beside

    def _line_before(self, start: int, region: Region | None) -> str:
        first = max(start - _NEAR, region.start if region else 0)
        return _BREAK.split(self._raw[first:start])[-1]
