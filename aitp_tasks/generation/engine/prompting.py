"""From a prompt and a document to the tokens that a model sees.

The document is data: marks that steer a conversation are made plain text in it,
it comes after the instructions as the user's content, and where it is too long
for the context it is cut at the end of a sentence.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aitp_tasks import config
from aitp_tasks.errors import InputError
from aitp_tasks.generation.engine.encoding import (
    Asked,
    Encoding,
    Steps,
    encoder,
    first_from,
    read_again,
    together,
)
from aitp_tasks.generation.prompt_files import fill
from aitp_tasks.machine import models
from aitp_tasks.machine.control_tokens import (
    Messages,
    Neutraliser,
    reading_marks_only,
    special_tokens,
    turn_marks,
)
from aitp_tasks.records.plan import FrozenPrompt

#: How templates call what switches thinking on or off; what they write for either would do so in a document.
_SWITCHES = ("enable_thinking", "thinking")
_SWITCHED: tuple[dict[str, bool], ...] = ({}, dict.fromkeys(_SWITCHES, False), dict.fromkeys(_SWITCHES, True))
#: So many bytes for each token that there is room for are looked at first.
_BYTES_PER_TOKEN = 4
#: So many tokens more than there is room for are looked at next; twice as many each time.
_MORE = 32
#: Tokens that the cut text and its neighbours may merge into.
_SPARE = 8
_SENTENCE_END = re.compile(r"[.!?…][\"')\]»”’]*(?=\s)|[。！？]+[」』”’]*|\n")
#: A sentence's end is looked for in this last share of what would fit.
_SOUGHT = 0.5
_NEAR = 400


@dataclass(frozen=True)
class Rendered:
    """A filled prompt.

    Attributes:
        content: what the user says.
        token_ids: the same within the chat template.
        cut_characters: of the document, its marks made plain, left out at its end.
        neutralised: how often each mark stood in the values.
    """

    content: str
    token_ids: list[int]
    cut_characters: int = 0
    neutralised: Mapping[str, int] = field(default_factory=dict)


class Prompter:
    """Fills prompts for one model."""

    def __init__(self, settings: config.Engine, model: str) -> None:
        """Load the model's tokenizer.

        Raises:
            InputError: it cannot be loaded, or there is no chat template.
            TransientError: the hub does not answer.
        """
        from transformers import AutoTokenizer

        self._room = settings.max_model_len
        with models.loading(settings, "the tokenizer of engine model"):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model,
                revision=settings.revision if settings.on_hub else None,
                trust_remote_code=bool(settings.engine_args.get("trust_remote_code", False)),
            )
        if settings.chat_template is not None:
            self._tokenizer.chat_template = Path(settings.chat_template).read_text(encoding="utf-8")
        if not self._tokenizer.chat_template:
            raise InputError(
                f"model {settings.model} has no chat template: choose an instruction-tuned model, "
                "or give one in engine.chat_template"
            )
        self._template_args = settings.chat_template_args
        marks = special_tokens(self._tokenizer)
        for switches in _SWITCHED:
            marks |= turn_marks(self._tokenizer, partial(self._in_template, switches))
        self._neutralise = Neutraliser(self._tokenizer, marks)
        self._encode = encoder(reading_marks_only(self._tokenizer, marks, str(self._tokenizer.chat_template)))

    @property
    def context(self) -> int:
        """Tokens of prompt and response together."""
        return self._room

    def render(self, prompt: FrozenPrompt, values: Mapping[str, str], max_tokens: int) -> Rendered:
        """Fill a prompt so that ``max_tokens`` are left for the response.

        A ``text`` that is too long loses its end; nothing else is ever cut.

        Raises:
            ValueError: the rest of the prompt leaves no room for a document, or a value is no text.
            InputError: the chat template refuses the prompt.
        """
        (rendered,) = self.render_all(prompt, [(values, max_tokens)])
        if isinstance(rendered, ValueError):
            raise rendered
        return rendered

    def render_all(
        self, prompt: FrozenPrompt, asked: Sequence[tuple[Mapping[str, str], int]]
    ) -> list[Rendered | ValueError]:
        """See ``render``: the same for many values and their ``max_tokens``, on all cores.

        Raises:
            InputError: the chat template refuses a prompt.
        """
        steps = [self._rendering(prompt, values, max_tokens) for values, max_tokens in asked]
        return together(self._encode, steps)

    def beginning(self, text: str, unseen: int) -> str:
        """A text, its marks made plain, without so many characters at its end; see ``cut_characters``."""
        plain, _ = self._neutralise(text)
        return plain[: max(len(plain) - unseen, 0)]

    def _rendering(self, prompt: FrozenPrompt, values: Mapping[str, str], max_tokens: int) -> Steps[Rendered]:
        room = self._room - max_tokens
        safe, neutralised = self._safe(values)
        text = safe.get("text", "")
        draft = yield from self._overlong(prompt, safe, room)
        shown, content, encoding, dropped = draft.shown, draft.content, draft.encoding, 0
        while len(encoding.ids) > room:
            dropped += len(encoding.ids) - room + _SPARE
            shown = at_sentence_end(draft.without_last(dropped))
            if not shown:
                raise ValueError(
                    f"prompt {prompt.name} takes {len(draft.encoding.ids)} tokens, its response up to "
                    f"{max_tokens}: engine.max_model_len={self._room} leaves no room for the document"
                )
            content = fill(prompt, safe | {"text": shown})
            encoding = yield from read_again(draft.rendered, draft.encoding, self._opened(content))
        return Rendered(content, encoding.ids, len(text) - len(shown), neutralised)

    def _overlong(self, prompt: FrozenPrompt, safe: Mapping[str, str], room: int) -> Steps["_Draft"]:
        """The prompt with all of the text, or with a beginning that is too long: the rest is not read."""
        text = safe.get("text", "").encode()
        others = len(fill(prompt, {**safe, "text": ""}).encode())
        length, spare = room * _BYTES_PER_TOKEN, _MORE
        draft: _Draft | None = None
        while True:
            beginning = text[: max(length - others, 0)]
            shown = beginning.decode(errors="ignore")
            content = fill(prompt, {**safe, "text": shown})
            rendered, whole = self._opened(content), len(beginning) == len(text)
            if draft is not None:
                encoding = yield from read_again(draft.rendered, draft.encoding, rendered)
            else:
                # All of a text of this length will fit: then nobody asks where it could be cut.
                encoding = yield Asked(rendered, placed=not whole)
                if whole and len(encoding.ids) > room:
                    encoding = yield Asked(rendered)
            draft = _Draft(shown, content, rendered, encoding)
            if whole or len(encoding.ids) > room:
                return draft
            # As long as its tokens have been so far, which may change.
            length = max(length, len(content.encode()), 1) * (room + spare) // max(len(encoding.ids), 1)
            spare *= 2

    def _safe(self, values: Mapping[str, str]) -> tuple[dict[str, str], Counter[str]]:
        """The values with their marks made plain, and how often each mark was there."""
        neutralised: Counter[str] = Counter()
        safe: dict[str, str] = {}
        for name, value in values.items():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{name} holds half a character at {error.start}, which is no text: correct the input"
                ) from None
            safe[name], found = self._neutralise(value)
            neutralised += found
        return safe, neutralised

    def _opened(self, content: str) -> str:
        """What the model reads before it responds to a prompt."""
        from jinja2.exceptions import TemplateError

        try:
            return self._in_template({}, [{"role": "user", "content": content}], True)
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"the chat template refuses the prompt ({type(error).__name__}: {error}): correct "
                f"engine.chat_template, or engine.chat_template_args={self._template_args}"
            ) from None

    def _in_template(self, switches: Mapping[str, bool], messages: Messages, opening: bool) -> str:
        """A conversation in the chat template, with the beginning of an answer where that is asked for."""
        return str(
            self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=opening, tokenize=False, **{**self._template_args, **switches}
            )
        )


@dataclass(frozen=True)
class _Draft:
    """A prompt with a text or the beginning of it, filled, in the chat template, and as tokens."""

    shown: str
    content: str
    rendered: str
    encoding: Encoding

    def without_last(self, tokens: int) -> str:
        """What is shown of the text, without so many tokens at its end.

        By its share of all tokens where the template has changed it, or the tokenizer does
        not tell where tokens stand.
        """
        # Templates take blanks off.
        core = self.shown.strip()
        start = self.rendered.find(core) if core else -1
        every, span = len(self.encoding.ids), self.encoding.span
        if start < 0 or span is None:
            return self.shown[: len(self.shown) * max(every - tokens, 0) // every]
        kept = first_from(self.encoding, start + len(core)) - tokens
        begin = start - (len(self.shown) - len(self.shown.lstrip()))
        return self.shown[: max(span(kept - 1)[1] - begin, 0)] if kept > 0 else ""


def at_sentence_end(text: str) -> str:
    """A text that was cut anywhere, cut back to a sentence's end, a word's, or left as it is."""
    start = int(len(text) * (1 - _SOUGHT))
    # Mostly there is one among the last characters.
    for first in (max(len(text) - _NEAR, start), start):
        ends = [match.end() for match in _SENTENCE_END.finditer(text, first)]
        if ends:
            return text[: ends[-1]].rstrip()
    space = text.rfind(" ", start)
    return text[:space] if space > 0 else text
