"""Questions as a list without JSON: numbered, with bullets, or with labels, each on a line.

Only lines that end with a question mark are items, and nothing but a heading
before them and a closing remark behind them may stand beside them. An item with
a label of its own (``Factual: ...``), or in quotation marks that may be inner
ones, is not clear: then there is no list.
"""

import re

from aitp_tasks.generation.responses import remarks

_LABEL = "(?:Q|Question|Frage|Pregunta|Domanda|Pergunta|Vraag|Вопрос|问题|質問)"
_NUMBER = r"\d{1,2}|[一二三四五六七八九十]"
_ITEM = re.compile(
    rf"(?:\*\*)?+(?:[-*•·–+](?=[\s\"“])|[(（]?(?P<number>{_NUMBER})[.):、．）]"
    rf"|{_LABEL}[ .]?#?(?P<label>{_NUMBER})\s*+[.):：]|Q(?=:)"
    rf"|第(?P<ordinal>{_NUMBER})个?[问問][题題][:：])"
    r"[*:]{0,3}+\s*+(?P<text>\S.*+)",
    re.IGNORECASE,
)
_NUMERALS = [*"一二三四五六七八九十"]
_HEADING = re.compile(r"#.*+|.{0,200}[:：]\*{0,2}|\*\*[^*]{1,60}\*\*|```\w*+|---")
_REMARK = re.compile(r"(?:```|---|(?:let me know|i hope|hope|feel free)\b[^?]{0,200})", re.IGNORECASE)
#: Question marks.
ASKS = ("?", "？", "؟")
#: An item that may not be a question alone.
_UNCLEAR = re.compile(r"[(\[{<]|[^\W\d_][\w-]*+(?: [\w-]++){0,2}[:：]\s|.*(?:\*\*|__)", re.DOTALL)


def items(text: str) -> list[str]:
    """The questions; empty where there is no such list, or no clear one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_ITEM.fullmatch(line) for line in lines]
    places = [place for place, match in enumerate(found) if match]
    if not places or not _stand_alone(lines, places):
        return []
    numbers = [
        _number(match["number"] or match["label"] or match["ordinal"] or "") for match in found if match
    ]
    if any(numbers) and numbers != list(range(1, len(numbers) + 1)):
        return []
    questions = [_question(match["text"]) for match in found if match]
    return [question for question in questions if question] if all(questions) else []


def _number(written: str) -> int:
    return _NUMERALS.index(written) + 1 if written in _NUMERALS else int(written or 0)


def _stand_alone(lines: list[str], places: list[int]) -> bool:
    before, behind = lines[: places[0]], lines[places[-1] + 1 :]
    return (
        places[-1] - places[0] + 1 == len(places)
        and len(before) + len(behind) <= 4
        and all(_HEADING.fullmatch(line) and not remarks.is_provisional(line) for line in before)
        and all(_REMARK.fullmatch(line) for line in behind)
    )


def _question(text: str) -> str | None:
    text = text.strip("*_ \t,")
    quotes = [sign for sign in text if sign in '"“”„']
    if text[:1] == text[-1:] == "'" or (len(quotes) == 2 and text[0] in quotes and text[-1] in quotes):
        text = text[1:-1].strip()
    if text.startswith("'") or len(quotes) % 2:
        return None
    return text if text.endswith(ASKS) and not _UNCLEAR.match(text) else None
