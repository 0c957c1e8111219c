"""A plan: one frozen configuration over one frozen listing of its inputs.

Its digest covers the configuration, the content of models and prompts, and the
shards with their entity tags: the same inputs always lead to the same run, other
inputs never do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from aitp_tasks.config import Criterion, LongTexts, RunConfig
from aitp_tasks.records import digest, versions

#: Rules of reading inputs, and of reading and gating responses: counted up when the same row or response may
#: be read or gated otherwise, so that no run mixes the results of two releases. The first ones stand in no
#: plan.
RULES, _FIRST_RULES = 3, 1
#: Raised when the same settings come to make another grid; since 2 cells follow from the bandwidth too.
_GEOMETRY_FORMAT = 2
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
    estimated: bool = False  # whether the rows are, from the file's head

    @property
    def name(self) -> str:
        """The file's name without folder and ``.parquet``."""
        return self.key.rpartition("/")[2].removesuffix(".parquet")


class Unread(Frozen):
    """What lies in a folder of inputs and is not read."""

    folder: str
    #: How many objects are nothing that is read, and keys of the first ones.
    objects: int
    first: tuple[str, ...]
    #: How many are left out by which convention.
    skipped: dict[str, int]


class EvaluationFile(Frozen):
    """One file of an evaluation set that the dataset is compared with."""

    #: Path of its set, as ``contamination.sets`` has it.
    set: str
    key: str
    etag: str
    size: int


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
    """One prompt as the plan saw it; see ``generation.prompt_files``."""

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
    #: Ids of the pairs of the line that are marked bad.
    marked_bad: tuple[str, ...] = ()
    #: Digest of the plan without what follows from the base; empty in earlier releases.
    inputs: str = ""
    #: Which rules read and gate the run's responses.
    rules: int = RULES
    #: Of the base's pairs, why some are not among the groups, by their id.
    left: dict[str, str] = {}
    #: Digest of the files of ``evaluate.task_folder``; empty where there is none.
    tasks_identity: str = ""
    #: What lies beside the shards and is not read; decides nothing.
    unread: tuple[Unread, ...] = ()
    #: What ``contamination.sets`` names.
    evaluation: tuple[EvaluationFile, ...] = ()
    #: The text of ``assemble.card``; decides no row.
    card: str | None = None

    @property
    def digest(self) -> str:
        """The run's identity."""
        return self._digest(self.config.identity())

    @classmethod
    def read(cls, data: bytes) -> tuple["Plan", str]:
        """A stored plan, and the digest that it had when it was made.

        The digest is that of the stored settings and not of the plan that is made of
        them: a later release knows more settings.

        A release that digests something else, or takes a setting out of or into the
        identity, has to compute the former digest here for the plans made before.

        Raises:
            ValueError: it is no plan that this release knows.
        """
        # Parsed once: what is checked is what is used, whatever a parser makes of a name that is there twice.
        values = json.loads(data)
        plan = cls.model_validate(values)
        if "rules" not in plan.model_fields_set:
            plan = plan.model_copy(update={"rules": _FIRST_RULES})
        return plan, plan._digest(RunConfig.identity_of(values["config"]))

    def _digest(self, config: Mapping[str, Any]) -> str:
        return digest.of_value(
            {
                "config": config,
                "models": [self.encoder_identity, self.engine_identity, self.finetune_identity],
                "prompts": {name: prompt.digest for name, prompt in self.prompts.items()},
                "groups": [group.digest for group in self.groups],
                "base": self.base and self.base.name,
                "geometry": self.geometry and self.geometry.key,
                # Left out while there are none, as in the plans of releases that did not know them.
                **({"marked_bad": self.marked_bad} if self.marked_bad else {}),
                **({"tasks": self.tasks_identity} if self.tasks_identity else {}),
                **(
                    {"evaluation": [[file.set, file.key, file.etag] for file in self.evaluation]}
                    if self.evaluation
                    else {}
                ),
                **({"rules": self.rules} if self.rules != _FIRST_RULES else {}),
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
        rule = [self.encoder_digest, density.components, density.bandwidth, density.max_error, by_itself]
        return digest.of_value([_GEOMETRY_FORMAT, *rule])

    def groups_of(self, role: str) -> list[Group]:
        """The groups of ``corpus`` or ``sft``, in their order."""
        return [group for group in self.groups if group.role == role]

    @property
    def groups_of_pairs(self) -> list[Group]:
        """The groups of the pairs of earlier versions, in their order."""
        line = versions.source(self.config.assemble.dataset)
        return [group for group in self.groups if group.role == "sft" and group.source == line]

    def version(self, run_digest: str) -> str:
        """Name of the dataset version that a run of this plan makes."""
        return f"{self.config.dump}-{run_digest[:12]}"
