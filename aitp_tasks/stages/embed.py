"""embed: texts of the shards of one group become vectors and moments.

Reads the group's shards, page by page. Writes, under
``embeddings/<encoder digest>/<shard digest>/``, chunks of vectors, the rows that
were quarantined, moments, the texts of a corpus shard that the sample will probably
draw, and last the manifest; then, for the run, which version
of each shard was used. The shard is the unit of caching: one that was embedded
before, in whatever run, is not read again. Within a shard a unit that was killed
goes on after its last chunk. Moments of a group are summed once, under
``embeddings/<encoder digest>/moments/``.
"""

import logging
import operator
from collections.abc import Iterator
from functools import cached_property, reduce
from typing import Any

from aitp_tasks.config import RunConfig
from aitp_tasks.densities.moments import Moments
from aitp_tasks.encoder import pipeline
from aitp_tasks.encoder.opened import Encoder, open_encoder
from aitp_tasks.encoder.progress import Progress
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.inputs import parts, shards
from aitp_tasks.inputs.forms.rows import NOT_PREFERRED
from aitp_tasks.machine import devices
from aitp_tasks.records import damage, earlier, embedded, manifest, vectors, versions
from aitp_tasks.records.kept import Keeper, share
from aitp_tasks.records.manifest import Ledger, Manifest, Stopwatch
from aitp_tasks.records.plan import UNKNOWN_ROWS, Group, Shard
from aitp_tasks.records.run import Run
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage

log = logging.getLogger(__name__)

#: How often a shard that is replaced while it is read is begun anew.
_RESTARTS = 3
#: The version of a shard that was read, and its manifest.
_Done = tuple[ObjectInfo, Manifest]


def execute(run: Run, unit: int) -> dict[str, Any]:
    """Embed the shards of one group.

    Raises:
        InputError: a shard is not Parquet, or changed after this run used it;
            the group's other shards are embedded first.
        BudgetExceededError: too many rows of a shard were quarantined. Of a dump, as many
            shards may fail in either way as ``plan.shard_budget`` says.
    """
    watch = Stopwatch()
    group = run.group(unit)
    log.info("embed label=%s shards=%d", group.label, len(group.shards))
    progress = Progress(group.label, _planned_rows(group))
    result = _commit(run, group, *_embed_all(run, group, progress, watch), watch, progress)
    assert result.ledger is not None
    return {
        "stage": "embed",
        "run": run.uri,
        "label": group.label,
        "rows_in": result.ledger.rows_in,
        "rows_out": result.ledger.rows_out,
        "rows_quarantined": result.ledger.rows_quarantined,
        "rows_rejected": sum(result.ledger.rejected.values()),
        "rows_embedded_now": progress.rows,
        "shards_failed": len(result.figures.get(embedded.FAILED, [])),
        "seconds": watch.seconds(),
    }


def _planned_rows(group: Group) -> int | None:
    """Rows of all shards; None where those of one are not known."""
    rows = [shard.rows for shard in group.shards]
    return None if UNKNOWN_ROWS in rows else sum(rows)


def _embed_all(
    run: Run, group: Group, progress: Progress, watch: Stopwatch
) -> tuple[list[_Done], dict[str, str]]:
    """Embed every shard; why some have failed, if the run may go on without them.

    One that fails holds up no other, but fails the group at the end where it may not.
    """
    embedder = _ShardEmbedder(run, progress)
    done: list[_Done] = []
    failures: dict[str, InputError | BudgetExceededError] = {}
    for number, shard in enumerate(group.shards, 1):
        try:
            done.append(embedder.embed(shard))
        except (InputError, BudgetExceededError) as error:
            log.error("shard=%s failed: %s", shard.key, error)
            failures[shard.key] = error
        log.info(
            "embed label=%s shards_done=%d of=%d seconds=%s",
            group.label,
            number,
            len(group.shards),
            watch.seconds(),
        )
    if len(failures) > embedded.failures_allowed(run, group.role):
        told = list(failures.values())
        raise type(told[0])("; ".join(map(str, told)))
    return done, {key: str(error) for key, error in failures.items()}


