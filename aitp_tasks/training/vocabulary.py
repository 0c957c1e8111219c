"""Whether a model has embeddings for what its tokenizer makes.

A tokenizer may know tokens that the model does not, as long as no example has one: padding
that somebody added, say. Where one has, a GPU stops in the middle of a kernel, with an error
that names nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model
from aitp_tasks.training.template import ChatTemplates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def require_marks(settings: Finetune, tokenizer: "PreTrainedTokenizerBase", templates: ChatTemplates) -> None:
    """Make sure that the model has embeddings for the marks of its chat template.

    Raises:
        InputError: it has not, or its configuration cannot be read.
        TransientError: the hub does not answer.
    """
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
    made = tokenizer.apply_chat_template(turns, chat_template=templates.training, return_dict=True)
    _require(settings, max(*made["input_ids"], templates.turn_end))


def require_examples(settings: Finetune, examples: Path) -> None:
    """The same for all examples, as they were written for the ranks."""
    largest = 0
    with pa.memory_map(str(examples)) as source, pa.ipc.open_stream(source) as batches:
        for batch in batches:
            largest = max(largest, pc.max(batch.column("input_ids").flatten()).as_py() or 0)
    _require(settings, largest)


def _require(settings: Finetune, largest: int) -> None:
    known = int(base_model.load_config(settings).get_text_config().vocab_size)
    if largest >= known:
        token = base_model.load_tokenizer(settings).convert_ids_to_tokens(largest)
        raise InputError(
            f"finetune.model {settings.label}: its tokenizer makes token {largest} ({token!r}), and the "
            f"model has embeddings for {known}: take the tokenizer that belongs to the model, or resize its "
            "embeddings"
        )
