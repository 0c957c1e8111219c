r"""What a model meant by the backslashes of a JSON string, most of all by LaTeX's.

A model that writes LaTeX into JSON forgets to double backslashes: ``\frac`` is
then a form feed and "rac", ``\nu`` a line break and "u", and ``\alpha`` no JSON.
``repair`` doubles such a backslash where LaTeX is what is meant:

- certain: a known command, whole, whose rest is no word (``\frac``, ``\times``);
- doubtful: the rest may be a word or a variable (``\nu``, ``\to``, ``\ne``): only
  in a formula, or beside other LaTeX, and never where a line may well begin;
- an escape that JSON does not have (``\alpha``, ``\(``, ``\%``) stays text, and a
  regular expression's ``\b`` beside ``\w`` or ``\d``.

Where it is not clear, the escape stays what JSON says it is; ``\x27``, which JSON does
not have, may be a quotation mark or those four characters, and is refused.
"""

import re
from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple

from aitp_tasks.generation.responses.errors import UnreadableError, excerpt

#: Names of the repairs.
LATEX, ESCAPE, CONTROL = "latex", "escape", "control character"

_WORDS = re.compile(r"[A-Za-z]+")
_CERTAIN = frozenset(
    _WORDS.findall("""
    backepsilon backprime backsim backsimeq backslash bar barwedge bcancel because begin beta beth
    between bf bfseries bibitem big bigcap bigcirc bigcup bigg biggl biggm biggr bigl bigm bigodot
    bigoplus bigotimes bigr bigskip bigsqcup bigstar bigtriangledown bigtriangleup biguplus bigvee
    bigwedge binom blacklozenge blacksquare blacktriangle bm bmod boldmath boldsymbol bot bottomrule
    bowtie boxed boxminus boxplus boxtimes bra brace brack braket breve buildrel bullet bumpeq
    fallingdotseq fbox flat footnote footnotesize forall frac frak frown
    nLeftarrow nLeftrightarrow nRightarrow nVDash nVdash nabla natural nearrow newcommand newline ngeq
    ngeqslant ngtr nleftarrow nleftrightarrow nleq nleqslant noindent nolimits nonumber notag notin nprec
    npreceq nrightarrow nsubseteq nsucc nsucceq nsupseteq ntriangleleft ntriangleright nvDash nvdash
    nwarrow
    rVert raisebox rangle rbrace rbrack rceil ref renewcommand rfloor rgroup rhd rho right rightarrow
    rightarrowtail rightharpoondown rightharpoonup rightleftarrows rightleftharpoons rightrightarrows
    rightsquigarrow risingdotseq rlap rm rmoustache rtimes rvert
    tanh tbinom textasciitilde textbackslash textdegree textstyle textwidth tfrac therefore theta
    thickapprox thicksim tilde times toprule triangle triangledown triangleleft trianglelefteq triangleq
    triangleright trianglerighteq twoheadrightarrow
    """)
)
#: Certain before a brace; "ext" and "ag" alone may be words of a table.
_BEFORE_BRACE = frozenset(
    _WORDS.findall("""
    root rule tag text textbf textcolor textit textmd textnormal textrm textsc textsf textsubscript
    textsuperscript texttt textup
    """)
)
_RELATIONS = frozenset({"ncong", "ne", "neq", "ni", "nless", "nmid", "not", "nparallel", "nsim"})
#: The rest is a variable's name.
_AMBIGUOUS = frozenset({"nu", "ne", "ni"})
_DOUBTFUL = _RELATIONS | {"neg", "nexists", "nu", "tan", "tau", "to", "top"}

_TOKEN = re.compile(
    r'(?P<pairs>(?:\\\\)++)|(?P<code>\\u[0-9a-fA-F]{4})|\\(?P<word>[A-Za-z]++)|\\.|\\|["\x00-\x1f]', re.DOTALL
)
_DRIVE_PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:(?:\\[\w.-]++)++(?!\\)")
_CLASS = re.compile(r"(?<!\\)\\[dswDSW](?![a-z])")
#: An escape of other languages; JSON has none of the kind.
_HEXADECIMAL = re.compile(r"\\x[0-9A-Fa-f]{2}")
_UNKNOWN_ESCAPE = re.compile(r"\\[^bfnrtu]")
#: Whoever escapes one command well escapes them all; whoever does not, none.
_DOUBLED = re.compile(r"(?<!\\)\\\\[A-Za-z]{2}")
_SINGLE = re.compile(
    r"(?<!\\)\\(?:[ac-egh-mo-qsv-zA-Z][A-Za-z]|[()\[\]{}]|frac\b|beta\b|theta\b|times\b|rho\b)"
)
_BREAK = re.compile(r"(?<!\\)(?:\\\\)++(?![A-Za-z\\])|(?<!\\)\\n(?![a-z])|\n")
_LINE_START = re.compile(r"[ \t]*+(?:\\(n[A-Za-z]*+)|\n)")
_LINE_END = re.compile(r"(?:\\n|\n)[ \t]*+\Z")
_RELATION_SIGN = re.compile(r"[=<>&]|\\(?:leq?|geq?|approx|equiv|sim|propto)(?![A-Za-z])")
_COMMAND_BEHIND = re.compile(r"\\(?![bfnrt])[A-Za-z]++\Z")
_COMMAND_AHEAD = re.compile(r" ?\\{1,2}(?![bfnrt])[A-Za-z]{2}|[_^{]")
_WORD_AHEAD = re.compile(r" ?[A-Za-z]{2}")
_NEGATED_AHEAD = re.compile(r"\s*[=<>\\]")
_OPERAND_BEHIND = re.compile(r"(?:\A|[\s($])[A-Za-z0-9)}\]']{1,3} \Z")
_OPERAND_AHEAD = re.compile(r" [A-Za-z0-9(\\-]{1,3}(?![A-Za-z])")
_ELISION_BEHIND = re.compile(
    r"(?<![^\W\d_])(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quelqu|aujourd|(?:d|n|s)?[ae]ll|un)\Z", re.IGNORECASE
)
_CONTRACTION_AHEAD = re.compile(r"(?:s|t|re|ve|ll|d|m)(?![^\W_])", re.IGNORECASE)
#: Characters that a look around goes at most.
_NEAR = 80
#: A string with more doubtful words is no text; what is behind them stays what JSON says it is.
_MOST_DOUBTFUL = 2000


