"""plan: list the shards, check them by their footers, pack them into units, freeze the run, estimate it.

Reads the listing of ``corpus/<dump>/`` and ``sft/<name>/``, of each Parquet shard the
footer only, of other corpus shards the head, and counts the rows of such SFT shards, if no
earlier plan has (see ``footers``); and the pairs of the version that the run builds on, if some were
marked bad, their prompt was withdrawn or documents are held out. Writes
``runs/<dump>/<digest>/plan.json``. What the run will take is learnt from the manifests of
earlier runs (see ``forecast``). A shard whose footer cannot be read stays in
the plan: it fails its own embed unit and no other.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from aitp_tasks.config import Marks, Refit, Require, RunConfig, UnknownFiles
from aitp_tasks.config.engine import gpus
from aitp_tasks.dataset import budget, template
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import benchmarks, task_files
from aitp_tasks.forecast import limits, table, told, toys
from aitp_tasks.forecast.learned import learn, rehearsed
from aitp_tasks.forecast.work import Done, Sizes
from aitp_tasks.generation import checks, prompt_files, ranking
from aitp_tasks.inputs import agreement, footers, formats, listing, parts
from aitp_tasks.inputs.footers import Footer
from aitp_tasks.inputs.forms import heads
from aitp_tasks.machine import devices, models, pods
from aitp_tasks.records import pairs, versions
from aitp_tasks.records.manifest import Stopwatch
from aitp_tasks.records.plan import UNKNOWN_ROWS, Group, Plan, Shard, Unread
from aitp_tasks.records.run import Run
from aitp_tasks.selection.contamination import sets
from aitp_tasks.storage import ObjectInfo, Storage, open_storage
from aitp_tasks.training import checks as training_checks
from aitp_tasks.training import memory

log = logging.getLogger(__name__)

#: Names of what is not read that the plan keeps of each folder.
_NAMES_KEPT = 20
#: What a task may hand on; where names are very long, the estimate is cut.
_RESULT_BYTES = 1024
_NO_ESTIMATE = len(json.dumps({"estimate": ""}))
#: Of the names of dumps, which the run's URI has whole.
_LABEL_CHARACTERS = 60


def execute(config: RunConfig, check: bool = False, estimated: bool = True) -> dict[str, Any]:
    """Plan a run.

    Args:
        config: of the run.
        check: only look whether the run could be planned, and write no plan.
        estimated: tell what it will take, and refuse it where that is more than it may.

    Returns:
        The result: the run's URI, how many embed units it has, how many documents; the room for pairs; and
        settings that only suit a tiny model.

    Raises:
        InputError: no bucket, a store without conditional writes, no such dump, SFT set or
            base version, columns missing from shards (all such shards are counted), shards that are not
            what their ending says, a model folder or a prompt that is not there, a prompt that leaves no
            room for a document; or the run would take more than ``plan.max_gpu_hours`` or
            ``plan.max_cost``.
    """
    watch = Stopwatch()
    storage = open_storage(config.root)
    storage.require_conditional_writes()
    config = _pinned(config)
    sources, unread = _sources(storage, config)
    run = _planned(storage, config, sources, unread, check)
    shards = [shard for group in run.plan.groups for shard in group.shards]
    documents = sum(max(shard.rows, 0) for shard in shards if shard.role == "corpus")
    estimated_rows = any(shard.estimated for shard in shards)
    log.info(
        "plan shards=%d units=%d documents=%s%d",
        *(len(shards), len(run.plan.groups), "about " if estimated_rows else "", documents),
    )
    places = _places(run.plan)
    named = _toys(config, shards)
    estimate = _estimate(run, watch) if estimated else ""
    if not check:
        # Only now: a run that is refused leaves no plan.
        run = Run.create(storage, run.plan)
    result: dict[str, Any] = {
        "stage": "plan",
        "checked": check,
        "run": run.uri,
        "label": config.dump[:_LABEL_CHARACTERS],
        "embed_units": len(run.plan.groups),
        "documents": documents,
        "documents_estimated": estimated_rows,
        "objects_not_read": sum(folder.objects for folder in run.plan.unread),
        "objects_left_out": sum(sum(folder.skipped.values()) for folder in run.plan.unread),
        "base": run.plan.base and run.plan.base.name,
        **places,
        "seconds": watch.seconds(),
    }
    result |= {"toy_settings": _fitting(named, _RESULT_BYTES - len(json.dumps(result)) - _NO_ESTIMATE)}
    return result | {"estimate": _cut(estimate, _RESULT_BYTES - len(json.dumps(result)))}


def _pinned(config: RunConfig) -> RunConfig:
    """The configuration with hub models by commit: a branch may be another one when a stage begins."""
    return config.model_copy(
        update={name: models.pinned(getattr(config, name)) for name in ("encoder", "engine", "finetune")}
    )


def _cut(text: str, room: int) -> str:
    """A text as far as there is room for it, with its name, among what a task hands on."""
    while text and len(json.dumps({"estimate": text})) > room:
        text = text[:-1]
    return text


def _toys(config: RunConfig, shards: Iterable[Shard]) -> list[str]:
    """Tell which settings only suit something smaller than this run; their names and values."""
    found = toys.found(config, toys.Scale.of(config, shards))
    for toy in found:
        log.warning("%s", toy)
    return [toy.name for toy in found]


def _fitting(names: list[str], room: int) -> list[str]:
    """As many names as there is room for among what a task hands on; the log has all."""
    while names and len(json.dumps({"toy_settings": names})) > room:
        names = names[:-1]
    return names


def _estimate(run: Run, watch: Stopwatch) -> str:
    """Tell what the run will take, by earlier runs; in one line.

    Raises:
        InputError: it is more than it may be.
    """
    settings = run.config.plan
    learned = learn(run, rehearsed(run.storage, run.config.assemble.dataset))
    told_of = told.tell(
        run,
        learned,
        Sizes.of(run.plan),
        Done.of(run),
        watch.seconds(),
        settings.price_per_gpu_hour,
        max(len(devices.visible()), 1),
    )
    for line in table.render(told_of).splitlines():
        if line:
            log.info("estimate %s", line)
    limits.check(settings, told_of)
    return told.line(told_of)


def _places(plan: Plan) -> dict[str, int | None]:
    """Room for rewritten pairs beside the SFT set as it is now, and how many pairs there are.

    None where a damaged shard does not say how many examples it holds, and where there is no limit.
    """
    earlier = sum(shard.rows for group in plan.groups_of_pairs for shard in group.shards)
    sft = [group for group in plan.groups_of("sft") if group.source == plan.config.sft]
    examples = [shard.rows for group in sft for shard in group.shards]
    share = plan.config.assemble.max_rewritten_share
    learnt = budget.trained_on(sum(examples), plan.config.evaluate.held_out)
    room = None if UNKNOWN_ROWS in examples else budget.room(learnt, share)
    log.info(
        "plan sft_examples=%d max_rewritten_share=%g room=%s earlier_pairs=%d left=%d",
        *(sum(examples), share, "any" if room is None else room, earlier, len(plan.left)),
    )
    if room is not None and earlier >= room:
        log.warning(
            "the dataset is full: room for %d rewritten pairs, %d are there; new pairs compete with them",
            room,
            earlier,
        )
    return {"room": room, "earlier_pairs": earlier}


def _planned(
    storage: Storage, config: RunConfig, sources: list[list[Shard]], unread: list[Unread], check: bool
) -> Run:
    """The run of these inputs, on the version that they build on; its plan is not stored yet."""
    training_checks.require_deepspeed(config.finetune)
    training_checks.require_quantising(config.finetune)
    training_checks.require_trackers(config.finetune)
    inputs = Plan(
        config=config,
        encoder_identity=models.identity(config.encoder),
        engine_identity=models.identity(config.engine),
        finetune_identity=models.identity(config.finetune),
        prompts=prompt_files.load_folder(config.prompts, judged=config.gates.min_faithfulness is not None),
        groups=units(sources, config.plan.group_bytes, config.plan.max_fanout),
        marked_bad=pairs.marked_bad(storage, config.assemble.dataset),
        tasks_identity=task_files.identity(config.evaluate),
        unread=tuple(unread),
        evaluation=sets.planned(
            storage,
            config.contamination,
            [shard for shards in sources for shard in shards if shard.role == "sft"],
        ),
        card=template.load(config.assemble.card),
    )

    if check or not versions.was_planned(storage, config.assemble.dataset, inputs.digest):
        checks.require_room(config.engine, inputs.prompts)
        checks.require_memory(config.engine)
        checks.require_speculation(config.engine)
        if config.prompts.answers_per_question > 1:
            ranking.require(config.finetune, int(inputs.prompts["answer"].sampling["max_tokens"]))
        _require_pods(config)
        training_checks.require_template(config.finetune)
        training_checks.require_packing(config.finetune)
        memory.require(config.finetune)
        # Their rows have to be where evaluate runs.
        benchmarks.require(config.evaluate, load=False)
        if config.finetune.nodes > 1 and config.evaluate.held_out:
            memory.require(config.finetune.on_one_machine, "evaluate's training on one machine")

    def made_on(base: versions.Version | None) -> str:
        plan = _on(storage, inputs, sources, base)
        return plan.version(plan.digest)

    line, name = config.assemble.dataset, config.assemble.base
    base = (
        versions.named(storage, line, name)
        if check
        else versions.base(storage, line, name, inputs.digest, made_on)
    )
    plan = _on(storage, inputs, sources, base)
    return Run(storage, plan, plan.digest)


def _require_pods(config: RunConfig) -> None:
    """Refuse pod templates in which a stage would not find the GPUs that it leases."""
    engine = 0 if config.engine.endpoint else gpus(config.engine.engine_args)
    leased = {
        "encoder": 0 if config.encoder.endpoint else 1,
        # Several answers are ranked by the base model, whoever has given them.
        "engine": max(engine, int(config.prompts.answers_per_question > 1)),
        "finetune": config.finetune.processes,
    }
    for name, count in leased.items():
        template = getattr(config.workers, name).pod_template
        if template is not None:
            known = config.devices.require is Require.GPU
            pods.require(template, f"workers.{name}.pod_template", count if known else None)


def _sources(storage: Storage, config: RunConfig) -> tuple[list[list[Shard]], list[Unread]]:
    """The shards of each dump and of the SFT set, and what lies beside them."""
    sources, problems, unread = [], [], []
    for role, source in [*(("corpus", dump) for dump in config.dumps), ("sft", config.sft)]:
        found = listing.read(storage, role, source)
        if named := found.named():
            log.log(logging.WARNING if found.unknown else logging.INFO, "%s/%s: %s", role, source, named)
            unread.append(
                Unread(
                    folder=f"{role}/{source}/",
                    objects=len(found.unknown),
                    first=tuple(found.unknown[:_NAMES_KEPT]),
                    skipped=found.skipped,
                )
            )
        if found.unknown and config.plan.unknown_files is UnknownFiles.REFUSE:
            problems.append(
                f"{storage.uri(f'{role}/{source}/')}: {found.named()}: take them away, let their names end "
                f"in {formats.READ}, or set plan.unknown_files=warn"
            )
        read = footers.read(storage, role, source, found.shards)
        if all(footer is not None and footer.rows == 0 for footer in read):
            log.warning("%s/%s: none of its %d shards has a row", role, source, len(read))
        sources.append(_shards(role, source, found.shards, read, config.plan.group_bytes))
        problems += agreement.problems(storage, role, found.shards, read, config)
        problems += heads.problems(storage, found.shards, config) if role == "sft" else []
    if problems:
        raise InputError(agreement.told(problems))
    return sources, unread


def _shards(
    role: str, source: str, objects: Iterable[ObjectInfo], found: Iterable[Footer | None], part_bytes: int
) -> list[Shard]:
    """The shards of some objects; of a corpus, large ones that can be are cut into parts."""
    shards = []
    for info, footer in zip(objects, found, strict=True):
        rows = footer.rows if footer else UNKNOWN_ROWS
        cut = list(parts.cut(info, part_bytes)) if role == "corpus" else [info]
        for part in cut:
            whole = len(cut) == 1 or rows == UNKNOWN_ROWS
            share = rows if whole else round(rows * part.size / info.size)
            estimated = footer is not None and (footer.estimated or not whole)
            shards.append(Shard(role, source, part.key, part.etag, part.size, share, estimated))
    return shards


def _on(storage: Storage, inputs: Plan, sources: list[list[Shard]], base: versions.Version | None) -> Plan:
    """The plan of these inputs on a version: with its pairs as one more source, and its geometry."""
    inputs = inputs.model_copy(update={"inputs": inputs.digest})
    if base is None:
        return inputs
    config = inputs.config
    keys, left = _remaining(storage, inputs, base)
    if keys:
        source = versions.source(config.assemble.dataset)
        objects = [storage.stat(key) for key in keys]
        read = footers.read(storage, "sft", source, objects)
        sources = [*sources, _shards("sft", source, objects, read, config.plan.group_bytes)]
    groups = units(sources, config.plan.group_bytes, config.plan.max_fanout)
    return inputs.model_copy(
        update={
            "groups": groups,
            "base": base,
            "geometry": _kept_geometry(storage, inputs, base),
            "left": left,
        }
    )


def _remaining(
    storage: Storage, inputs: Plan, base: versions.Version
) -> tuple[Sequence[str], dict[str, str]]:
    """Keys of the base's pairs that nobody has decided against, and why the others leave."""
    settings, held_out = inputs.config.assemble, inputs.config.evaluate.held_out
    decided = inputs.marked_bad or settings.withdrawn_prompts or held_out or settings.marks is Marks.DROP
    rows = pairs.read(storage, base.pairs) if decided else None
    if rows is None:
        return base.pairs, {}
    left = pairs.against(rows, inputs.marked_bad, settings.withdrawn_prompts, held_out, settings.marks)
    return (pairs.without(storage, settings.dataset, rows, left) if left else base.pairs), left


