r"""Delimiters that were written as something else: HTML's entities, escaped twice, full width.

``{&quot;answer&quot;: ...}``, ``{\"answer\": ...}`` and ``｛"answer"：...｝`` become
JSON's before anything is read. A text that also has plain delimiters stays as it is.
"""

import html
import json
import re

from aitp_tasks.generation.responses.values import Repairs

_ENTITY = re.compile(r"[{\[,]\s*+&(?:quot|#0*+34|#x0*+22);", re.IGNORECASE)
_ESCAPED = re.compile(r'\{\s*+\\++"')
_PLAIN_QUOTE = re.compile(r'(?<!\\)"')
_WIDE = re.compile(r"[｛｝［］]")
_WIDE_OPENING = re.compile(r"｛(?=\s*+[\"'“])|(?<=[:：])(\s*+)［(?=\s*+[\"'“])")
_WIDE_CLOSING = re.compile(r"(?<=[\"'”\d\w])\s*+[］｝][］｝\s]*+(?=\}|\Z|```|\s*+[,，]\s*+[\"'“])")
_NARROW = str.maketrans("｛｝［］", "{}[]")


def plain(text: str, repairs: Repairs) -> str:
    """The text with JSON's own delimiters."""
    if '"' not in text and "＂" in text:
        repairs["smart quotes"] = None
        text = text.replace("＂", '"')
    if '"' not in text and _ENTITY.search(text):
        repairs["html entities"] = None
        text = html.unescape(text)
    if '\\"' in text:
        text = _unescaped(text, repairs)
    return _narrow(text, repairs) if _WIDE.search(text) else text


def _unescaped(text: str, repairs: Repairs) -> str:
    match = _ESCAPED.search(text)
    start, end = match.start() if match else 0, text.rfind("}") + 1
    if match is None or _PLAIN_QUOTE.search(text, start, end):
        return text
    try:
        inner = json.loads(f'"{text[start:end]}"', strict=False)
    except ValueError:
        return text
    repairs["encoded twice"] = None
    quoted = text[:start].endswith('"') and text.startswith('"', end)
    return f"{text[: start - quoted]}{inner}{text[end + quoted :]}"


def _narrow(text: str, repairs: Repairs) -> str:
    """Full-width brackets as ASCII's, if all of them are delimiters."""
    narrow = text
    for pattern in (_WIDE_OPENING, _WIDE_CLOSING):
        narrow = pattern.sub(lambda match: match[0].translate(_NARROW), narrow)
    if _WIDE.search(narrow):
        return text
    repairs["punctuation"] = None
    return narrow