def repair(raw: str) -> tuple[str, list[str]]:
    """The content of a JSON string as its writer meant it.

    Args:
        raw: what stands between the delimiters, escapes and all.

    Returns:
        Content of a well-formed JSON string, and the names of the repairs made.

    Raises:
        UnreadableError: an escape has two readings.
    """
    content = _Content(raw)
    return _TOKEN.sub(content.replace, raw), list(content.repairs)


class _Content:
    """One string's content, while its escapes are replaced from left to right."""

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self._environments = 0
        self._doubtful = 0
        self.repairs: dict[str, None] = {}

    def replace(self, match: re.Match[str]) -> str:
        token = match[0]
        if token == '"':
            return '\\"'
        if token < " ":
            self.repairs[CONTROL] = None
            return f"\\u{ord(token):04x}"
        if match["pairs"]:
            return self._pairs(match)
        if match["code"]:
            return token
        if self._in_path(match.start()):
            return self._literal(token, ESCAPE)
        if _HEXADECIMAL.match(self._raw, match.start()):
            raise UnreadableError(f"{excerpt(self._raw, match.start())} may be a character or text")
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
        if word[0] not in "bfnrt":
            self._environments -= word == "end" and self._environments > 0
            return self._literal(match[0], ESCAPE)
        if word[0] == "b" and self._is_expression:
            return self._literal(match[0], ESCAPE)
        if not self._is_latex(word, match.start(), match.end()):
            return match[0]
        self._environments += word == "begin"
        return self._literal(match[0], LATEX)

    def _pairs(self, match: re.Match[str]) -> str:
        """Two backslashes stand for one, but between ``\\begin`` and ``\\end`` not doubled they end a row."""
        ahead = self._raw[match.end() : match.end() + 4]
        if not self._environments:
            return match[0]
        if ahead.startswith("end{"):
            self._environments -= 1
        elif match[0] == "\\\\" and not ahead[:2].isalpha():
            self.repairs[LATEX] = None
            return "\\\\\\\\"
        return match[0]

    def _is_apostrophe(self, match: re.Match[str]) -> bool:
        r"""``don\'t``, ``l\'eau``; but ``caf\'e`` is an accent."""
        behind = self._raw[max(0, match.start() - 8) : match.start()]
        ahead = _CONTRACTION_AHEAD.match(self._raw, match.end())
        return bool(behind[-1:].isalpha() and (ahead or _ELISION_BEHIND.search(behind)))

    def _in_path(self, position: int) -> bool:
        number = bisect_right(self._paths, (position, len(self._raw))) - 1
        return number >= 0 and position < self._paths[number][1]

    @cached_property
    def _paths(self) -> list[tuple[int, int]]:
        r"""Where ``C:\Users\new`` stands: whose backslashes are not doubled in one place are not in any."""
        found = [match.span() for match in _DRIVE_PATH.finditer(self._raw)]
        return [(start, end) for start, end in found if _UNKNOWN_ESCAPE.search(self._raw, start, end)]

    def _is_latex(self, word: str, start: int, end: int) -> bool:
        if word in _CERTAIN:
            return True
        if word in _BEFORE_BRACE:
            return self._raw.startswith("{", end)
        self._doubtful += word in _DOUBTFUL
        if word not in _DOUBTFUL or self._doubtful > _MOST_DOUBTFUL:
            return False
        formula = self._formula(start)
        line = self._line_before(start, formula)
        if formula:
            return formula.inline or word not in _AMBIGUOUS or self._is_displayed(line, start, end, formula)
        return self._is_no_tab(line, end) if word[0] == "t" else self._is_no_break(word, line, end)

    def _is_displayed(self, line: str, start: int, end: int, formula: "_Formula") -> bool:
        r"""Whether ``\nu``, ``\ne`` or ``\ni`` in a display is LaTeX, or a line break and a variable."""
        if not line and start > formula.start:
            # A line break before it: a formula has no empty lines.
            return self._raw.endswith("\\n", 0, start)
        if not line:
            # What opens with a line break closes with one.
            return not _LINE_END.search(self._raw, formula.start, formula.end)
        if line[-1] in " ([{^_|&/" or _COMMAND_BEHIND.search(line) or not self._is_on_lines(formula):
            return True
        rest = _BREAK.split(self._raw[end : min(formula.end, end + _NEAR)], maxsplit=1)[0]
        return not (_RELATION_SIGN.search(line) and _RELATION_SIGN.search(rest))

    def _is_on_lines(self, formula: "_Formula") -> bool:
        """Whether a formula opens with a line break, one that is no command."""
        match = _LINE_START.match(self._raw, formula.start)
        return match is not None and match[1] not in _CERTAIN | (_DOUBTFUL - _AMBIGUOUS)

    def _is_no_tab(self, line: str, end: int) -> bool:
        """Whether a word outside of formulas is LaTeX, or a tab and a word."""
        if _COMMAND_AHEAD.match(self._raw, end) or _COMMAND_BEHIND.search(line):
            return True
        if line[-1:] not in tuple(" ([{=+-*/^_|,"):
            return False
        return self._writes_single or not _WORD_AHEAD.match(self._raw, end)

    def _is_no_break(self, word: str, line: str, end: int) -> bool:
        """Whether a word outside of formulas is LaTeX, or a line break and a word.

        Nobody writes a space, an opening bracket or an operator before a line break.
        """
        if word == "not":
            return line[-1:] == " " and bool(_NEGATED_AHEAD.match(self._raw, end))
        if line[-1:] in tuple("([{^_/") or _COMMAND_BEHIND.search(line):
            return True
        if not line.strip() or line[-1] != " ":
            return False
        if word in _RELATIONS and _OPERAND_BEHIND.search(line) and _OPERAND_AHEAD.match(self._raw, end):
            return True
        return self._writes_single or bool(_COMMAND_AHEAD.match(self._raw, end))

    def _line_before(self, start: int, formula: "_Formula | None") -> str:
        first = max(start - _NEAR, formula.start if formula else 0)
        return _BREAK.split(self._raw[first:start])[-1]

    @cached_property
    def _is_expression(self) -> bool:
        return bool(_CLASS.search(self._raw)) and not _DOUBLED.search(self._raw)

    @cached_property
    def _writes_single(self) -> bool:
        return bool(_SINGLE.search(self._raw)) and not _DOUBLED.search(self._raw)

    def _formula(self, position: int) -> "_Formula | None":
        number = bisect_right(self._starts, position) - 1
        return self._formulas[number] if number >= 0 and position < self._formulas[number].end else None

    @cached_property
    def _starts(self) -> list[int]:
        return [formula.start for formula in self._formulas]

    @cached_property
    def _formulas(self) -> "list[_Formula]":
        return _formulas(self._raw)