def _kept_geometry(storage: Storage, inputs: Plan, base: versions.Version) -> versions.Geometry | None:
    """The base's geometry, unless the run is to fit its own."""
    refit = inputs.config.density.refit
    if refit is Refit.ALWAYS:
        return None
    if base.geometry.identity != inputs.geometry_identity:
        if refit is Refit.NEVER:
            raise InputError(
                f"density.refit=never, but {base.name} was projected with another encoder or with other "
                "density settings: set density.refit=auto, or begin a line with another assemble.dataset"
            )
        log.info(
            "plan: %s has another encoder or other density settings: the projection is fitted anew", base.name
        )
        return None
    if refit is Refit.AUTO and versions.refit_is_due(storage, inputs.config.assemble.dataset, base):
        log.info("plan: a refit was due after %s: the projection is fitted anew", base.name)
        return None
    return base.geometry


def units(sources: Sequence[Sequence[Shard]], group_bytes: int, max_fanout: int) -> tuple[Group, ...]:
    """Pack the shards of each source into groups of ``group_bytes``, or into fewer of similar size.

    Where ``group_bytes`` makes more than ``max_fanout`` groups, each source gets a
    share of them by its bytes, and its groups are at most the mean and one shard long.

    Raises:
        InputError: there are more sources than groups allowed.
    """
    if len(sources) > max_fanout:
        raise InputError(f"plan.max_fanout={max_fanout} is less than the {len(sources)} sources: raise it")
    packed = [pack(shards, group_bytes) for shards in sources]
    if sum(map(len, packed)) > max_fanout:
        counts = _shares([sum(shard.size for shard in shards) for shards in sources], packed, max_fanout)
        packed = [_split(shards, count) for shards, count in zip(sources, counts, strict=True)]
    return tuple(chain(*packed))


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


def _shares(sizes: Sequence[int], packed: Sequence[Sequence[Group]], total: int) -> list[int]:
    """Of ``total`` groups, those of each source: one, and each further one to whose groups are largest."""
    counts = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        open_ones = [number for number, count in enumerate(counts) if count < len(packed[number])]
        counts[max(open_ones, key=lambda number: sizes[number] / counts[number])] += 1
    return counts


def _split(shards: Iterable[Shard], count: int) -> list[Group]:
    """Split shards, in the order of their keys, into just ``count`` groups of similar bytes."""
    ordered = sorted(shards, key=lambda shard: shard.key)
    total = max(sum(shard.size for shard in ordered), 1)
    groups: list[list[Shard]] = []
    before = 0
    for number, shard in enumerate(ordered):
        # A shard goes where its middle falls, unless that would leave a group without any.
        middle = min((2 * before + shard.size) * count // (2 * total), count - 1)
        if middle >= len(groups) or count - len(groups) >= len(ordered) - number:
            groups.append([])
        groups[-1].append(shard)
        before += shard.size
    return [Group(shards=tuple(group)) for group in groups]
