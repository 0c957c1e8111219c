"""The examples of a training as its ranks read them: made on all processors, packed where that is wanted."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks.config import Finetune
from aitp_tasks.errors import InputError
from aitp_tasks.machine import base_model
from aitp_tasks.records import conversations
from aitp_tasks.training import examples, long_examples, packing
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


def write_validation(rows: Sequence[Mapping[str, Any]], maker: ExampleMaker, job: Job) -> Tally:
    """Make the examples that a training is validated on.

    Args:
        rows: as ``records.validation`` gives them.
        maker: of the training's examples.
        job: of the training.

    Raises:
        InputError: there is none.
    """
    used = set().union(*(conversations.further(row["messages"], row[conversations.TOOLS]) for row in rows))
    data = job.folder / "validation.parquet"
    pq.write_table(conversations.table(rows, pa.schema(conversations.columns(used))), data)
    tally = examples.write(data, parts(job.finetune, maker), job.validation)
    if not tally.examples:
        raise InputError(
            f"none of {len(rows)} held-out examples can be validated on {tally.left_out()}: raise "
            f"evaluate.held_out, or take out finetune.eval_steps={job.finetune.eval_steps}"
        )
    log.info(
        "validation examples=%d learnt_tokens=%d left_out=%s",
        *(tally.examples, tally.trained_tokens, tally.left_out()),
    )
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