class _ShardEmbedder:
    """Embeds shards one after another; loads the encoder when the first needs it."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._encoder: Encoder | None = None

    def embed(self, shard: Shard) -> _Done:
        """Embed one shard, or find that it was done before."""
        for _ in range(_RESTARTS):
            try:
                return self._embed(shard)
            except ObjectChangedError as error:
                log.warning("shard=%s is begun anew: %s", shard.key, error)
        return self._embed(shard)

    def _embed(self, shard: Shard) -> _Done:
        storage, config = self._run.storage, self._run.config
        info = parts.find(storage, shard.key)
        if info is None:
            raise InputError(
                f"{storage.uri(shard.key)} is not there any more, though it was when the run was planned: "
                "upload it again, then clear this task; or clear plan to do without it"
            )
        parts.require_planned(info, shard.etag, storage.uri(shard.key))
        key = _manifest_key(self._run, shard.role, info)
        done = manifest.load(storage, key)
        if done is None:
            prefix = embedded.shard_prefix(self._run, shard.role, info.key, info.etag)
            reader = shards.reader(storage, info, shard.role, config)
            made = pipeline.embed(
                storage,
                shard,
                reader,
                prefix,
                self._open,
                self._progress,
                self._keeper(shard.role),
                self._known_pairs if shard.source == versions.source(config.assemble.dataset) else {},
            )
            done = manifest.commit(storage, key, made)
        else:
            self._progress.skip(max(shard.rows, 0))
        assert done.ledger is not None
        where = storage.uri(shard.key), storage.uri(done.outputs.get("quarantine", key))
        commonest = str(done.figures.get("commonest_refusal", ""))
        budget = _budget(config, shard.role)
        done.ledger.check_usable(*where, commonest, blank=budget >= 1)
        done.ledger.check_budget(budget, *where, commonest)
        done.ledger.check_rejected(where[0], NOT_PREFERRED, done.figures.get("first_rejected", {}))
        return info, done

    def _keeper(self, role: str) -> Keeper | None:
        """What keeps the texts that this run's sample probably draws."""
        settings = self._run.config.difference
        kept = self._kept_share if role == "corpus" else 0.0
        return Keeper(settings.seed, kept) if kept else None

    @cached_property
    def _kept_share(self) -> float:
        groups = self._run.plan.groups_of("corpus")
        documents = sum(max(shard.rows, 0) for group in groups for shard in group.shards)
        return share(self._run.config.difference.max_documents, documents)

    @cached_property
    def _known_pairs(self) -> dict[str, vectors.Values]:
        """Vectors of the pairs that the version before had from its own base: all but those that it made."""
        base = self._run.plan.base
        assert base is not None
        try:
            before = Run.open(self._run.storage.uri(base.run))
            same = before.plan.encoder_digest == self._run.plan.encoder_digest
            return dict(earlier.known_vectors(before)) if same else {}
        except InputError as error:
            log.info("all earlier pairs are embedded: %s", error)
            return {}

    def _open(self) -> Encoder:
        if self._encoder is None:
            self._encoder = open_encoder(self._run.config.encoder, self._run.plan.encoder_identity)
        return self._encoder


def _budget(config: RunConfig, role: str) -> float:
    """The share of a shard's rows that may be quarantined."""
    own = config.examples.failure_budget if role == "sft" else None
    return config.failure_budget if own is None else own


def _manifest_key(run: Run, role: str, info: ObjectInfo) -> str:
    return f"{embedded.shard_prefix(run, role, info.key, info.etag)}/manifest.json"


def _commit(
    run: Run,
    group: Group,
    done: list[_Done],
    failed: dict[str, str],
    watch: Stopwatch,
    progress: Progress,
) -> Manifest:
    # The version that was read, not the one that was planned: a shard that was
    # broken and replaced completes this very run.
    used = {info.key: _manifest_key(run, group.role, info) for info, _ in done}
    made = [shard for _, shard in done]
    ledger = _sum(made)
    if ledger.rows_out:
        _write_moments(run, used, made)
    mine = Manifest(
        stage="embed",
        label=group.label,
        ledger=ledger,
        outputs=used,
        figures={
            **progress.figures(),
            **devices.figures(served=run.config.encoder.endpoint is not None),
            **_inputs(made),
            **({embedded.FAILED: failed} if failed else {}),
        },
        seconds=watch.seconds(),
        peak_memory_mb=watch.peak_memory_mb(),
    )
    standing = run.commit(mine, group.digest)
    left_out = sorted(used.keys() - standing.outputs.keys())
    if left_out:
        raise InputError(
            f"{run.storage.uri(left_out[0])} could not be embedded before, and this run has gone on without "
            "it (plan.shard_budget): start a new run, which reuses all that is unchanged"
        )
    changed = sorted(key for key in used if standing.outputs[key] != used[key])
    if changed:
        raise InputError(
            f"{run.storage.uri(changed[0])} changed after this run had embedded it: start a new run, "
            "which reuses all that is unchanged"
        )
    return standing


def _sum(made: list[Manifest]) -> Ledger:
    ledger = Ledger(rows_in=0, rows_out=0)
    for shard in made:
        assert shard.ledger is not None
        ledger = ledger.plus(shard.ledger)
    return ledger


def _write_moments(run: Run, used: dict[str, str], made: list[Manifest]) -> None:
    """Sum the shards' moments, so that merge need not read those of each."""
    key = embedded.moments_key(run, used.values())
    if run.storage.find(key) is None:
        sums = (some for shard in made for some in _moments(run.storage, shard))
        run.storage.write_if_absent(key, reduce(operator.add, sums).to_bytes())


def _moments(storage: Storage, shard: Manifest) -> Iterator[Moments]:
    """A shard's moments as stored, or those of its chunks."""
    if "moments" in shard.outputs:
        yield damage.read(storage, shard.output("moments"), Moments.from_bytes)
        return
    for key in embedded.chunk_keys(shard):
        found = vectors.read(storage, key)
        if len(found):
            yield Moments.of(found.values)


def _inputs(made: list[Manifest]) -> dict[str, Any]:
    """What the group's shards hold, as they were read."""
    sums = {
        name: sum(int(shard.figures[name]) for shard in made)
        for name in ("tokens", "truncated_texts", "repeated_texts")
    }
    not_kept: dict[str, int] = {}
    first_rejected: dict[str, str] = {}
    for shard in made:
        not_kept = manifest.add_counts(not_kept, shard.figures.get("not_kept", {}))
        for reason, first in shard.figures.get("first_rejected", {}).items():
            first_rejected.setdefault(reason, f"{shard.figures['shard']} {first}")
    return {
        "forms": sorted({str(shard.figures["form"]) for shard in made}),
        "not_kept": not_kept,
        "first_rejected": first_rejected,
        **sums,
    }
