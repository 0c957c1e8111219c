"""What no kept run and no version refers to."""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aitp_tasks.evaluation import baseline
from aitp_tasks.generation import stored
from aitp_tasks.records import data_files, embedded, manifest, published, selected
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import RUNS, Run
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import ObjectInfo, Storage
from aitp_tasks.tools.gc.runs import Runs

log = logging.getLogger(__name__)

#: Of what belongs to lines: pairs that were the input of runs, and what later runs need of versions.
_OF_LINES = re.compile(
    r"(remaining/pairs|records/pairs|records/corpus-grid)-[0-9a-f]{32}\.(parquet|safetensors)"
)
#: On which version inputs were planned, and whether they have changed nothing of it.
_NOTES = re.compile(r"plans/([0-9a-f]{32})(-unchanged-.*)?\.json")
#: Where what is kept by content lies; of all else only what the functions below name is ever deleted.
_BY_CONTENT = ("embeddings", "density", "index")
#: What the folders below these are called: by the digest of an encoder or a geometry, or so.
_OURS = re.compile("[0-9a-f]{32}|discriminants|log-ratios")
_TRIED = ("assemble", "finetune")
#: That plan may take from what it writes to the plan that names it, and much more.
_PLANNING_SECONDS = 3600.0
#: Stages that train.
_TRAINING = ("finetune", "evaluate")


@dataclass
class Waste:
    """What can be deleted.

    Attributes:
        objects: each with its kind.
        partly: objects of responses of which some are asked for, with the ids that are.
        responses: how many rows of these can be dropped.
    """

    objects: list[tuple[str, ObjectInfo]] = field(default_factory=list)
    partly: list[stored.Partly] = field(default_factory=list)
    responses: int = 0


def waste(storage: Storage, runs: Runs, before: float) -> Waste:
    """Look for it; objects that were written after ``before`` are kept."""
    kept = [Run.open(storage.uri(prefix)) for prefix in (*runs.kept, *runs.unfinished)]
    unfinished = [run for run in kept if run.prefix in runs.unfinished]
    live = _Live(storage, kept, unfinished, runs.versions)
    found = Waste()
    for kind in _BY_CONTENT:
        old = (info for info, written in storage.list_dated(f"{kind}/") if written < before)
        found.objects += [(kind, info) for info in old if not live.holds(info.key)]
    notes = list[ObjectInfo]()
    for info, written in storage.list_dated("datasets/"):
        _, _, name = info.key.split("/", 2) if info.key.count("/") > 1 else ("", "", "")
        if written < before and _OF_LINES.fullmatch(name) and not live.names(info.key):
            # What names it comes last: the plan of pairs that remain, the version of what is recorded.
            if name.startswith("remaining/"):
                is_waste = written < storage.now() - _PLANNING_SECONDS
            else:
                is_waste = info.key.split("/")[1] not in live.making
            if is_waste:
                found.objects.append((name.partition("/")[0], info))
        elif written < before and _NOTES.fullmatch(name):
            notes.append(info)
    found.objects += [("plans", info) for info in _of_given_up(storage, notes, kept, runs.others)]
    found.objects += [("attempts", info) for info in _tries(storage, runs, before)]
    found.objects += [("states", info) for info in _states(storage, runs, before)]
    found.objects += [("baselines", info) for info in _baselines(storage, kept, unfinished, before)]
    _add_responses(storage, found, kept, before)
    return found


def rewrite(storage: Storage, waste: Waste) -> None:
    """Write the objects anew of which only some responses are asked for, without the others."""
    for partly in waste.partly:
        stored.keep_only(storage, partly)


