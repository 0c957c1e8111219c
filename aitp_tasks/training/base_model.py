"""The base model and its tokenizer: the one place that loads them, and says why it cannot."""

from typing import TYPE_CHECKING

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(settings: Finetune) -> "PreTrainedTokenizerBase":
    """The model's tokenizer.

    Raises:
        InputError: the model does not exist, has no tokenizer, or needs remote code.
        TransientError: the hub does not answer.
    """
    from transformers import AutoTokenizer

    _require_folder(settings)
    with models.loading(settings, "finetune.model"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            settings.model, revision=settings.revision, trust_remote_code=False
        )
    return tokenizer


def load_model(settings: Finetune, dtype: "torch.dtype") -> "PreTrainedModel":
    """The model's weights.

    Raises:
        InputError: the model does not exist, is broken, or needs remote code.
        TransientError: the hub does not answer.
    """
    from transformers import AutoModelForCausalLM

    _require_folder(settings)
    with models.loading(settings, "finetune.model"):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            settings.model, revision=settings.revision, trust_remote_code=False, dtype=dtype
        )
    return model


def _require_folder(settings: Finetune) -> None:
    if settings.folder is not None and not settings.folder.is_dir():
        raise InputError(
            f"finetune.model {settings.model} does not exist: run the setup, or correct the configured path"
        )
