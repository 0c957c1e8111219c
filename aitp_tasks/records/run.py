"""A run: one frozen configuration over one frozen listing of its inputs.

``aitp plan`` freezes both into ``runs/<dump>/<digest>/plan.json``; every later
stage opens that run by its URI. The digest covers the configuration, the
content of models and prompts, and the shards with their entity tags: the same
inputs always lead to the same run, other inputs never do.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Criterion, LongTexts, RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, manifest, versions
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.storage import Storage, open_storage

RUNS = "runs"
_PLAN = "plan.json"
#: Rows of a shard whose footer cannot be read, or that is no Parquet.
UNKNOWN_ROWS = -1


class Frozen(BaseModel):
    """Base of what a plan is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file as the plan saw it; no model, because a plan can hold 100,000 of them."""

    role: str  # "corpus" or "sft"
    source: str  # the dump's or the SFT set's name
    key: str
    etag: str
    size: int  # bytes
    rows: int  # UNKNOWN_ROWS where no footer says it

    @property
    def name(self) -> str:
        """The file's name without folder and ``.parquet``."""
        return self.key.rpartition("/")[2].removesuffix(".parquet")


class Group(Frozen):
    """The shards of one unit of embed and density, all of one role and source."""

    shards: tuple[Shard, ...]

    @property
    def role(self) -> str:
        """``corpus`` or ``sft``."""
        return self.shards[0].role

    @property
    def source(self) -> str:
        """The dump, the SFT set, or the line of versions that the shards are of."""
        return self.shards[0].source

    @property
    def label(self) -> str:
        """What the unit holds, for people: source and shard range."""
        first, last = self.shards[0], self.shards[-1]
        return f"{first.source} {first.name}" + (f"–{last.name}" if first != last else "")

    @property
    def digest(self) -> str:
        """Identity of the group: its shards and their content, not its place in the plan."""
        return digest.of_value([[shard.key, shard.etag] for shard in self.shards])


class FrozenPrompt(Frozen):
    """One prompt as the plan saw it; see ``aitp_tasks.generation.prompt_files``."""

    name: str
    version: str
    template: str
    output_schema: dict[str, Any]
    sampling: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identity of the prompt: template, schema and sampling."""
        return digest.of_value([self.template, self.output_schema, self.sampling])


class Plan(Frozen):
    """Everything a run is determined by."""

    config: RunConfig
    encoder_identity: str
    engine_identity: str
    finetune_identity: str
    prompts: dict[str, FrozenPrompt]
    groups: tuple[Group, ...]
    #: The version that the run builds on; its pairs are among the groups.
    base: versions.Version | None = None
    #: Kept from that version; None where the run fits one of its own.
    geometry: versions.Geometry | None = None

    @property
    def digest(self) -> str:
        """The run's identity."""
        return digest.of_value(
            {
                "config": self.config.identity(),
                "models": [self.encoder_identity, self.engine_identity, self.finetune_identity],
                "prompts": {name: prompt.digest for name, prompt in self.prompts.items()},
                "groups": [group.digest for group in self.groups],
                "base": self.base and self.base.name,
                "geometry": self.geometry and self.geometry.key,
            }
        )

    @property
    def encoder_digest(self) -> str:
        """Identity of the encoder and of how it reads texts."""
        encoder = self.config.encoder
        rule: list[Any] = [self.encoder_identity, encoder.max_tokens, encoder.long_texts.value]
        if encoder.long_texts is LongTexts.WINDOWS:
            rule.append(encoder.max_windows)
        return digest.of_value(rule)

    @property
    def geometry_identity(self) -> str:
        """Identity of all that a projection and grid depend on, but for the corpus."""
        density = self.config.density
        by_itself = self.config.difference.criterion is Criterion.AUTHORS_COMPAT
        return digest.of_value(
            [self.encoder_digest, density.components, density.bandwidth, density.max_error, by_itself]
        )

    def version(self, run_digest: str) -> str:
        """Name of the dataset version that a run of this plan makes."""
        return f"{self.config.dump}-{run_digest[:12]}"


