"""The whole configuration of one run: the settings of the run itself, and one section a concern."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from aitp_tasks.config import file
from aitp_tasks.config.approval import Approval
from aitp_tasks.config.assemble import Assemble
from aitp_tasks.config.contamination import Contamination
from aitp_tasks.config.density import Density
from aitp_tasks.config.devices import Devices
from aitp_tasks.config.difference import DOCUMENTS_PER_PART, Difference
from aitp_tasks.config.encoder import Encoder
from aitp_tasks.config.engine import Engine
from aitp_tasks.config.evaluate import Evaluate, Promote
from aitp_tasks.config.examples import Examples
from aitp_tasks.config.finetune import Finetune
from aitp_tasks.config.gates import Gates
from aitp_tasks.config.maintenance import Maintenance
from aitp_tasks.config.messages import Messages
from aitp_tasks.config.plan import Plan
from aitp_tasks.config.prompts import Prompts
from aitp_tasks.config.schedule import Schedule
from aitp_tasks.config.section import Name, Section, Share
from aitp_tasks.config.workers import Workers
from aitp_tasks.errors import InputError

#: Joins the names of several dumps that one run takes together.
DUMP_SEPARATOR = "+"
DumpNames = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\+[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)
]
#: Settings of a section that say where something lies, how work is batched, or what it may cost: they decide
#: no result.
_PLACES = {
    "plan": {"unknown_files", "price_per_gpu_hour", "currency", "max_gpu_hours", "max_cost"},
    "encoder": {"model", "endpoint", "batch_tokens"},
    "engine": {"model", "chat_template", "endpoint", "speculation"},
    "prompts": {"folder"},
    "finetune": {
        *("model", "chat_template", "deepspeed", "offload", "gradient_checkpointing", "timeout_minutes"),
        *("save_steps", "save_minutes", "save_number", "report_to", "hostfile"),
    },
    # What the card says beside its figures: no row, and nothing that is trained, differs by it.
    "assemble": {"license", "license_name", "license_link", "card"},
    # What was measured stays the same, whatever is decided by it.
    "evaluate": {"promote", "tolerance", "task_folder"},
}
#: Where results are stored, on what models work and who runs them, when a run is started, who is asked or
#: told, and what is tidied up.
_DECIDING_NOTHING = {"root", "devices", "workers", "schedule", "approval", "messages", "maintenance"}
#: Settings that came later, with what they were before: left out while they are that, so that a run that was
#: planned without them is found again. A gate is left out while it is as the rules have it (``Plan.rules``).
_ADDED: dict[str, dict[str, Any]] = {
    "plan": {"shard_budget": 0.0},
    "difference": {
        **{"quality": "none", "allocation": "even", "regions": 8},
        **{"pilot_documents": 100, "floor_share": 0.25},
    },
    "prompts": {"answers_per_question": 1},
    "gates": {"answer_language": True, "min_faithfulness": None},
    "engine": {"chat_template_args": {}, "reasoning_parser": None, "deterministic": False},
    "finetune": {
        **{"scheduler": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0, "neftune_noise": 0.0},
        **{"long_examples": "cut", "packing": False, "group_by_length": False, "lora": None, "nodes": 1},
        **{"eval_steps": None, "patience": None, "keep_best": False},
    },
    "assemble": {
        **{"order": ["rarity", "scores", "age"], "withdrawn_prompts": [], "marks": "keep"},
        **{
            "max_text_similarity": 1.0,
            "languages": [],
            "max_same_opening": 1.0,
            "max_pairs_per_source": None,
        },
        **{"min_question_words": None, "max_question_words": None},
        **{"min_answer_words": None, "max_answer_words": None, "personal_data": False, "mask": []},
        "validation_split": False,
    },
    "contamination": {"sets": [], "ngram": 13, "min_share": 0.0, "max_similarity": 1.0, "sft": "report"},
    "examples": {"preference": None, "mapping": None, "failure_budget": None},
    "evaluate": {
        **{"held_out": 0.0, "max_examples": 1000, "generations": 20, "generated_tokens": 256},
        **{"tasks": [], "task_limit": None},
    },
}
#: Settings that can be left open by now, with what they were when they could not: left open they count as
#: that, so that a run that was planned before is found again.
_LEFT_OPEN: dict[str, dict[str, Any]] = {"difference": {"documents_per_part": DOCUMENTS_PER_PART}}
#: One path may be written without a list.
TextColumns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
]


class SftText(StrEnum):
    """Which turns of an SFT example are its text."""

    FIRST_TURNS = "first_turns"
    ALL_TURNS = "all_turns"
    USER_TURNS = "user_turns"


class RunConfig(Section):
    """The whole configuration of one run."""

    root: str = Field(
        title="Storage root",
        description="s3://bucket[/prefix] or file:///folder.",
        pattern=r"^(s3|file)://.+",
    )
    dump: DumpNames = Field(
        title="Dump",
        description="Folder below corpus/; several joined by '+' are refreshed together.",
    )
    sft: Name = Field(title="SFT set", description="Folder below sft/.")
    text_columns: TextColumns = Field(
        ("text",),
        title="Text columns",
        description="Paths in the corpus shards, e.g. conversations[0].value; newlines join several.",
    )
    sft_text: SftText = Field(
        SftText.FIRST_TURNS,
        title="Text of an SFT example",
        description="The first user and assistant turn (the paper), all turns, or all user turns.",
    )
    failure_budget: Share = Field(
        0.01,
        title="Failure budget",
        description="Share of a shard's rows that may be quarantined before its embed task fails.",
    )
    examples: Examples = Examples()
    encoder: Encoder
    plan: Plan = Plan()
    density: Density = Density()
    difference: Difference = Difference()
    engine: Engine
    prompts: Prompts
    gates: Gates = Gates()
    assemble: Assemble = Assemble()
    contamination: Contamination = Contamination()
    finetune: Finetune
    evaluate: Evaluate = Evaluate()
    devices: Devices = Devices()
    workers: Workers = Workers()
    schedule: Schedule = Schedule()
    approval: Approval = Approval()
    messages: Messages = Messages()
    maintenance: Maintenance = Maintenance()

    @model_validator(mode="after")
    def _has_what_it_validates_on(self) -> Self:
        if self.finetune.eval_steps is not None and not self.evaluate.held_out:
            raise ValueError(
                f"finetune.eval_steps={self.finetune.eval_steps} validates on what is held out, and "
                "evaluate.held_out=0 holds nothing out: set evaluate.held_out, to 0.02 for instance, or take "
                "eval_steps out"
            )
        return self

    @model_validator(mode="after")
    def _has_what_it_splits(self) -> Self:
        if self.assemble.validation_split and not self.evaluate.held_out:
            raise ValueError(
                "assemble.validation_split=true hands on half of what is held out, and evaluate.held_out=0 "
                "holds nothing out: set evaluate.held_out, to 0.02 for instance, or validation_split to false"
            )
        return self

    @property
    def halves_held_out(self) -> bool:
        """Whether half of what is held out is for choosing by, and so proves nothing."""
        return self.finetune.eval_steps is not None or self.assemble.validation_split

    @property
    def dumps(self) -> list[str]:
        """The names of the dumps that this run takes together."""
        return self.dump.split(DUMP_SEPARATOR)

    @field_validator("dump")
    @classmethod
    def _sorted_dumps(cls, value: str) -> str:
        names = value.split(DUMP_SEPARATOR)
        if len(set(names)) < len(names):
            raise ValueError(f"dump {value!r} names one dump twice: name each once")
        return DUMP_SEPARATOR.join(sorted(names))

    @field_validator("text_columns")
    @classmethod
    def _each_column_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((path for path in value if value.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice: its text would be joined to itself")
        return value

    @model_validator(mode="after")
    def _has_a_promotion_to_approve(self) -> Self:
        promote = self.evaluate.promote
        if self.approval.before_promotion and promote is not Promote.WHEN_BETTER:
            found = {
                Promote.ALWAYS: "versions are the latest as soon as they are made",
                Promote.NEVER: "nothing is ever promoted",
            }[promote]
            raise ValueError(
                f"approval.before_promotion=true asks before a promotion, but with evaluate.promote="
                f"{promote.value} {found}: set evaluate.promote to when_better, or before_promotion to false"
            )
        return self

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply ``section.key=value`` overrides, values in YAML.

        Raises:
            InputError: the file is missing or not YAML, or a setting is wrong; all
                wrong settings are named in the message.
        """
        values = file.read(path, overrides)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"configuration {path}: {file.described(error, cls)}")

    def identity(self) -> dict[str, Any]:
        """The settings that decide a run's results: all but where it stores them.

        Models, prompts, the chat template, DeepSpeed's file and task files are left out as places; the
        plan adds the digests of what they contain. How the encoder's work is batched, and on
        which machine, decides no result.
        """
        return self.identity_of(self.model_dump(mode="json"))

    @staticmethod
    def identity_of(values: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a configuration as JSON, with the settings that were there when it was written."""
        deciding = {name: value for name, value in values.items() if name not in _DECIDING_NOTHING}
        for section, places in _PLACES.items():
            settings = values.get(section, {}).items()
            deciding[section] = {name: value for name, value in settings if name not in places}
        for section, before in _LEFT_OPEN.items():
            settings = deciding.get(section, {}).items()
            deciding[section] = {
                name: before.get(name) if value is None else value for name, value in settings
            }
        for section, added in _ADDED.items():
            settings = deciding.pop(section, {}).items()
            left = {name: value for name, value in settings if name not in added or value != added[name]}
            # A section of which nothing is left came later as a whole.
            if left:
                deciding[section] = left
        return deciding
