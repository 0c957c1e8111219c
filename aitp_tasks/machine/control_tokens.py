"""The marks by which a model's conversation is steered, and how a text that holds them stays text.

Marks are what the chat template writes around turns, found by rendering it, whether
the tokenizer has a token for it or not, and the tokens that the tokenizer flags as
special. Other added tokens (runs of spaces, HTML tags) are text.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

Messages = list[dict[str, str]]
#: Renders a conversation; the second argument asks for the beginning of an answer behind it.
Render = Callable[[Messages, bool], str]

#: What breaks a mark: no reader sees the first one, but some tokenizers take it out.
_BREAKERS = ("\u200b", " ")
#: Some flag the format of their pretraining: in a text ``<filename>`` is a placeholder, ``<b>`` a tag.
_TAG = re.compile(r"</?[A-Za-z][\w.-]*/?>")
_BRACKETED = re.compile(r"<+[^\s<>]+>+|\[+[^\s\[\]]+\]+")
#: The roles whose turns are rendered, each conversation once with and once without a beginning of an answer.
_CONVERSATIONS = (
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "tool", "assistant", "user"),
)
_CONTENT = "content{}of{}turns"


def turn_marks(tokenizer: Any, render: Render, answers: bool = True) -> set[str]:
    """What a chat template writes between turns.

    A role's name or another plain word alone is none, nor are words before the first
    turn: those are a system message of the template's own.

    Args:
        tokenizer: of transformers; its added tokens are known as marks wherever they are written.
        render: the template. What it refuses is left out.
        answers: also what stands at the beginning of the last answer, such as reasoning
            that is switched off; else only what divides turns.
    """
    tokens = [token for token in tokenizer.get_added_vocab() if _may_be_mark(token)]
    tokens.sort(key=len, reverse=True)
    known = re.compile("|".join([*map(re.escape, tokens), _BRACKETED.pattern]))
    found: set[str] = set()
    for before, between in _written(render, answers):
        found.update(known.findall(before))
        for text in between:
            found.update(known.findall(text))
            found.update(piece.strip() for piece in known.sub("\n", text).split("\n"))
    return {mark for mark in found if _may_be_mark(mark)}


def _may_be_mark(text: str) -> bool:
    """Whether there is a letter and something that is neither letter nor blank."""
    return bool(re.search(r"[^\W_]", text) and re.search(r"[^\w\s]", text))


def _written(render: Render, answers: bool) -> Iterator[tuple[str, list[str]]]:
    """What a template writes before a conversation, and between and behind its contents."""
    from jinja2.exceptions import TemplateError

    for roles in _CONVERSATIONS:
        contents = [_CONTENT.format(number, len(roles)) for number in range(len(roles))]
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        for last in (len(roles), len(roles) - 1) if answers else (len(roles),):
            try:
                text = render(messages[:last], answers and roles[last - 1] == "user")
            except (TemplateError, AttributeError, LookupError, TypeError, ValueError):
                continue
            before, *between = re.split("|".join(contents), text)
            # Without a system message, a template may write one of its own.
            yield before if roles[0] == "system" else "", between


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokens that a tokenizer flags as special, but tags and placeholders that it gives no part to."""
    flagged = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return set(tokenizer.all_special_tokens) | {token for token in flagged if not _TAG.fullmatch(token)}


class Neutraliser:
    """Makes marks inside texts plain text.

    A mark is broken behind its first character, so that the tokenizer does not read
    ``<|im_start|>`` in a document as the start of a turn; a reader sees no change. A mark
    of one character is left.
    """

    def __init__(self, tokenizer: Any, marks: Iterable[str]) -> None:
        """
        Args:
            tokenizer: of transformers; what its normaliser makes a mark of is one too.
            marks: see ``turn_marks`` and ``special_tokens``.
        """
        marks, tokens = {mark for mark in marks if len(mark) > 1}, tokenizer.get_added_vocab()
        self._raw = _starts(marks, tokens)
        self._breaker = _BREAKERS[0]
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normaliser = backend.normalizer if backend is not None else None
        if self._normaliser is not None:
            self._breaker = next(filter(self._survives, _BREAKERS), _BREAKERS[-1])
            forms = {mark: self._behind_normaliser(mark) for mark in marks}
            tokens = {*tokens, *(form for mark, form in forms.items() if mark in tokens)}
            self._normalised = _starts(marks.union(forms.values()), tokens)

    def __call__(self, text: str) -> tuple[str, Counter[str]]:
        """The text with its marks broken, and how often each was there."""
        found: Counter[str] = Counter()

        def broken(match: re.Match[str]) -> str:
            found[match[0] + match[match.lastindex or 0]] += 1
            return match[0] + self._breaker

        text = self._raw.sub(broken, text)
        if self._normaliser is not None:
            normalised = self._normaliser.normalize_str(text)
            plain = self._normalised.sub(broken, normalised)
            if plain != normalised:
                # Where one character stands for a whole mark, the text as the model reads it anyhow.
                text = self._broken_in_original(text) or plain
        return text, found

    def _broken_in_original(self, text: str) -> str | None:
        """The text with marks broken that its normalised form holds; None where they share a character."""
        from tokenizers import NormalizedString, Regex

        assert self._normaliser is not None
        string = NormalizedString(text)
        self._normaliser.normalize(string)
        pieces = string.split(Regex(self._normalised.pattern), "merged_with_previous")
        originals = [piece.original for piece in pieces]
        return self._breaker.join(originals) if "".join(originals) == text else None

    def _survives(self, breaker: str) -> bool:
        return self._behind_normaliser(f"<{breaker}|") != self._behind_normaliser("<|")

    def _behind_normaliser(self, mark: str) -> str:
        """What the normaliser makes of a mark in the middle of a text."""
        assert self._normaliser is not None
        before, text = (self._normaliser.normalize_str(text) for text in ("x", f"x{mark}"))
        return str(text.removeprefix(before))


def _starts(marks: Iterable[str], tokens: Container[str]) -> re.Pattern[str]:
    """Matches the first character of each mark, wherever one begins; a group holds the rest.

    A word that is no token begins a mark only where a word begins.
    """
    rests: dict[str, list[str]] = {}
    for mark in sorted(marks, key=len, reverse=True):
        if len(mark) > 1:
            inside = mark in tokens or not mark[0].isalnum()
            rests.setdefault(("" if inside else r"(?<!\w)") + re.escape(mark[0]), []).append(mark[1:])
    starts = (f"{first}(?=({'|'.join(map(re.escape, rest))}))" for first, rest in rests.items())
    return re.compile("|".join(starts) or "(?!)")


def reading_marks_only(tokenizer: Any, marks: Iterable[str], template: str) -> Any:
    """The tokenizer, but special tokens that are no marks and that a chat template does not write are text.

    So a text may hold ``<filename>`` unchanged, and still no token that the model knows
    from its pretraining and that a decoder leaves out.

    Args:
        tokenizer: of transformers; one without a fast backend is given back as it is.
        marks: see ``turn_marks``.
        template: its source; a token that it calls by name (``bos_token``) is written too.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return tokenizer
    named = (token for name, token in tokenizer.special_tokens_map.items() if name in template)
    written = {*marks, *map(str, named)}
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in described["added_tokens"]:
        # What is split is what is flagged.
        token["special"] &= token["content"] not in written and token["content"] not in template
    backend = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=backend, split_special_tokens=True)
