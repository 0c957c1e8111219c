"""Every setting of a run, once: the CLI, the DAG's trigger form and the plan read it here.

A configuration file is YAML with the same shape as ``RunConfig``. Paths that
start with ``./`` or ``../`` are relative to that file. Light on purpose: the
Airflow environment imports this module, so it needs pydantic and nothing more.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from aitp_tasks.errors import InputError
from aitp_tasks.records import digest

#: Joins the names of several dumps that one run takes together.
DUMP_SEPARATOR = "+"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
DumpNames = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\+[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)
]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=220)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
#: One path may be written without a list.
TextColumns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Model(Section):
    """A model by local folder, by hub name with a pinned revision, or by storage prefix."""

    model: str = Field(
        title="Model",
        description="A local folder, a hub name with its revision, or s3://bucket/prefix.",
        min_length=1,
    )
    revision: str | None = Field(
        None, title="Revision", description="Commit of a hub model; required for one, ignored otherwise."
    )

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a model that lies elsewhere."""
        return Path(self.model) if self.model.startswith("/") else None

    @property
    def stored(self) -> bool:
        """Whether it is a storage prefix; ``aitp_tasks.machine.models`` copies it here."""
        return self.model.startswith(("s3://", "file://"))

    @property
    def on_hub(self) -> bool:
        """Whether it is a hub name."""
        return self.folder is None and not self.stored

    @property
    def label(self) -> str:
        """How it is called where people read: no path of this machine."""
        if self.folder is not None:
            return self.folder.name
        return self.model if self.stored else f"{self.model}@{self.revision}"

    def identity(self) -> str:
        """Digest of a folder's content, of a storage listing, or of a hub name and its revision.

        Raises:
            InputError: the folder or prefix does not exist, or a hub model has no revision.
        """
        if self.folder is not None:
            if not self.folder.is_dir():
                raise InputError(
                    f"model folder {self.model} does not exist: run the setup, or correct the configured path"
                )
            return digest.of_folder(self.folder)
        if self.stored:
            from aitp_tasks.machine import models

            return models.stored_identity(self.model)
        if not self.revision:
            raise InputError(
                f"model {self.model!r} is neither an absolute folder, a storage prefix nor pinned: "
                "set its revision to a commit of the hub repository"
            )
        return digest.of_value([self.model, self.revision])


class LongTexts(StrEnum):
    """What becomes of a text that has more tokens than the encoder takes."""

    TRUNCATE = "truncate"
    WINDOWS = "windows"


class SftText(StrEnum):
    """Which turns of an SFT example are its text."""

    FIRST_TURNS = "first_turns"
    ALL_TURNS = "all_turns"
    USER_TURNS = "user_turns"


class Endpoint(Section):
    """A server of the user's own that speaks OpenAI's protocol.

    Its key, if it wants one, is read from the variable ``AITP_EMBEDDINGS_API_KEY`` for
    an encoder, ``AITP_ENGINE_API_KEY`` for an engine.
    """

    url: str = Field(
        title="URL", description="Up to and including /v1.", pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$"
    )
    served_model: str = Field(
        title="Served model", description="The model's name on the server.", min_length=1
    )
    concurrency: int = Field(
        8, ge=1, le=1024, title="Concurrency", description="Requests under way at the same time."
    )
    timeout_seconds: float = Field(
        120.0, gt=0, title="Timeout", description="Longest wait for one answer, in seconds."
    )
    retries: int = Field(
        8, ge=0, title="Retries", description="Of one request, after a back-off that doubles."
    )


class Encoder(Model):
    """The sentence encoder that turns texts into vectors."""

    max_tokens: int = Field(
        8192,
        ge=8,
        title="Tokens per text",
        description="Also limited by the model itself.",
    )
    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        title="Longer texts",
        description="truncate keeps the first tokens (the paper); windows takes the mean over windows.",
    )
    max_windows: int = Field(
        64,
        ge=1,
        title="Windows per text",
        description="With windows: a text of more is quarantined as too_long.",
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        title="Tokens per batch",
        description="Padded tokens of one forward pass; by default 1,024 on a CPU and 131,072 on a GPU.",
    )
    endpoint: Endpoint | None = Field(
        None, title="Endpoint", description="Embed on this server instead of in the task."
    )


class Plan(Section):
    """How shards are packed into units of work."""

    max_fanout: int = Field(
        200,
        ge=1,
        le=1000,
        title="Mapped instances",
        description="Largest number of embedding units; Airflow refuses more than 1,024.",
    )
    group_bytes: int = Field(
        8 * 2**30,
        ge=1,
        title="Bytes per unit",
        description="Shards are packed up to this size while max_fanout allows.",
    )