@dataclass(frozen=True)
class Run:
    """A planned run, opened for one of its stages."""

    storage: Storage
    plan: Plan
    #: The plan's digest when it was made; a later release of AITP may compute another.
    digest: str

    @classmethod
    def open(cls, uri: str) -> "Run":
        """Open the run at ``<root>/runs/<dump>/<digest>``.

        Raises:
            InputError: the URI is not a run's, or nothing was planned there.
        """
        root, separator, rest = uri.rstrip("/").rpartition(f"/{RUNS}/")
        if not separator or rest.count("/") != 1:
            raise InputError(
                f"run {uri!r} is not of the form <root>/runs/<dump>/<digest>: take it from `aitp plan`"
            )
        storage = open_storage(root)
        key = f"{RUNS}/{rest}"
        if storage.find(f"{key}/{_PLAN}") is None:
            raise InputError(f"there is no plan at {uri}: run `aitp plan` first")
        plan = Plan.model_validate_json(storage.read(f"{key}/{_PLAN}"))
        return cls(storage, plan, rest.partition("/")[2])

    @classmethod
    def create(cls, storage: Storage, plan: Plan) -> "Run":
        """Freeze a plan; the same plan a second time changes nothing.

        A plan of the same identity whose model folders lie elsewhere replaces the
        old one: only the places differ, never a result.
        """
        run = cls(storage, plan, plan.digest)
        key, data = f"{run.prefix}/{_PLAN}", plan.model_dump_json().encode()
        if not storage.write_if_absent(key, data) and storage.read(key) != data:
            storage.write(key, data)
        return run

    @property
    def config(self) -> RunConfig:
        """The frozen configuration."""
        return self.plan.config

    @property
    def prefix(self) -> str:
        """Prefix of the run's objects."""
        return f"{RUNS}/{self.config.dump}/{self.digest}"

    @property
    def uri(self) -> str:
        """The run's URI."""
        return self.storage.uri(self.prefix)

    def key(self, stage: str, name: str) -> str:
        """Key of one of the run's own objects."""
        return f"{self.prefix}/{stage}/{name}"

    def manifest_key(self, stage: str, unit: str | None = None) -> str:
        """Key of a stage's manifest, or of one of its units'."""
        return self.key(stage, f"{unit}.json" if unit else "manifest.json")

    def find_manifest(self, stage: str, unit: str | None = None) -> Manifest | None:
        """A manifest, or None when that work has not been done."""
        return manifest.load(self.storage, self.manifest_key(stage, unit))

    def require_manifest(self, stage: str, unit: str | None = None, what: str = "") -> Manifest:
        """A manifest that an earlier stage has left.

        Raises:
            InputError: it is not there; the message names the command to run.
        """
        found = self.find_manifest(stage, unit)
        if found is None:
            raise InputError(f"{what or stage} has not been done in {self.uri}: run `aitp {stage}` first")
        return found

    def commit(self, done: Manifest, unit: str | None = None) -> Manifest:
        """Commit a stage's or a unit's manifest."""
        return manifest.commit(self.storage, self.manifest_key(done.stage, unit), done)

    def group(self, unit: int) -> Group:
        """The group of one unit of embed or density.

        Raises:
            InputError: the plan has no such unit.
        """
        groups = self.plan.groups
        if not 0 <= unit < len(groups):
            raise InputError(f"unit {unit} does not exist: the plan has units 0 to {len(groups) - 1}")
        return groups[unit]

    def part(self, unit: int) -> str:
        """Name of one part of the difference set; parts are slices of the hash space.

        Raises:
            InputError: the difference set has no such part.
        """
        parts = self.part_count
        if not 0 <= unit < parts:
            raise InputError(f"unit {unit} does not exist: the difference set has {parts} parts")
        return part_name(unit, parts)

    @cached_property
    def part_count(self) -> int:
        """How many parts the difference set was cut into."""
        return int(self.require_manifest("difference").figures["parts"])

    @property
    def parts(self) -> list[str]:
        """Names of all parts of the difference set."""
        return [part_name(unit, self.part_count) for unit in range(self.part_count)]


def part_of(doc_id: str, parts: int) -> int:
    """The unit that a document of the sample is in."""
    return int(doc_id[:8], 16) * parts >> 32


def part_name(unit: int, parts: int) -> str:
    """Name of part ``unit`` of ``parts``."""
    return f"part-{unit:04d}-of-{parts:04d}"
