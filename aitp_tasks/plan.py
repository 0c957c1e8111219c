"""plan: list the shards, check them by their footers, pack them into units, freeze the run.

Reads the listing of ``corpus/<dump>/`` and ``sft/<name>/``, and of each shard
the footer only. Writes ``runs/<dump>/<digest>/plan.json``. A shard whose footer
cannot be read stays in the plan: it fails its own embed unit and no other.
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aitp_tasks import prompts, rows
from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.manifest import Stopwatch
from aitp_tasks.run import Group, Plan, Run, Shard
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

log = logging.getLogger(__name__)

_SUFFIX = ".parquet"
_READERS = 16
#: Rows of a shard whose footer cannot be read.
UNREADABLE = -1
_SchemaCheck = Callable[[pa.Schema, str], object]


def execute(config: RunConfig) -> dict[str, Any]:
    """Plan a run.

    Returns:
        The result: the run's URI, how many embed units it has, how many documents.

    Raises:
        InputError: no bucket, no such dump or SFT set, a column missing from a
            shard, a model folder or a prompt that is not there.
    """
    watch = Stopwatch()
    storage = open_storage(config.root)
    text_path = rows.TextPath(config.text_columns[0])
    groups: list[Group] = []
    for dump in config.dumps:
        groups += _source_groups(storage, "corpus", dump, config, text_path.check)
    groups += _source_groups(storage, "sft", config.sft, config, rows.sft_columns)
    run = Run.create(
        storage,
        Plan(
            config=config,
            encoder_identity=config.encoder.identity(),
            engine_identity=config.engine.identity(),
            finetune_identity=config.finetune.identity(),
            prompts=prompts.load_folder(config.prompts),
            groups=_within_fanout(groups, config.plan.max_fanout),
        ),
    )
    shards = [shard for group in run.plan.groups for shard in group.shards]
    documents = sum(max(shard.rows, 0) for shard in shards if shard.role == "corpus")
    log.info("plan shards=%d units=%d documents=%d", len(shards), len(run.plan.groups), documents)
    return {
        "stage": "plan",
        "run": run.uri,
        "label": config.dump,
        "embed_units": len(run.plan.groups),
        "documents": documents,
        "seconds": watch.seconds(),
    }


def _source_groups(
    storage: Storage, role: str, source: str, config: RunConfig, check: _SchemaCheck
) -> list[Group]:
    folder = f"{role}/{source}/"
    objects = [info for info in storage.list(folder) if info.key.endswith(_SUFFIX)]
    if not objects:
        known = sorted({info.key.split("/")[1] for info in storage.list(f"{role}/")})
        raise InputError(
            f"{storage.uri(folder)} holds no {_SUFFIX} shards: "
            f"name one of {known or 'none yet'} or upload the shards"
        )
    with ThreadPoolExecutor(_READERS) as readers:
        shards = list(readers.map(lambda info: _read_footer(storage, role, source, info, check), objects))
    return pack(shards, config.plan.group_bytes)


def _read_footer(storage: Storage, role: str, source: str, info: ObjectInfo, check: _SchemaCheck) -> Shard:
    where = storage.uri(info.key)
    try:
        with pq.ParquetFile(pa.PythonFile(storage.open(info), mode="r")) as file:
            count, schema = file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("shard=%s is not readable as Parquet: its embed unit will fail: %s", where, error)
        count = UNREADABLE
    else:
        check(schema, where)
    return Shard(role=role, source=source, key=info.key, etag=info.etag, size=info.size, rows=count)


def pack(shards: Iterable[Shard], group_bytes: int) -> list[Group]:
    """Pack shards, in the order of their keys, into groups of at most ``group_bytes``."""
    groups: list[list[Shard]] = []
    room = 0
    for shard in sorted(shards, key=lambda shard: shard.key):
        if not groups or shard.size > room:
            groups.append([])
            room = group_bytes
        groups[-1].append(shard)
        room -= shard.size
    return [Group(shards=tuple(group)) for group in groups]


def _within_fanout(groups: list[Group], max_fanout: int) -> tuple[Group, ...]:
    """Join groups of one source until there are at most ``max_fanout``."""
    by_source: dict[tuple[str, str], list[Shard]] = {}
    for group in groups:
        first = group.shards[0]
        by_source.setdefault((first.role, first.source), []).extend(group.shards)
    if len(by_source) > max_fanout:
        raise InputError(f"plan.max_fanout={max_fanout} is less than the {len(by_source)} sources: raise it")
    total = sum(shard.size for shards in by_source.values() for shard in shards)
    size = max(total // max_fanout, 1)
    while len(groups) > max_fanout:
        groups = [group for shards in by_source.values() for group in pack(shards, size)]
        size += size // 4 + 1
    return tuple(groups)