class BandwidthRule(StrEnum):
    """Rules that derive a bandwidth from the number of points and their spread."""

    SCOTT = "scott"
    SILVERMAN = "silverman"


_MOST_COMPONENTS = 3
_LEAST_ERROR_IN_SPACE = 1e-4


class Refit(StrEnum):
    """When a line of versions gets a new projection and grid."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


class Density(Section):
    """Kernel densities of the projected vectors."""

    components: int = Field(
        2,
        ge=1,
        le=_MOST_COMPONENTS,
        title="Components",
        description="Principal axes in which densities are estimated.",
    )
    bandwidth: Annotated[float, Field(gt=0, le=100)] | BandwidthRule = Field(
        1.0,
        title="Bandwidth",
        description="Of the Gaussian kernel, in projected units (the paper's is 1), or scott or silverman.",
    )
    max_error: float = Field(
        1e-3,
        ge=1e-6,
        le=0.1,
        title="Largest error",
        description="Relative, where a density is above 1e-10; decides how fine the grid is.",
    )
    refit: Refit = Field(
        Refit.AUTO,
        title="Refit",
        description="auto keeps the projection of the version that a run builds on until that says that a "
        "refit is due; never keeps it; always fits anew.",
    )
    max_drift: float = Field(
        0.25,
        gt=0,
        le=1,
        title="Largest drift",
        description="Beyond it a refit is due: share of documents outside the old corpus, share of explained "
        "variance lost, or distance of the densities.",
    )

    @model_validator(mode="after")
    def _affordable(self) -> Self:
        if self.components == _MOST_COMPONENTS and self.max_error < _LEAST_ERROR_IN_SPACE:
            raise ValueError(
                f"max_error below {_LEAST_ERROR_IN_SPACE:g} needs a grid too fine for {_MOST_COMPONENTS} "
                "components: raise it, or lower components"
            )
        return self


class Criterion(StrEnum):
    """What makes a document belong to the difference set."""

    DENSITY_RATIO = "density_ratio"
    SFT_DENSITY = "sft_density"
    AUTHORS_COMPAT = "authors_compat"
    KNN = "knn"


class Sampling(StrEnum):
    """How documents of the difference set are drawn."""

    UNIFORM = "uniform"
    STRATIFIED = "stratified"


class Difference(Section):
    """The difference set and the sample that is rewritten."""

    criterion: Criterion = Field(
        Criterion.DENSITY_RATIO,
        title="Criterion",
        description="density_ratio keeps p_sft / p_corpus < tau; sft_density keeps p_sft < tau (the paper); "
        "authors_compat is the published script; knn keeps documents whose mean cosine to their nearest "
        "SFT examples, in full dimension, is below tau.",
    )
    neighbours: int = Field(
        10,
        ge=1,
        le=1000,
        title="Neighbours",
        description="With knn: how many of the nearest SFT examples the mean is over.",
    )
    tau: float = Field(
        1.0,
        gt=0,
        title="Tau",
        description="Documents below this threshold are selected; unused where a target is set. With knn it "
        "is a cosine, 1.0 or less: take it from the quantiles that a first run tells, or set a target.",
    )
    target_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, title="Share to select", description="Sets tau so that this share of the documents lies below."
    )
    target_documents: Annotated[int, Field(ge=1)] | None = Field(
        None,
        title="Number to select",
        description="Sets tau so that so many documents lie below.",
    )
    sampling: Sampling = Field(
        Sampling.UNIFORM,
        title="Sampling",
        description="uniform over the difference set, or stratified over cells of one bandwidth.",
    )
    max_documents: int = Field(
        732_000, ge=1, title="Documents to rewrite", description="Size of the sample of the difference set."
    )
    source_column: str | None = Field(
        None,
        min_length=1,
        title="Source column",
        description="Path of the column that says where a document is from; by default its dump.",
    )
    max_per_source: Annotated[int, Field(ge=1)] | None = Field(
        None, title="Documents per source", description="Most documents drawn of one source."
    )
    documents_per_part: int = Field(
        5000, ge=1, title="Documents per part", description="A part is one unit of the prompt stages."
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of the hash that draws the sample.")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.target_share is not None and self.target_documents is not None:
            raise ValueError("target_share and target_documents are both given: tau follows from one of them")
        return self


#: Arguments of ``vllm.LLM`` that follow from other settings.
_RESERVED_ARGUMENTS = {"model", "revision", "max_model_len", "structured_outputs_config", "chat_template"}


#: Those that a response does not depend on, up to rounding: how the work is spread and stored.
_NEUTRAL_ARGUMENTS = {
    "block_size",
    "cpu_offload_gb",
    "data_parallel_size",
    "disable_log_stats",
    "distributed_executor_backend",
    "download_dir",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "tensor_parallel_size",
}


class Engine(Model):
    """The vLLM engine of the three prompt stages."""

    max_model_len: int = Field(
        4096, ge=256, title="Context length", description="Prompt and response together, in tokens."
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, title="Engine arguments", description="Passed to vllm.LLM as they are."
    )
    requests_per_flush: int = Field(
        256,
        ge=1,
        title="Requests per flush",
        description="Finished responses are made durable each second, in groups of at most this size.",
    )
    chat_template: str | None = Field(
        None, title="Chat template", description="Jinja file; by default the model's own."
    )
    endpoint: Endpoint | None = Field(
        None,
        title="Endpoint",
        description="Generate on this server, which has to serve the same model, instead of in the task.",
    )

    def identity(self) -> str:
        """Digest of the model and of the chat template's content.

        Raises:
            InputError: either is missing.
        """
        return _with_template(super().identity(), self.chat_template, "engine.chat_template")

    def generation_identity(self) -> list[Any]:
        """What decides a response beside model, prompt and request."""
        deciding = {key: value for key, value in self.engine_args.items() if key not in _NEUTRAL_ARGUMENTS}
        return [self.max_model_len, deciding]

    @field_validator("engine_args")
    @classmethod
    def _nothing_reserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        reserved = _RESERVED_ARGUMENTS & value.keys()
        if reserved:
            raise ValueError(f"{sorted(reserved)} are set by AITP and cannot be engine arguments")
        return value


class Prompts(Section):
    """The three prompt stages."""

    folder: str = Field(
        title="Prompt folder", description="A folder, or a storage prefix, with the three YAML prompts."
    )
    questions_per_document: int = Field(
        2, ge=1, le=8, title="Questions per document", description="Asked of each document; the paper's is 2."
    )
    sampling: dict[str, float] = Field(
        default_factory=dict,
        title="Sampling",
        description="Replaces values of the prompt files' own sampling, e.g. max_tokens or temperature.",
    )
    second_attempt: bool = Field(
        True,
        title="Second attempt",
        description="Ask once more: with more room for what was cut, at another temperature where it cannot "
        "be read.",
    )
    failed_round: int = Field(
        0,
        ge=0,
        le=100,
        title="Failed rows again",
        description="Raise it by one to generate once more what was quarantined, and nothing else.",
    )
    failure_budget: Share = Field(
        0.05,
        title="Failure budget",
        description="Share of a part's rows that may be quarantined before the task fails.",
    )


class Gates(Section):
    """Which questions are asked and go on to be answered, and which answers are kept."""

    min_quality: int = Field(6, ge=1, le=10, title="Least quality", description="Score from 1 to 10.")
    min_difficulty: int = Field(3, ge=1, le=10, title="Least difficulty", description="Score from 1 to 10.")
    allow_additional_information: bool = Field(
        False,
        title="Allow questions that need more information",
        description="Keep questions said to need information that they do not contain.",
    )
    keep_best: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        title="Share of the best",
        description="Of a part's scored questions, keep at most this share: those of the highest quality.",
    )
    min_question_words: int = Field(
        3, ge=1, title="Shortest question", description="In words; estimated in scripts without spaces."
    )
    max_question_similarity: Share = Field(
        0.85,
        title="Largest similarity of questions",
        description="Share of its words that a question has in common with an earlier one of its document.",
    )
    question_language: bool = Field(
        True,
        title="Questions in their document's language",
        description="Leave out questions that are surely in another language than their document.",
    )
    max_copied: Share = Field(
        0.8,
        title="Largest copied share of an answer",
        description="Of the answer's runs of eight words, those that are in the document word for word.",
    )
    min_support: Share = Field(
        0.05,
        title="Least support of an answer",
        description="Share of the answer's words with content that occur in the document or the question.",
    )


class Assemble(Section):
    """The dataset version that a run makes."""

    dataset: Name = Field("aitp", title="Dataset", description="Name of the line of versions.")
    base: VersionName = Field(
        "latest",
        title="Base",
        description="The version to build on: latest, none (begin anew), or a version's name.",
    )
    max_rewritten_share: Share = Field(
        0.1,
        title="Largest share of rewritten pairs",
        description="Of the whole dataset; the paper's best results have less than 10%.",
    )
    max_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95,
        title="Largest similarity of a new pair",
        description="Leave out new pairs whose cosine to an SFT example or another pair is larger; 1: none.",
    )


class Finetune(Model):
    """DeepSpeed fine-tuning of the base model on the new dataset version."""

    processes: int = Field(1, ge=1, title="Processes", description="Ranks on this machine, one a device.")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, title="ZeRO stage", description="DeepSpeed's partitioning.")
    epochs: float = Field(3.0, gt=0, title="Epochs", description="Passes over the dataset version.")
    max_steps: int = Field(
        -1, ge=-1, title="Steps", description="Optimiser steps; -1 trains for the epochs given."
    )
    learning_rate: float = Field(2e-6, gt=0, lt=1, title="Learning rate", description="Peak, linear decay.")
    warmup_share: Share = Field(0.03, title="Warm-up", description="Share of the steps.")
    batch_size: int = Field(4, ge=1, title="Examples per device", description="In one forward pass.")
    gradient_accumulation: int = Field(
        8, ge=1, title="Gradient accumulation", description="Forward passes per optimiser step."
    )
    max_length: int = Field(
        2048, ge=16, title="Longest example", description="In tokens; longer ones are cut."
    )
    chat_template: str | None = Field(
        None,
        title="Training chat template",
        description="Jinja file with generation marks; by default the model's own, or TRL's for its family.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of weights, order and dropout.")

    def identity(self) -> str:
        """Digest of the model and of the training chat template's content.

        Raises:
            InputError: either is missing.
        """
        return _with_template(super().identity(), self.chat_template, "finetune.chat_template")


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
    encoder: Encoder
    plan: Plan = Plan()
    density: Density = Density()
    difference: Difference = Difference()
    engine: Engine
    prompts: Prompts
    gates: Gates = Gates()
    assemble: Assemble = Assemble()
    finetune: Finetune

    @property
    def dumps(self) -> list[str]:
        """The names of the dumps that this run takes together."""
        return self.dump.split(DUMP_SEPARATOR)

    @field_validator("dump")
    @classmethod
    def _sorted_dumps(cls, value: str) -> str:
        names = value.split(DUMP_SEPARATOR)
        if len(set(names)) < len(names):
            raise ValueError(f"dump {value!r} names one dump twice")
        return DUMP_SEPARATOR.join(sorted(names))

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply ``section.key=value`` overrides, values in YAML.

        Raises:
            InputError: the file is missing or not YAML, or a setting is wrong; all
                wrong settings are named in the message.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"configuration {path} cannot be read ({error.strerror}): name an existing file")
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"configuration {path} is not YAML: {_one_line(error)}")
        if not isinstance(values, dict):
            raise InputError(f"configuration {path} is not a mapping of settings")
        _resolve_paths(values, path.resolve().parent)
        for override in overrides:
            _apply_override(values, override)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"configuration {path}: {_describe(error)}")

    def identity(self) -> dict[str, Any]:
        """The settings that decide a run's results: all but where it stores them.

        Models, prompts and the chat template are left out as places; the plan adds
        the digests of what they contain. How the encoder's work is batched, and on
        which machine, decides no result.
        """
        values = self.model_dump(mode="json", exclude={"root"})
        for section in ("encoder", "engine", "finetune"):
            del values[section]["model"]
        for section in ("engine", "finetune"):
            del values[section]["chat_template"]
        for section in ("encoder", "engine"):
            del values[section]["endpoint"]
        del values["prompts"]["folder"], values["encoder"]["batch_tokens"]
        return values


def _with_template(identity: str, path: str | None, setting: str) -> str:
    """A model's identity together with that of a chat template's content."""
    if path is None:
        return identity
    try:
        template = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{setting}={path} cannot be read ({error.strerror}): correct the path, or leave it out"
        )
    return digest.of_value([identity, digest.of_bytes(template)])


def _resolve_paths(values: dict[str, Any], base: Path) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _resolve_paths(value, base)
        elif isinstance(value, str) and re.match(r"\.{1,2}/", value):
            values[key] = str((base / value).resolve())


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise InputError(f"override {override!r} is not of the form section.key=value")
    *sections, key = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"override {override!r}: {section!r} is a value, not a section")
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value is not YAML: {_one_line(error)}")


def _describe(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}={item['input']!r}: {item['msg']}"
        if item["type"] != "missing"
        else f"{'.'.join(str(part) for part in item['loc'])} is missing"
        for item in error.errors(include_url=False)
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
