"""The figures of a version, from what its files were written of."""

import time
from collections import Counter
from collections.abc import Mapping

from aitp_tasks.config import Model, RunConfig
from aitp_tasks.dataset.export import ALPACA, SHAREGPT, Told
from aitp_tasks.records.contents import Contents, JsonFile, MarksHeld, UsedModel, shares
from aitp_tasks.records.plan import Plan

#: So many sources and marks are told by name: the source column of a dump may have as many as documents.
_NAMES = 100
_OTHERS = "others"


def contents(plan: Plan, told: Told, kinds: Mapping[str, int], dropped: int) -> Contents:
    """What a version holds.

    Args:
        plan: of the run that makes it.
        told: of its files.
        kinds: rows by ``sft``, ``new_pairs`` and ``earlier_pairs``.
        dropped: rows that are not in it for marks in their texts.
    """
    rows = sum(kinds.values())
    return Contents(
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        rows=rows,
        by_kind=shares(dict(kinds), rows),
        by_dump=shares(_most(told.dumps), rows),
        by_source=shares({f"sft/{plan.config.sft}": kinds["sft"], **_most(told.sources)}, rows),
        models=_models(plan, plan.config),
        columns=told.columns,
        shards={name: count for name, count in told.rows.items() if name not in (SHAREGPT, ALPACA)},
        validation_shards=told.validation,
        json_files={
            name: JsonFile(rows=told.rows[name], left_out=dict(sorted(told.left_out[name].items())))
            for name in (SHAREGPT, ALPACA)
        },
        marks=MarksHeld(
            setting=plan.config.assemble.marks.value,
            rows=told.marked,
            by_mark=_most(told.marks),
            dropped=dropped,
        ),
    )


def _models(plan: Plan, config: RunConfig) -> dict[str, UsedModel]:
    used = {
        "encoder": (config.encoder, plan.encoder_identity),
        "engine": (config.engine, plan.engine_identity),
        "base": (config.finetune, plan.finetune_identity),
    }
    return {
        name: UsedModel(name=_name(model), revision=model.revision, identity=identity)
        for name, (model, identity) in used.items()
    }


def _name(model: Model) -> str:
    # Without where it lies, on a machine or in a storage.
    return model.model if model.on_hub else model.model.rstrip("/").rpartition("/")[2]


def _most(counts: Counter[str]) -> dict[str, int]:
    """The largest counts by name, and all others together."""
    order = sorted(counts, key=lambda name: (-counts[name], name))
    left = sum(counts[name] for name in order[_NAMES:])
    return {name: counts[name] for name in order[:_NAMES]} | ({_OTHERS: left} if left else {})
