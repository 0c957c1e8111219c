"""Answers ranked by how likely the base model finds them: the mean log-probability of an answer's tokens.

The base, which is fine-tuned on the pairs later, reads the question in its chat template, as
training renders it up to where an answer begins, and then the answer as plain text. What the
document says is not shown: an answer counts that the base could nearly have given itself.
"""

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model, devices, likelihood, models
from aitp_tasks.machine.control_tokens import (
    Messages,
    Neutraliser,
    reading_marks_only,
    special_tokens,
    turn_marks,
)
from aitp_tasks.machine.likelihood import Continuation
from aitp_tasks.records import digest
from aitp_tasks.records.manifest import Stopwatch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

#: The setting because of which there is anything to rank.
SETTING = "prompts.answers_per_question"
_LOGGED = ("answers", "unranked", "busy_seconds")
#: A question and its answer, as short as they come.
_SHORT = ("What does the document say of it? " * 2, "It says so.")


class Reader:
    """Makes a question and its answer what the base model reads."""

    def __init__(self, settings: Finetune, tokenizer: "PreTrainedTokenizerBase") -> None:
        """
        Args:
            settings: whose template is taken, where one is configured.
            tokenizer: of the base model.

        Raises:
            InputError: there is no chat template, or it has no place for an answer.
        """
        self._label = settings.label
        self._tokenizer = tokenizer
        self._template = _template(settings, tokenizer)
        marks = special_tokens(tokenizer) | turn_marks(tokenizer, self._render)
        self._neutralise = Neutraliser(tokenizer, marks)
        self._reading = reading_marks_only(tokenizer, marks, self._template)

    def read(self, question: str, answer: str) -> Continuation:
        """The token ids of both; one that is of both is the answer's.

        Raises:
            InputError: the chat template refuses the question.
        """
        question, answer = (self._neutralise(text)[0] for text in (question, answer))
        before = self._before(question)
        prompt, whole = (self._tokens(text) for text in (before, before + answer))
        agree = (one == other for one, other in zip(prompt, whole, strict=False))
        # Nothing is known before the first.
        common = max(sum(1 for _ in takewhile(bool, agree)), 1)
        return Continuation(whole[:common], whole[common:])

    def _before(self, question: str) -> str:
        """What is written before an answer."""
        from jinja2.exceptions import TemplateError

        # In no question.
        place = digest.of_text(question)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": place}]
        try:
            before, found, _ = self._render(turns, False).partition(place)
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"the chat template of finetune.model {self._label} refuses a question and its answer "
                f"({type(error).__name__}: {error}): correct finetune.chat_template, or set {SETTING} to 1"
            ) from None
        if not found or not before:
            raise InputError(
                f"the chat template of finetune.model {self._label} writes nothing before an answer, or no "
                f"answer: correct finetune.chat_template, or set {SETTING} to 1"
            )
        return before

    def _render(self, messages: Messages, opening: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=opening, tokenize=False
            )
        )

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._reading(text, add_special_tokens=False)["input_ids"]
        return ids


def require(settings: Finetune, room: int) -> None:
    """Make sure that the base model can read a question and an answer of ``room`` tokens.

    Not checked for a model whose files are in the storage: its tokenizer is not on this machine yet.

    Raises:
        InputError: it cannot, or has no chat template.
        TransientError: the hub does not answer.
    """
    if settings.stored:
        log.info("plan: whether %s can rank answers is not checked: it is not here", settings.label)
        return
    short = len(Reader(settings, base_model.load_tokenizer(settings)).read(*_SHORT))
    places = _places(base_model.load_config(settings))
    if places is not None and short + room > places:
        raise InputError(
            f"{SETTING} is more than 1, and finetune.model {settings.label}, which is to rank the answers, "
            f"reads {places} tokens at most: a question and an answer of up to {room} do not fit: lower "
            f"max_tokens of the answer's prompt, take a model that reads more, or set {SETTING} to 1"
        )


def log_probabilities(
    settings: Finetune, planned: str, pairs: Sequence[tuple[str, str]]
) -> tuple[list[float | None], dict[str, Any]]:
    """The mean log-probability of each answer in nats per token, and figures of the work.

    None where the base model cannot read it to its end, or finds a token impossible.

    Args:
        settings: of the base model.
        planned: its identity.
        pairs: questions with an answer each.

    Raises:
        InputError: the model is not the planned one any more, cannot be loaded, or has no chat template.
        TransientError: no GPU became free, or it has too little memory.
    """
    if not pairs:
        return [], _figures([], [], 0.0, 0.0)
    watch = Stopwatch()
    models.require_planned(settings, planned, "finetune.model")
    # Plain: how it is trained is nothing to it here.
    here = settings.model_copy(update={"model": str(base_model.fetch(settings)), "lora": None})
    reader = Reader(settings, base_model.load_tokenizer(here))
    read = [reader.read(*pair) for pair in pairs]
    places = _places(base_model.load_config(here))
    fit = [place for place, one in enumerate(read) if places is None or len(one) <= places]
    device = "cuda" if devices.lease(1, SETTING) else "cpu"
    model = _loaded(here, device, settings.label)
    loaded = watch.seconds()
    found: list[float | None] = [None] * len(pairs)
    each = likelihood.of_model(model, [read[place] for place in fit])
    for place, values in zip(fit, each, strict=True):
        found[place] = likelihood.mean(values)
    figures = _figures(read, found, loaded, watch.seconds() - loaded)
    log.info("ranked answers=%d unranked=%d seconds=%.1f", *(figures[name] for name in _LOGGED))
    return found, figures


def _loaded(settings: Finetune, device: str, label: str) -> "PreTrainedModel":
    import torch

    try:
        model: PreTrainedModel = base_model.load_model(settings, base_model.computes_in(device)).to(device)
    except torch.OutOfMemoryError:
        raise InputError(
            f"finetune.model {label}, which is to rank the answers, does not fit on one device: set "
            f"{SETTING} to 1, or take devices with more memory"
        ) from None
    return model


def _figures(
    read: Sequence[Continuation], found: Sequence[float | None], loaded: float, busy: float
) -> dict[str, Any]:
    return {
        "answers": len(found),
        "unranked": found.count(None),
        "tokens": sum(map(len, read)),
        "load_seconds": round(loaded, 1),
        "busy_seconds": round(busy, 1),
    }


def _template(settings: Finetune, tokenizer: "PreTrainedTokenizerBase") -> str:
    own: str | dict[str, str] | None = tokenizer.chat_template
    if settings.chat_template is not None:
        return base_model.read_template(settings.chat_template)
    template = own.get("default") if isinstance(own, dict) else own
    if not template:
        raise InputError(
            f"finetune.model {settings.label}, which is to rank the answers, has no chat template: set "
            f"finetune.chat_template to a Jinja file, or {SETTING} to 1"
        )
    return template


def _places(config: "PretrainedConfig") -> int | None:
    """How many tokens the model reads at most; None where it does not say."""
    places: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return places
