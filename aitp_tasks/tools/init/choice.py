"""Which models a machine can work with, and the settings that follow: by the memory that plan reckons with.

On GPUs, the largest models of one family that fit, as the presets have them. On
processors, models that are small enough for them, with the settings that such models
need, and a word about what they are good for.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aitp_tasks.config import Finetune, Model
from aitp_tasks.errors import InputError
from aitp_tasks.generation import checks
from aitp_tasks.machine.devices import usable
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.tools.terminal import printable
from aitp_tasks.training import memory
from aitp_tasks.training.memory import Shape

#: What the hub takes: an owner, perhaps, and a name; no path with more in it.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)

CHECKOUT = Path(__file__).resolve().parents[3]

#: Of the engine's memory on a GPU, for the weights: the rest holds what many requests at once have read.
_WEIGHTS_SHARE = 0.65
_CONTEXT, _CONTEXT_ON_PROCESSORS = 8192, 4096
#: Rows of a step, of all ranks together.
_ROWS = 32
_BATCHES = (4, 2, 1)
#: Lengths of examples, and whether an adapter is trained.
_LENGTHS, _SHORT = (4096, 2048), (1024,)
_TRIES = ((_LENGTHS, False), (_LENGTHS, True), (_SHORT, False), (_SHORT, True))
_DOCUMENTS, _MOST_DOCUMENTS = 50_000, 500_000
_WEIGHT_BYTES = 2
_ENCODER = "BAAI/bge-m3"
_SMALL_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: What a model of so few parameters needs, and what becomes of its output.
_OF_SMALL_MODELS: dict[str, dict[str, Any]] = {
    "difference": {"target_share": 0.1, "max_documents": 200},
    "prompts": {
        "sampling": {"max_tokens": 256, "repetition_penalty": 1.1},
        "second_attempt": False,
        "failure_budget": 0.9,
    },
    "gates": {"min_quality": 3, "min_difficulty": 2, "allow_additional_information": True},
}


@dataclass(frozen=True)
class Offer:
    """A model of the hub, as its configuration there has it (Apache-2.0, Qwen2.5)."""

    size: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    @property
    def engine(self) -> str:
        """Its name where it follows instructions."""
        return f"Qwen/Qwen2.5-{self.size}-Instruct"

    @property
    def base(self) -> str:
        """Its name where it is still to learn that."""
        return f"Qwen/Qwen2.5-{self.size}"

    @property
    def config(self) -> dict[str, Any]:
        """What counts of its ``config.json``."""
        return {
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
        }


#: The largest first. Those between are left out: 14B is near to others, 3B is under another licence.
OFFERS = (
    Offer("32B", 5120, 27648, 64, 40, 8, 152064, False),
    Offer("7B", 3584, 18944, 28, 28, 4, 152064, False),
    Offer("1.5B", 1536, 8960, 28, 12, 2, 151936, True),
    Offer("0.5B", 896, 4864, 24, 14, 2, 151936, True),
)
#: Those that a training is offered of: where the largest fits, it would take days.
BASES = OFFERS[1:]


@dataclass
class Choice:
    """Settings, why some of them are what they are, and what the whole is good for."""

    values: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)


def choose(gpus: Sequence[Gpu], given: Mapping[str, str | None]) -> Choice:
    """Models and settings for this machine; models that are given are taken as they are.

    Raises:
        InputError: no model fits the GPUs, or the one that is given does not.
    """
    return _on_gpus(gpus, given) if gpus else _on_processors(given)


def described(gpus: Sequence[Gpu]) -> str:
    """The machine in words, for the head of the file."""
    if not gpus:
        return "a machine without GPUs"
    kinds = sorted({f"{printable(gpu.name, 60) or 'GPU'} ({gpu.memory / 1e9:.0f} GB)" for gpu in gpus})
    return f"{len(gpus)} × {', '.join(kinds)}"


def _on_gpus(gpus: Sequence[Gpu], given: Mapping[str, str | None]) -> Choice:
    finetune, why = _training(gpus, given["finetune"])
    engine, why_engine = _engine(gpus, given["engine"])
    documents = min(_DOCUMENTS * len(gpus), _MOST_DOCUMENTS)
    return Choice(
        {
            "devices": {"require": "gpu"},
            "encoder": named(given["encoder"] or _ENCODER),
            "difference": {"target_share": 0.1, "max_documents": documents},
            "engine": engine,
            "finetune": finetune,
        },
        {
            "finetune.model": why,
            "engine.model": why_engine,
            "difference.max_documents": "Documents to rewrite: aitp estimate says what they take.",
            "devices.require": f"Airflow's pool `gpu` gets {len(gpus)} slots.",
        },
    )


def _on_processors(given: Mapping[str, str | None]) -> Choice:
    small = given["engine"] is None
    engine = named(given["engine"] or _at_hand(_SMALL))
    chosen = Choice(
        {
            "devices": {"require": "cpu"},
            "encoder": named(given["encoder"] or _at_hand(_SMALL_ENCODER)),
            "engine": engine | {"max_model_len": _context(engine, _CONTEXT_ON_PROCESSORS)},
            "finetune": named(given["finetune"] or _at_hand(_SMALL))
            | {"zero_stage": 0, "max_steps": 100, "batch_size": 2, "gradient_accumulation": 4}
            | {"packing": True, "max_length": 1024},
            **(_OF_SMALL_MODELS if small else {"difference": {"target_share": 0.1, "max_documents": 200}}),
        },
        {
            "difference.max_documents": "On processors, a few hundred take an hour or two.",
            "finetune.max_steps": "Enough to see that it trains; without, finetune.epochs decides.",
        },
        [
            "Good for trying the pipeline on your own data, and not for a dataset to train on: a model that",
            "is small enough for processors follows the prompts and judges badly. Run init where GPUs are.",
        ],
    )
    if small:
        chosen.reasons["prompts.sampling"] = "A model this small loops: the penalty and the limit end that."
        chosen.reasons["gates.min_quality"] = "It cannot judge either: these gates let nearly all pass."
    return chosen


def _engine(gpus: Sequence[Gpu], given: str | None) -> tuple[dict[str, Any], str]:
    """The engine, spread over as few GPUs as its weights need, and why it is that."""
    if given is not None:
        chosen = named(given) | {"max_model_len": _context(named(given), _CONTEXT)}
        folder = Model(**named(given)).folder
        if folder is None:
            return (
                chosen,
                "How many GPUs it takes is not known here: engine_args.tensor_parallel_size says it.",
            )
        weights, heads = checks.weights(folder), _of_model(chosen, "num_attention_heads") or 1
        if spread := _spread(weights, gpus, heads):
            return chosen | _spread_over(spread), _told(weights, spread)
        raise InputError(
            f"the weights of {given} take {weights / 1e9:.0f} GB, too much for {described(gpus)}: "
            "name a smaller or quantised model by --engine"
        )
    for offer in OFFERS if _least(gpus) else OFFERS[-1:]:
        weights = _shape(offer).parameters * _WEIGHT_BYTES
        if spread := _spread(weights, gpus, offer.heads):
            chosen = named(offer.engine) | {"max_model_len": _CONTEXT}
            return chosen | _spread_over(spread), _told(weights, spread)
    raise InputError(
        f"no engine that init offers fits {described(gpus)}: name a smaller or quantised one by --engine"
    )


def _spread(weights: float, gpus: Sequence[Gpu], heads: int) -> int | None:
    """Over how many GPUs weights have to be cut; None where all of them are too few. Heads stay whole."""
    for count in (1, 2, 4, 8):
        together = usable(count, gpus)
        if count > len(together) or heads % count:
            continue
        least = _least(together)
        if not least or weights / count <= least * _WEIGHTS_SHARE:
            return count
    return None


def _spread_over(count: int) -> dict[str, Any]:
    return {"engine_args": {"tensor_parallel_size": count}} if count > 1 else {}


def _told(weights: float, spread: int) -> str:
    return f"Its weights take {weights / 1e9:.0f} GB" + (f", cut over {spread} GPUs." if spread > 1 else ".")


def _training(gpus: Sequence[Gpu], given: str | None) -> tuple[dict[str, Any], str]:
    """The base model with the settings under which its training fits, by plan's own reckoning."""
    if given is not None:
        chosen = named(given)
        if Model(**chosen).folder is None:
            return chosen | _one(
                _ranks(gpus), _LENGTHS[0], 1
            ), "What it takes is not known here: plan says it."
        found = _fitting(gpus, {given: (chosen, None)})
    else:
        offers = BASES if _least(gpus) else BASES[-1:]
        found = _fitting(gpus, {offer.base: (named(offer.base), offer) for offer in offers})
    if found is None:
        what = f"the training of {given}" if given else "no training that init offers"
        verb = "does not fit" if given else "fits"
        raise InputError(f"{what} {verb} {described(gpus)}: name a smaller base by --finetune")
    return found


