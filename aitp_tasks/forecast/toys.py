"""Settings that only suit a tiny model or a handful of rows, as a demo has them, where the run is no demo.

Each rule names a setting, when it is one of these, why, and what to do. plan tells what it
finds and refuses nothing: whoever tries something out knows why. Where a model's size is
not known, rules that go by it find nothing.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aitp_tasks.config import Model, RunConfig
from aitp_tasks.generation import checks
from aitp_tasks.machine import base_model
from aitp_tasks.records.plan import Shard

log = logging.getLogger(__name__)

#: From so many on: parameters of a model that is not tiny, documents and examples that are no handful.
_MODEL, _DOCUMENTS, _EXAMPLES = 1_000_000_000, 10_000, 10_000
_WEIGHT_BYTES = 2
#: Bytes that are worth a process of their own, and those from which there are many such.
_UNIT_BYTES, _CORPUS_BYTES = 64 * 2**20, 2**30
_SHARE = 0.01
_FEW_DOCUMENTS = 1_000


@dataclass(frozen=True)
class Scale:
    """How large what a run works with is.

    Attributes:
        documents: of the dumps, as far as that is known.
        corpus_bytes: of the dumps' shards, as they lie there.
        examples: of the SFT set.
        engine: parameters of the model that generates; None where they are not known.
        base: of the one that is trained.
        encoder_tokens: that the encoder could take of a text.
    """

    documents: int
    corpus_bytes: int
    examples: int
    engine: int | None = None
    base: int | None = None
    encoder_tokens: int | None = None

    @classmethod
    def of(cls, config: RunConfig, shards: Iterable[Shard]) -> "Scale":
        """That of a run, by its shards and its models' files."""
        listed = list(shards)
        corpus = [shard for shard in listed if shard.role == "corpus"]
        examples = [shard for shard in listed if shard.role == "sft" and shard.source == config.sft]
        return cls(
            sum(max(shard.rows, 0) for shard in corpus),
            sum(shard.size for shard in corpus),
            sum(max(shard.rows, 0) for shard in examples),
            None if config.engine.endpoint else _parameters(config.engine),
            _parameters(config.finetune),
            _positions(config.encoder),
        )

    @property
    def large_engine(self) -> bool:
        """Whether the model that generates is known not to be tiny."""
        return (self.engine or 0) >= _MODEL

    @property
    def large_base(self) -> bool:
        """The same of the model that is trained."""
        return (self.base or 0) >= _MODEL


@dataclass(frozen=True)
class Toy:
    """A setting that is found to be one, with its value, why, and what to do."""

    setting: str
    value: Any
    why: str
    remedy: str

    @property
    def name(self) -> str:
        """The setting and its value, as ``--set`` takes them."""
        whole = isinstance(self.value, float) and self.value.is_integer()
        return f"{self.setting}={int(self.value) if whole else json.dumps(self.value).strip(chr(34))}"

    def __str__(self) -> str:
        return f"{self.name} suits a tiny model or a few rows only: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    setting: str
    applies: Callable[[Any, Scale], bool]
    why: str
    remedy: str


