"""From a prompt and a document to the tokens that a model sees.

The document is data: marks that steer a conversation are made plain text in it,
it comes after the instructions as the user's content, and where it is too long
for the context it is cut at the end of a sentence.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aitp_tasks import config
from aitp_tasks.errors import InputError
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
#: Characters a token may stand for before the tokenizer is spared the rest of a text.
_CHARACTERS_PER_TOKEN = 64
#: Tokens that the cut text and its neighbours may merge into.
_SPARE = 8
_SENTENCE_END = re.compile(r"[.!?…][\"')\]»”’]*(?=\s)|[。！？]+[」』”’]*|\n")
#: A sentence's end is looked for in this last share of what would fit.
_SOUGHT = 0.5


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
        self._reading = reading_marks_only(self._tokenizer, marks, str(self._tokenizer.chat_template))

    @property
    def context(self) -> int:
        """Tokens of prompt and response together."""
        return self._room

    def render(self, prompt: FrozenPrompt, values: Mapping[str, str], max_tokens: int) -> Rendered:
        """Fill a prompt so that ``max_tokens`` are left for the response.

        A ``text`` that is too long loses its end; nothing else is ever cut.

        Raises:
            ValueError: the rest of the prompt leaves no room for a document.
            InputError: the chat template refuses the prompt.
        """
        neutralised: Counter[str] = Counter()
        safe: dict[str, str] = {}
        for name, value in values.items():
            safe[name], found = self._neutralise(value)
            neutralised += found
        room = self._room - max_tokens
        text = safe.get("text", "")
        shown = text[: max(room, 0) * _CHARACTERS_PER_TOKEN]
        while True:
            content = fill(prompt, safe | {"text": shown})
            token_ids = self._encode(content)
            over = len(token_ids) - room
            if over <= 0:
                return Rendered(content, token_ids, len(text) - len(shown), neutralised)
            shorter = self._shortened(shown, over + _SPARE)
            if not shorter:
                raise ValueError(
                    f"prompt {prompt.name} takes {len(token_ids)} tokens, its response up to {max_tokens}: "
                    f"engine.max_model_len={self._room} leaves no room for the document"
                )
            shown = shorter

    def _encode(self, content: str) -> list[int]:
        from jinja2.exceptions import TemplateError

        try:
            rendered = self._in_template({}, [{"role": "user", "content": content}], True)
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"the chat template refuses the prompt ({type(error).__name__}: {error}): correct "
                f"engine.chat_template, or engine.chat_template_args={self._template_args}"
            ) from None
        token_ids: list[int] = self._reading.encode(rendered, add_special_tokens=False)
        return token_ids

    def _in_template(self, switches: Mapping[str, bool], messages: Messages, opening: bool) -> str:
        """A conversation in the chat template, with the beginning of an answer where that is asked for."""
        return str(
            self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=opening, tokenize=False, **{**self._template_args, **switches}
            )
        )

    def _shortened(self, text: str, tokens: int) -> str:
        """A text without its last tokens, and without the sentence that they were in."""
        encoded = self._reading(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        if len(offsets) <= tokens:
            return ""
        return at_sentence_end(text[: offsets[len(offsets) - tokens - 1][1]])


def at_sentence_end(text: str) -> str:
    """A text that was cut anywhere, cut back to a sentence's end, a word's, or left as it is."""
    start = int(len(text) * (1 - _SOUGHT))
    ends = [match.end() for match in _SENTENCE_END.finditer(text, start)]
    if ends:
        return text[: ends[-1]].rstrip()
    space = text.rfind(" ", start)
    return text[:space] if space > 0 else text
