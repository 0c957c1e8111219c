"""Reasoning before a response, told by the marks that families of models put around it."""

import re

from aitp_tasks.generation.responses.errors import UnreadableError
from aitp_tasks.generation.responses.values import Repairs

_NAME = (
    r"(?:[a-z]{1,12}[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflections?|analysis|scratch_?pad"
    r"|(?:inner_?)?monologue)"
)
#: ``<think>``, ``[THINK]``, ``◁think▷``, ``<|START_THINKING|>``, ``<|begin_of_thought|>`` and their ends.
_TAG = rf"[<\[◁]\|?(?:begin_of_|begin_|start_)?{_NAME}\|?[>\]▷]"
_TAG_END = rf"[<\[◁]\|?(?:/|end_of_|end_){_NAME}\|?[>\]▷]"
#: What opens reasoning and what closes it.
_FAMILIES = {
    rf"(?i:{_TAG})": rf"(?i:{_TAG_END})",
    r"<\|channel\|>(?:analysis|commentary)": r"<\|channel\|>final ?(?:<\|constrain\|>)?\w*+<\|message\|>",
    r"\A\s*+(?:assistant)?analysis(?=[^\W\d_a-z]|[\"'“{])": r"assistantfinal",
    r"<\|channel>thought": r"<channel\|>",
    r"<\|inner_prefix\|>": r"<\|inner_suffix\|>",
    r"<unused94>": r"<unused95>",
    r"\A\s*+(?i:here(?:'s| is) my th(?:ought|inking) process)": r"(?i:here(?:'s| is) my response):?",
    r"\A\W*+(?i:thinking process)\W": rf"(?i:{_TAG_END})",
}
_OPENING = re.compile("|".join(f"({opening})" for opening in _FAMILIES))
_CLOSINGS = [re.compile(closing) for closing in _FAMILIES.values()]
_MARK_OR_END = re.compile(rf"\\.|[\"{{}}]|(?i:{_TAG_END})", re.DOTALL)
_OBJECT_AHEAD = re.compile(r"\s*+(?:```\w*+\s*+)?+\{\s*+[\"'“]\w")


def without(text: str, repairs: Repairs) -> str:
    """The text behind the reasoning, which a prompt may have opened already.

    Raises:
        UnreadableError: the reasoning does not end.
    """
    behind, brace = 0, text.find("{")
    while start := _OPENING.search(text, behind, brace + 1 if brace >= 0 else len(text)):
        end = _CLOSINGS[(start.lastindex or 1) - 1].search(text, start.end())
        if end is None:
            raise UnreadableError("the reasoning does not end")
        behind = end.end()
        brace = text.find("{", behind) if 0 <= brace < behind else brace
    behind = behind or _end_of_opened(text)
    if behind:
        repairs["reasoning"] = None
    return text[behind:]


def _end_of_opened(text: str) -> int:
    """Behind the last closing mark that an object follows, or that stands in no string or object."""
    behind = quotes = depth = 0
    for mark in _MARK_OR_END.finditer(text):
        if mark[0] == '"':
            quotes += 1
        elif mark[0] in "{}":
            depth += 1 if mark[0] == "{" else -1
        elif mark[0][0] != "\\" and (
            (depth == 0 and quotes % 2 == 0) or _OBJECT_AHEAD.match(text, mark.end())
        ):
            behind = mark.end()
            quotes = depth = 0
    return behind