#: The value of the setting, which is set and not None, and the scale decide.
RULES = (
    Rule(
        "engine.engine_args.enforce_eager",
        lambda value, scale: value is True and scale.large_engine,
        "without CUDA graphs and compiled kernels a large model generates several times slower",
        "take it out",
    ),
    Rule(
        "engine.max_model_len",
        lambda value, scale: value < 4096 and scale.large_engine,
        "documents are cut to what it leaves beside prompt and response",
        "raise it to 8192, or to what the model takes",
    ),
    Rule(
        "engine.model",
        lambda _, scale: (
            scale.engine is not None and not scale.large_engine and scale.documents >= _DOCUMENTS
        ),
        "a model of less than a billion parameters follows the prompts and judges badly, and the dataset is "
        "what it makes",
        "name a model of 7 billion or more, or a server (engine.endpoint)",
    ),
    Rule(
        "encoder.max_tokens",
        lambda value, scale: value <= 256 and (scale.encoder_tokens or 0) >= 2048,
        "the encoder could read several times as much of a text",
        "take it out",
    ),
    Rule(
        "plan.group_bytes",
        lambda value, scale: value < _UNIT_BYTES and scale.corpus_bytes >= _CORPUS_BYTES,
        "large shards are cut into parts of that size, and each unit starts a process and loads the encoder",
        "take it out (8 GiB)",
    ),
    Rule(
        "difference.max_documents",
        lambda value, scale: value < _FEW_DOCUMENTS and value < _SHARE * scale.documents,
        "so few of so many documents change hardly anything",
        "raise it: aitp estimate says what more would take",
    ),
    Rule(
        "prompts.sampling.max_tokens",
        lambda value, scale: value <= 256 and scale.large_engine,
        "longer answers are cut, asked for once more and then quarantined",
        "take it out: the prompts have limits of their own",
    ),
    Rule(
        "prompts.sampling.repetition_penalty",
        lambda value, scale: value > 1.05 and scale.large_engine,
        "large models do not loop, and the penalty spoils code, names and lists",
        "take it out",
    ),
    Rule(
        "prompts.failure_budget",
        lambda value, scale: value > 0.5 and scale.large_engine,
        "a run of which most fails would pass for a success",
        "take it out (0.05)",
    ),
    Rule(
        "prompts.second_attempt",
        lambda value, scale: value is False and scale.large_engine,
        "what could not be read, or was cut, is lost without it",
        "take it out",
    ),
    Rule(
        "gates.min_quality",
        lambda value, scale: value <= 3 and scale.large_engine,
        "nearly every question passes",
        "take it out (6), or choose it by the scores in the report",
    ),
    Rule(
        "finetune.max_length",
        lambda value, scale: value <= 512 and (scale.large_base or scale.examples >= _EXAMPLES),
        "longer examples are cut",
        "raise it to 4096, or to what the base takes",
    ),
)
#: Goes by more than its own value.
_STEPS = Rule(
    "finetune.max_steps",
    lambda value, scale: value > 0 and scale.examples >= _EXAMPLES,
    "the training sees less than a tenth of the examples",
    "take it out: finetune.epochs says how often all are seen",
)
_SEEN = 10


def found(config: RunConfig, scale: Scale) -> list[Toy]:
    """The settings of a configuration that only suit something smaller than what it is for."""
    toys = [rule for rule in RULES if _applies(rule, config, scale)]
    seen = config.finetune.max_steps * config.finetune.examples_per_step
    if _applies(_STEPS, config, scale) and seen * _SEEN < scale.examples:
        toys.append(_STEPS)
    return [Toy(rule.setting, _value(config, rule.setting), rule.why, rule.remedy) for rule in toys]


def _applies(rule: Rule, config: RunConfig, scale: Scale) -> bool:
    value = _value(config, rule.setting)
    return value is not None and rule.applies(value, scale)


def _value(config: RunConfig, setting: str) -> Any:
    found: Any = config
    for name in setting.split("."):
        found = found.get(name) if isinstance(found, dict) else getattr(found, name)
    return found


def _parameters(model: Model) -> int | None:
    """How many a model has; None where its files are in the storage or cannot be read."""
    try:
        if model.folder is not None:
            return round(checks.weights(model.folder) / _WEIGHT_BYTES) or None
        if model.stored:
            return None
        outline = base_model.outline(model)
        return sum(int(parameter.numel()) for parameter in outline.parameters())
    except Exception as error:
        # A hint refuses nothing: whoever loads the model says what is wrong with it.
        log.info("the size of %s is not known (%s)", model.label, type(error).__name__)
        return None


def _positions(model: Model) -> int | None:
    """How many tokens a model of this machine has positions for."""
    if model.folder is None:
        return None
    try:
        config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