class _Formula(NamedTuple):
    start: int
    end: int
    inline: bool


_DELIMITER = re.compile(
    r"\\{1,2}\$|\$\$|\$|\\{1,2}[()\[\]]|\\{1,2}begin\{[A-Za-z]+\*?\}(?:\{[a-z| ]*\})?|\\{1,2}end\{"
)
_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]", "\\begin": "\\end"}
_LONGEST = {"$": 300, "\\(": 600}
_LONGEST_DISPLAY = 4000
_IN_BRACES = re.compile(r"\\+[A-Za-z]++|[_{][^{}]*")
_PROSE = re.compile(r"[^\W\d_]{3}")


def _formulas(raw: str) -> list[_Formula]:
    """Where LaTeX's formulas stand, in one pass; of nested ones the outer."""
    found: list[_Formula] = []
    opening, start = "", 0
    for match in _DELIMITER.finditer(raw):
        mark = match[0].replace("\\\\", "\\").partition("{")[0]
        near = match.start() - start <= _LONGEST.get(opening, _LONGEST_DISPLAY)
        if opening and mark == _CLOSING[opening] and near and _is_formula(raw, opening, start, match):
            found.append(_Formula(start, match.start(), opening in ("$", "\\(")))
            opening = ""
        elif mark in _CLOSING and (not opening or not near or (opening == "$" and mark != "\\begin")):
            opening, start = mark, match.end()
    return found


def _is_formula(raw: str, opening: str, start: int, closing: re.Match[str]) -> bool:
    """Whether two dollars are no prices: no blank inside them, no digit after them, no prose between them."""
    if opening != "$":
        return True
    content, after = raw[start : closing.start()], raw[closing.end() : closing.end() + 1]
    if not content or content[0].isspace() or content[-1].isspace() or after.isdigit():
        return False
    return not _PROSE.search(_IN_BRACES.sub(" ", content))