class _Live:
    """All keys below ``embeddings/``, ``density/`` and ``index/`` that somebody refers to."""

    def __init__(
        self, storage: Storage, kept: list[Run], unfinished: list[Run], versions: Iterable[Version]
    ) -> None:
        self._storage = storage
        self._keys = {key for version in versions for key in _named(version)}
        self._prefixes = set[str]()
        for run in kept:
            self._keys.update(shard.key for group in run.plan.groups for shard in group.shards)
            self._keys.update(_used(run))
            # A version that is committed may not have been written yet.
            self._keys.update(_of(run, run.find_manifest("assemble")))
            for group in run.plan.groups:
                self._prefixes.update(
                    embedded.shard_prefix(run, group.role, shard.key, shard.etag) for shard in group.shards
                )
        #: Keys and tags of the shards of unfinished runs, and which encoders those have.
        self._shards = {
            (shard.key, shard.etag)
            for run in unfinished
            for group in run.plan.groups
            for shard in group.shards
        }
        self._encoders = {run.plan.encoder_digest for run in unfinished}
        #: Lines of which a version may be in the making.
        self.making = {
            run.config.assemble.dataset for run in unfinished if run.find_manifest("assemble") is None
        }

    def names(self, key: str) -> bool:
        """Whether a version, or a kept run, names an object."""
        return key in self._keys

    def holds(self, key: str) -> bool:
        """Whether an object of what is kept by content is referred to, or may come to be."""
        kind, *parts = key.split("/")
        if key in self._keys or any(
            "/".join(key.split("/")[:n]) in self._prefixes for n in range(2, len(parts) + 1)
        ):
            return True
        if len(parts) < 2 or not _OURS.fullmatch(parts[0]):
            # Nobody here has written it.
            return True
        if kind == "index":
            # Built, or trained, by a run that has not told of it yet.
            return parts[0] in self._encoders
        return kind in ("density", "embeddings") and bool(self._shards) and self._may_be_used(key)

    def _may_be_used(self, key: str) -> bool:
        """Whether a run that is not finished may find an object as made already."""
        kind, *parts = key.split("/")
        if kind == "embeddings":
            return parts[1] == "moments" and parts[0] in self._encoders
        if parts[0] in ("discriminants", "log-ratios") or parts[-1] == "geometry.safetensors":
            return True
        made = manifest.load(self._storage, f"density/{parts[0]}/{parts[1].removesuffix('.json')}.json")
        # What has no manifest yet is being made.
        return made is None or (made.figures.get("shard"), made.figures.get("etag")) in self._shards


def _named(version: Version) -> Iterator[str]:
    yield from (*version.pairs, version.geometry.key, version.geometry.corpus_grid)
    if version.corpus is not None:
        yield version.corpus


def _used(run: Run) -> Iterator[str]:
    """Keys outside the run that its manifests name, and that those name in turn."""
    for stage in ("merge", "index"):
        yield from _of(run, run.find_manifest(stage))
    for group in run.plan.groups:
        for stage in ("embed", "density"):
            done = run.find_manifest(stage, group.digest)
            yield from _of(run, done)
            if stage == "embed" and done is not None:
                yield embedded.moments_key(run, done.outputs.values())


def _of(run: Run, done: Manifest | None) -> Iterator[str]:
    for name, key in (done.outputs if done else {}).items():
        yield key
        if name.endswith(("_index", "_places", "_lists")):
            # An index's manifest lies beside its folder.
            yield f"{key.rpartition('/')[0]}.json"
        elif name.startswith("shard-") or key.endswith("/manifest.json"):
            yield from _of(run, manifest.load(run.storage, key))


def _of_given_up(
    storage: Storage, notes: list[ObjectInfo], kept: list[Run], others: Iterable[str]
) -> list[ObjectInfo]:
    """The notes on inputs that no run has: it was never planned to its end, or was given up."""
    if not notes:
        return []
    used = {run.plan.inputs for run in kept} | {_inputs(storage, prefix) for prefix in others}
    # A plan of an earlier release does not say which inputs it is of.
    if "" in used:
        return []
    return [info for info in notes if (said := _NOTES.search(info.key)) and said[1] not in used]


def _inputs(storage: Storage, prefix: str) -> str:
    """Digest of the inputs of a finished run; its plan may be large, and is the last place to look."""
    done = manifest.load(storage, f"{prefix}/assemble/manifest.json")
    told = done.figures.get("inputs") if done else None
    return str(told) if told is not None else Run.open(storage.uri(prefix)).plan.inputs


