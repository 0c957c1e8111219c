"""The base model and its tokenizer: the one place that loads them, and says why it cannot."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError, TransientError

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

    with _explained(settings):
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

    with _explained(settings):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            settings.model, revision=settings.revision, trust_remote_code=False, dtype=dtype
        )
    return model


@contextmanager
def _explained(settings: Finetune) -> Iterator[None]:
    """Tell a model that cannot work from a hub that does not answer."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from safetensors import SafetensorError

    if settings.folder is not None and not settings.folder.is_dir():
        raise InputError(
            f"finetune.model {settings.model} does not exist: run the setup, or correct the configured path"
        )
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        unknown = isinstance(error.__cause__, RepositoryNotFoundError | RevisionNotFoundError)
        if settings.folder is None and isinstance(error, OSError) and not unknown:
            raise TransientError(f"finetune.model {settings.model} cannot be fetched: {reason}") from error
        raise InputError(
            f"finetune.model {settings.model} cannot be loaded: correct it or its revision: {reason}"
        ) from error
