"""The examples of a training as its ranks read them: made on all processors, packed where that is wanted."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aitp_tasks.config import Finetune
from aitp_tasks.training import base_model, examples, long_examples, packing
from aitp_tasks.training.examples import Example, ExampleMaker, LeftOut, MakeParts, Tally
from aitp_tasks.training.job import Job

log = logging.getLogger(__name__)


def write(data: Path, maker: ExampleMaker, job: Job) -> Tally:
    """Make the examples of a dataset's rows.

    Raises:
        TransientError: one of the processes that share the work was killed.
    """
    settings = job.finetune
    again = partial(parts_again, settings, job.templates.training)
    tally = examples.write(data, parts(settings, maker), job.examples, again)
    if settings.packing and tally.examples:
        rows = packing.pack(job.examples, job.packs, settings.max_length, settings.seed)
        log.info("packed examples=%d rows=%d of max_length=%d", tally.examples, rows, settings.max_length)
    return tally


def parts(settings: Finetune, maker: ExampleMaker) -> MakeParts:
    """What makes the examples of a conversation, by the settings for long ones."""

    def make(turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> Sequence[Example | LeftOut]:
        return long_examples.make(turns, partial(maker.make, tools=tools), settings.long_examples)

    return make


def parts_again(settings: Finetune, training_template: str) -> MakeParts:
    """The same in another process."""
    tokenizer = base_model.load_tokenizer(settings)
    return parts(settings, ExampleMaker(tokenizer, training_template, settings.max_length))
