"""The base model and its tokenizer: the one place that loads them, and says why it cannot."""

from pathlib import Path
from typing import TYPE_CHECKING

from aitp_tasks.config import Finetune, Model
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models, processors

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def fetch(settings: Finetune) -> Path:
    """The model's folder on this machine, with all of its files: what lies elsewhere is copied here once.

    Raises:
        InputError: the model does not exist.
        TransientError: the hub does not answer, or the model was replaced while it was copied.
    """
    if settings.on_hub:
        with models.loading(settings, "finetune.model"):
            return models.snapshot(settings)
    _require_folder(settings)
    return Path(models.local(settings))


def load_config(settings: Model) -> "PretrainedConfig":
    """The model's configuration.

    Raises:
        InputError: the model does not exist, or needs remote code.
        TransientError: the hub does not answer.
    """
    from transformers import AutoConfig

    _require_folder(settings)
    with models.loading(settings, "finetune.model"):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            settings.model, revision=settings.revision, trust_remote_code=False
        )
    return config


def outline(settings: Model) -> "PreTrainedModel":
    """The model's layers without their weights.

    Raises:
        InputError: the model's configuration cannot be read.
        TransientError: the hub does not answer.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(settings)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


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


def read_template(path: str) -> str:
    """The chat template that is configured for it.

    Raises:
        InputError: there is no such text file.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"finetune.chat_template {path} cannot be read ({error}): name a Jinja file"
        ) from None


def load_model(settings: Finetune, dtype: "torch.dtype") -> "PreTrainedModel":
    """The model's weights; those of linear layers in 4 bits where LoRA is quantised.

    Raises:
        InputError: the model does not exist, is broken, or needs remote code; or it is to be quantised where
            nothing computes in bfloat16.
        TransientError: the hub does not answer.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _require_folder(settings)
    quantised = None
    if settings.lora is not None and settings.lora.quantised:
        if dtype is not torch.bfloat16:
            raise InputError(
                "finetune.lora.quantised computes in bfloat16, and this device does not: take quantised out"
            )
        quantised = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    with models.loading(settings, "finetune.model"):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            settings.model,
            revision=settings.revision,
            trust_remote_code=False,
            dtype=dtype,
            quantization_config=quantised,
        )
    return model


def computes_in(device: str) -> "torch.dtype":
    """In what models are read on ``cuda`` or ``cpu``: bfloat16 where the device has it."""
    import torch

    narrow = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device == "cuda"
        else processors.compute_bfloat16()
    )
    return torch.bfloat16 if narrow else torch.float32


def _require_folder(settings: Model) -> None:
    if settings.folder is not None and not settings.folder.is_dir():
        raise InputError(
            f"finetune.model {settings.model} does not exist: run the setup, or correct the configured path"
        )
