"""The chat template that training renders with: one that marks what the assistant says.

In order: the configured file, the model's own template when it has generation
marks, TRL's training twin of a template that it knows, and for any other ChatML
template the one in this folder. Templates that are none of these are refused,
not guessed at.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

_CHATML = Path(__file__).with_name("chatml_training.jinja")
_REMEDY = "set finetune.chat_template to a Jinja file with {% generation %} marks"
# Blanks at both ends: a template that strips contents is told apart from one that does not.
_USER = {"role": "user", "content": " One? "}
_ASSISTANT = {"role": "assistant", "content": " Two.\n"}
_SYSTEM = {"role": "system", "content": " Three. "}
_SAMPLES: tuple[Messages, ...] = (
    [_USER, _ASSISTANT],
    [_SYSTEM, _USER, _ASSISTANT],
    [_USER, _ASSISTANT, _USER, _ASSISTANT],
    [_SYSTEM, _USER, _ASSISTANT, _USER],
)


@dataclass(frozen=True)
class ChatTemplates:
    """What to train with, what the checkpoint carries, and what the model itself came with, if anything."""

    training: str
    saved: str
    own: str | None
    #: Token that ends what the assistant says; learnt with it.
    turn_end: int


def choose(tokenizer: "PreTrainedTokenizerBase", configured: str | None) -> ChatTemplates:
    """The templates for this model.

    The checkpoint keeps the model's own template, unless a configured one
    renders other text: then the model has learnt that one.

    Raises:
        InputError: no template with generation marks is known for the model, or
            the marks leave out the end of the turn, which the model must learn.
    """
    from trl.chat_template_utils import has_generation_markers, is_chat_template_stop_token_trained

    own = _own_template(tokenizer)
    if configured is not None:
        training = base_model.read_template(configured)
        saved = own if own is not None and _render_alike(tokenizer, own, training) else training
    elif own is None:
        raise InputError(f"model {tokenizer.name_or_path} has no chat template: {_REMEDY}")
    else:
        training, saved = _known_twin(tokenizer, own), own
    if not has_generation_markers(training):
        raise InputError(
            f"chat template {configured} has no {{% generation %}} marks: "
            "add them around what the assistant says"
        )
    if not is_chat_template_stop_token_trained(tokenizer, chat_template=training):
        raise InputError(
            f"the chat template for {tokenizer.name_or_path} leaves the end of the turn outside its "
            "generation marks: put {% endgeneration %} behind the end-of-turn token in a file, "
            "and set finetune.chat_template to it"
        )
    return ChatTemplates(training, saved, own, _turn_end(tokenizer, training))


def _turn_end(tokenizer: "PreTrainedTokenizerBase", training: str) -> int:
    """The last token of an answer that is more than blanks; an added one, as ``choose`` has made sure."""
    rendered: Any = tokenizer.apply_chat_template(
        [_USER, _ASSISTANT, _USER],
        chat_template=training,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    masked = zip(rendered["input_ids"], rendered["assistant_masks"], strict=True)
    said = [token for token, inside in masked if inside]
    return next(int(token) for token in reversed(said) if str(tokenizer.decode([token])).strip())


def _own_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    template: str | dict[str, str] | None = tokenizer.chat_template
    if isinstance(template, dict):
        return template.get("default")
    return template


def _known_twin(tokenizer: "PreTrainedTokenizerBase", own: str) -> str:
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer) or own
    except ValueError:
        # TRL's way of saying that it does not know the template.
        return chatml(tokenizer, own)


def chatml(tokenizer: "PreTrainedTokenizerBase", own: str) -> str:
    """The training twin of a ChatML template.

    Raises:
        InputError: ``own`` is not ChatML, or renders some conversation differently.
    """
    turn = f"<|im_start|>user\n{_USER['content']}<|im_end|>\n"
    preamble, separator, rest = _render(tokenizer, own, [_USER]).partition(turn)
    if not separator or rest:
        raise InputError(
            f"no training twin of the chat template of {tokenizer.name_or_path} is known: {_REMEDY}"
        )
    # JSON's string syntax, kept to ASCII, is also Jinja's.
    training = f"{{%- set preamble = {json.dumps(preamble)} -%}}\n" + _CHATML.read_text(encoding="utf-8")
    if not _render_alike(tokenizer, own, training):
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} is not plain ChatML "
            f"(it renders a sample differently): {_REMEDY}"
        )
    return training


def _render_alike(tokenizer: "PreTrainedTokenizerBase", one: str, other: str) -> bool:
    from jinja2.exceptions import TemplateError

    for messages in _SAMPLES:
        texts = []
        for template in (one, other):
            try:
                texts.append(_render(tokenizer, template, messages))
            except TemplateError:
                texts.append("")
        if texts[0] != texts[1]:
            return False
    return True


def _render(tokenizer: "PreTrainedTokenizerBase", template: str, messages: Messages) -> str:
    ends_with_user = messages[-1]["role"] == "user" and len(messages) > 1
    return str(
        tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=ends_with_user
        )
    )