def _fitting(
    gpus: Sequence[Gpu], bases: Mapping[str, tuple[dict[str, Any], Offer | None]]
) -> tuple[dict[str, Any], str] | None:
    """The first that fits: all weights before an adapter, large models before small ones."""
    ranks = _ranks(gpus)
    least = _least(usable(ranks, gpus))
    for lengths, adapted in _TRIES:
        adapter: dict[str, Any] = {"lora": {}} if adapted else {}
        for chosen, offer in bases.values():
            of = _shape(offer, adapted) if offer else memory.shape(Finetune.model_validate(chosen | adapter))
            for changes in _trainings(ranks, lengths):
                settings = Finetune.model_validate(chosen | changes | adapter)
                if not least or memory.fits(of, settings, least):
                    taken = memory.need(of, settings).total / 1e9
                    return chosen | changes | adapter, f"Its training takes about {taken:.0f} GB on each GPU."
    return None


def _ranks(gpus: Sequence[Gpu]) -> int:
    """One a GPU, of those that work together."""
    return max(1, len(usable(2, gpus)))


def _trainings(ranks: int, lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Settings that take less and less memory."""
    for length in lengths:
        for stage in (0,) if ranks == 1 else (2, 3):
            for batch in _BATCHES:
                yield _one(ranks, length, batch) | {"zero_stage": stage}


def _one(ranks: int, length: int, batch: int) -> dict[str, Any]:
    """The settings of a training, whatever it fits on."""
    return {
        "processes": ranks,
        "zero_stage": 0 if ranks == 1 else 2,
        "learning_rate": 1e-5,
        "scheduler": "cosine",
        "packing": True,
        "batch_size": batch,
        "gradient_accumulation": max(1, _ROWS // (batch * ranks)),
        "max_length": length,
    }


@cache
def _shape(offer: Offer, lora: bool = False) -> Shape:
    """As plan counts it, from the configuration that the hub has."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(offer.config), encoding="utf-8")
        return memory.shape(Finetune.model_validate({"model": folder} | ({"lora": {}} if lora else {})))


def _least(gpus: Sequence[Gpu]) -> int:
    """Memory of the smallest GPU; 0 where that of one is not known."""
    return min(gpu.memory for gpu in gpus)


def named(model: str) -> dict[str, Any]:
    """A model as it is configured: a folder, a storage prefix, or a hub name with a revision."""
    if Path(model).is_dir():
        return {"model": str(Path(model).resolve())}
    if "://" in model:
        return {"model": model}
    name, _, revision = model.partition("@")
    if not _HUB_NAME.fullmatch(name):
        raise InputError(f"model folder {model} does not exist: correct it, or give a hub's name")
    return {"model": name, "revision": revision or "main"}


def _at_hand(model: str) -> str:
    """The copy of a small model that the setup has left, or its name on the hub."""
    folder = CHECKOUT / ".aitp" / "models" / model.rpartition("/")[2]
    return str(folder) if folder.is_dir() else model


def _context(engine: Mapping[str, Any], wanted: int) -> int:
    """The context that is wanted, or what a model that is here can take."""
    return min(_of_model(engine, "max_position_embeddings") or wanted, wanted)


def _of_model(model: Mapping[str, Any], name: str) -> int | None:
    """A number of the configuration of a model that is here."""
    try:
        config = json.loads((Path(model["model"]) / "config.json").read_text(encoding="utf-8"))
        return int(config[name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