def _states(storage: Storage, runs: Runs, before: float) -> Iterator[ObjectInfo]:
    """The states of trainings, but for those of runs that may go on."""
    for info, written in storage.list_dated(f"{RUNS}/"):
        parts = info.key.split("/")
        of_training = len(parts) == 7 and parts[3] in _TRAINING and parts[4] == "states"
        if of_training and written < before and "/".join(parts[:3]) not in runs.unfinished:
            yield info


def _baselines(
    storage: Storage, kept: list[Run], unfinished: list[Run], before: float
) -> Iterator[ObjectInfo]:
    """Fine-tunes on SFT sets alone that no kept run was compared with, and tries at them."""
    if any(run.config.evaluate.held_out for run in unfinished):
        # Which it will be compared with is not known before it has trained.
        return
    used = {prefix for run in kept if (prefix := baseline.used(run)) is not None}
    manifests = {f"{prefix.rpartition('/')[0]}.json" for prefix in used}
    for info, written in storage.list_dated(f"{baseline.FOLDER}/"):
        prefix = "/".join(info.key.split("/")[:3])
        ours = _OURS.fullmatch(info.key.split("/")[1].removesuffix(".json"))
        if ours and written < before and prefix not in used | manifests:
            yield info


def _tries(storage: Storage, runs: Runs, before: float) -> Iterator[ObjectInfo]:
    """What tries have written, but for those that may be at work, or whose objects lack names yet."""
    found = dict[str, list[tuple[ObjectInfo, float]]]()
    for info, written in storage.list_dated(f"{RUNS}/"):
        parts = info.key.split("/")
        if len(parts) > 5 and parts[3] in _TRIED and parts[4].startswith("attempt-"):
            found.setdefault("/".join(parts[:5]), []).append((info, written))
    for prefix, objects in found.items():
        stage = prefix.rpartition("/")[0]
        done = manifest.load(storage, f"{stage}/manifest.json")
        if done is None and prefix.rpartition("/")[0].rpartition("/")[0] in runs.unfinished:
            continue
        old = all(written < before for _, written in objects)
        names = [info.key.removeprefix(f"{prefix}/") for info, _ in objects]
        if not old or (done is not None and not _is_second_copy(storage, done, prefix, names)):
            continue
        yield from (info for info, _ in objects)


def _is_second_copy(storage: Storage, done: Manifest, prefix: str, names: list[str]) -> bool:
    """Whether a try is not the one that counts, or all that it has made has its name."""
    if done.outputs.get(published.ATTEMPT) != prefix:
        return True
    mark = storage.read_tagged(f"{prefix.rpartition('/')[0]}/{published.MARK}")
    if mark is None or mark.data.decode("ascii", "replace") != prefix:
        return False
    target = done.outputs.get("checkpoint") or data_files.folder(done)
    return all(storage.find(f"{target}/{name}") is not None for name in names)


def _add_responses(storage: Storage, found: Waste, kept: list[Run], before: float) -> None:
    """Of the responses, those to requests that no kept run makes."""
    wanted, all_of = dict[str, set[str]](), set[str]()
    for run in kept:
        prefixes = {prefix for prompt in run.plan.prompts for prefix in _responses(run, prompt)}
        if run.find_manifest("difference") is None or not selected.is_allotted(run):
            # Which documents it will ask for is not known yet.
            all_of.update(prefixes)
            continue
        documents = {row["doc_id"] for part in run.parts for row in selected.documents(run, part, ["doc_id"])}
        for prefix in prefixes:
            wanted.setdefault(prefix, set()).update(documents)
    for info, written in storage.list_dated("generations/"):
        prefix = info.key.rpartition("/")[0] + "/"
        if written >= before or prefix in all_of:
            continue
        if not stored.is_one(prefix, info):
            log.warning("object=%r is none of the responses: it is left alone", info.key)
            continue
        partly = stored.partly(storage, prefix, info, wanted.get(prefix, set()))
        if partly is None:
            continue
        if partly.kept == 0:
            found.objects.append(("generations", info))
        elif partly.kept < partly.rows:
            found.partly.append(partly)
        found.responses += partly.rows - partly.kept


def _responses(run: Run, prompt: str) -> set[str]:
    return stored.prefixes(prompt, run.plan.prompts[prompt], run.config, run.plan.engine_identity)
