"""A planned run in a temporary storage, with a dataset version as assemble leaves it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import Finetune, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models
from aitp_tasks.records import conversations, tables
from aitp_tasks.records.manifest import Ledger, Manifest
from aitp_tasks.records.plan import Plan
from aitp_tasks.records.run import Run
from aitp_tasks.storage import open_storage

Messages = list[dict[str, Any]]
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path, smollm2: Path) -> MakeRun:
    """Makes runs over given conversations; keywords are settings of the finetune section.

    ``validated`` are conversations that assemble has held out to choose by.
    """

    def make(given: list[Messages], validated: Sequence[Messages] = (), **finetune: object) -> Run:
        config = RunConfig.model_validate(
            {
                "root": f"file://{tmp_path}/storage",
                "dump": "web",
                "sft": "alpaca",
                "encoder": {"model": "/none"},
                "engine": {"model": "/none"},
                "prompts": {"folder": "/none"},
                "evaluate": {"held_out": 0.1 if validated else 0.0},
                "finetune": {
                    "model": str(smollm2),
                    "processes": 2,
                    "batch_size": 1,
                    "gradient_accumulation": 1,
                    "max_steps": 2,
                    "learning_rate": 1e-4,
                    "max_length": 64,
                    **finetune,
                },
            }
        )
        plan = Plan(
            config=config,
            encoder_identity="e",
            engine_identity="e",
            finetune_identity=_identity(config.finetune),
            prompts={},
            groups=(),
        )
        run = Run.create(open_storage(config.root), plan)
        _leave_dataset(run, given, validated, tmp_path / "data.parquet")
        return run

    return make


def _identity(settings: Finetune) -> str:
    """As plan has it; what it would refuse is left to the stage."""
    try:
        return models.identity(settings)
    except InputError:
        return "f"


def _leave_dataset(run: Run, given: list[Messages], validated: Sequence[Messages], path: Path) -> None:
    pq.write_table(_table(given), path)
    outputs = {"parquet": "datasets/aitp/v1/data.parquet"}
    run.storage.upload(outputs["parquet"], path)
    # One of each kind of what is held out.
    for kind, rows in (("sft", validated[:1]), ("pairs", validated[1:])):
        if rows:
            key = tables.write(run.storage, run.key("assemble", f"validation-{kind}"), _table(rows))
            outputs[f"validation_{kind}"] = key
    run.commit(
        Manifest(
            stage="assemble",
            label="aitp v1",
            ledger=Ledger(rows_in=len(given), rows_out=len(given)),
            outputs=outputs,
            figures={"version": "v1"},
        )
    )


def _table(given: Sequence[Messages]) -> pa.Table:
    used = set().union(*map(conversations.further, given))
    schema = pa.schema(conversations.columns(used))
    return conversations.table([{"messages": messages} for messages in given], schema)
