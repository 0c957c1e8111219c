"""What follows from the base model and its chat template alone, so that nothing is spent to find it out."""

import logging

from aitp_tasks.config import Finetune
from aitp_tasks.machine import base_model, models
from aitp_tasks.training import deepspeed_config, lora, packing, template, tracking, vocabulary

log = logging.getLogger(__name__)


def require_deepspeed(settings: Finetune) -> None:
    """Make sure that a team's own DeepSpeed file can be used.

    Raises:
        InputError: it is none, or contradicts the settings.
    """
    deepspeed_config.read(settings)


def require_quantising(settings: Finetune) -> None:
    """Make sure that the base's weights can be quantised where they are to be.

    Raises:
        InputError: bitsandbytes is needed and not installed.
    """
    lora.require_library(settings)


def require_trackers(settings: Finetune) -> None:
    """Make sure that trackers can be reported to.

    Raises:
        InputError: one is not installed, or a secret of its stands where logs would show it.
    """
    tracking.require(settings)


def require_template(settings: Finetune) -> None:
    """Make sure that the base model can be trained on chats.

    Not checked for a model whose files are in the storage: its tokenizer is not on this machine yet.

    Raises:
        InputError: the tokenizer cannot be loaded, or no template that marks what the assistant says is
            known for it, or the model has no embeddings for the template's marks.
        TransientError: the hub does not answer.
    """
    if settings.stored:
        log.info("plan: the chat template is not checked: %s is not on this machine", settings.label)
        return
    tokenizer = base_model.load_tokenizer(settings.model_copy(update={"model": models.local(settings)}))
    vocabulary.require_marks(settings, tokenizer, template.choose(tokenizer, settings.chat_template))


def require_packing(settings: Finetune) -> None:
    """Make sure that the base model can be trained on packed examples, where they are.

    Looks at its class only; whether examples see each other is measured before the first step.

    Raises:
        InputError: it cannot, or its configuration cannot be read.
        TransientError: the hub does not answer.
    """
    if not settings.packing:
        return
    if settings.stored:
        log.info("plan: packing is not checked: %s is not on this machine", settings.label)
        return
    packing.require_positions(base_model.outline(settings), settings.label)
