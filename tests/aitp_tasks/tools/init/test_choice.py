"""What is chosen fits: by an arithmetic of its own, and by plan's refusals on the same GPUs."""

from pathlib import Path

import pytest

from aitp_tasks.config import Engine, Finetune
from aitp_tasks.config.engine import gpus as gpus_of
from aitp_tasks.errors import InputError
from aitp_tasks.machine import devices
from aitp_tasks.machine.gpus import VARIABLE, Gpu
from aitp_tasks.tools.init import choice
from aitp_tasks.training import memory
from tests.aitp_tasks.conftest import MODELS
from tests.aitp_tasks.test_config_presets import SHAPES

GB = 10**9
NONE = {"encoder": None, "engine": None, "finetune": None}
#: As published, in billions.
PARAMETERS = {"32B": 32.76, "7B": 7.62, "1.5B": 1.54, "0.5B": 0.494}


def cards(count: int, gigabytes: float) -> list[Gpu]:
    return [Gpu(f"GPU-{number}", number, "card", int(gigabytes * GB)) for number in range(count)]


def slices(count: int, gigabytes: float, card: str = "GPU-cut") -> list[Gpu]:
    return [
        Gpu(f"MIG-{number}", 9, "card, a slice", int(gigabytes * GB), card=card) for number in range(count)
    ]


@pytest.mark.parametrize("offer", choice.OFFERS, ids=lambda offer: offer.size)
def test_an_offer_is_of_its_published_size(offer: choice.Offer) -> None:
    assert choice._shape(offer).parameters / GB == pytest.approx(PARAMETERS[offer.size], rel=0.01)
    published = SHAPES.get(offer.base)
    assert published is None or offer.config.items() <= published.items()


@pytest.mark.parametrize(
    ("gpus", "engine", "spread", "base", "lora"),
    [
        # As the presets have them.
        (cards(1, 80), "7B", 1, "1.5B", False),
        (cards(8, 80), "32B", 2, "7B", False),
        (cards(1, 24), "7B", 1, "0.5B", False),
        (cards(2, 24), "7B", 1, "1.5B", False),
        (cards(1, 141), "32B", 1, "7B", False),
        # A slice of a GPU, and a small one.
        (cards(1, 10), "1.5B", 1, "1.5B", True),
        (cards(1, 5), "1.5B", 1, "0.5B", True),
        (cards(4, 16), "7B", 2, "1.5B", False),
        # The smallest counts.
        ([*cards(1, 80), *cards(1, 24)], "7B", 1, "1.5B", False),
        # CUDA lets a process use one slice at a time: several do not work together.
        (slices(7, 10), "1.5B", 1, "1.5B", True),
        ([*slices(7, 10), *cards(1, 80)], "1.5B", 1, "1.5B", True),
        # Whole ones do, beside slices.
        ([*slices(2, 5), *cards(2, 24)], "7B", 2, "1.5B", False),
    ],
)
def test_the_largest_models_that_fit_are_chosen(
    monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], engine: str, spread: int, base: str, lora: bool
) -> None:
    chosen = choice.choose(gpus, NONE).values
    generating, training = Engine(**chosen["engine"]), Finetune(**chosen["finetune"])
    assert generating.model == f"Qwen/Qwen2.5-{engine}-Instruct"
    assert gpus_of(generating.engine_args) == spread
    together = [gpu for gpu in gpus if not gpu.card]
    least = min(gpu.memory for gpu in (gpus if spread == 1 else together))
    # Two bytes a weight, and room for what requests have read.
    assert 2 * PARAMETERS[engine] * GB / spread < 0.7 * least
    assert (training.model, training.lora is not None) == (f"Qwen/Qwen2.5-{base}", lora)
    assert training.processes == max(len(together), 1)
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: gpus)
    monkeypatch.delenv(VARIABLE, raising=False)
    # So many can be leased.
    devices.require(spread, "engine.engine_args")
    devices.require(training.processes, "finetune.processes")
    if training.processes > 1:
        least = min(gpu.memory for gpu in together)
    # All states of a full training, by the ZeRO paper.
    if not lora:
        ranks = training.processes
        shared = {0: 16, 2: 2 + 14 / ranks, 3: 16 / ranks}[training.zero_stage]
        assert shared * PARAMETERS[base] * GB < least
    assert training.examples_per_step <= 32
    assert training.max_length >= 1024
    _require_that_plan_takes_it(monkeypatch, gpus, base, training)


def _require_that_plan_takes_it(
    monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], base: str, training: Finetune
) -> None:
    (offer,) = [offer for offer in choice.OFFERS if offer.size == base]
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: gpus)
    monkeypatch.setattr(memory, "shape", lambda settings: choice._shape(offer, settings.lora is not None))
    memory.require(training)


def test_gpus_whose_memory_is_not_known_get_the_smallest(tmp_path: Path) -> None:
    chosen = choice.choose(cards(1, 0), NONE).values
    assert chosen["engine"]["model"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert chosen["finetune"]["model"] == "Qwen/Qwen2.5-0.5B"


def test_gpus_that_nothing_fits_are_named() -> None:
    with pytest.raises(InputError, match=r"no .* fits 1 × card \(1 GB\): name a smaller"):
        choice.choose(cards(1, 1), NONE)


def test_models_of_this_machine_are_fitted() -> None:
    small = str(MODELS / "SmolLM2-135M-Instruct")
    chosen = choice.choose(cards(2, 24), {"encoder": None, "engine": small, "finetune": small}).values
    # It takes 8,192 tokens, and has 9 heads: never cut.
    assert chosen["engine"] == {"model": small, "max_model_len": 8192}
    assert (chosen["finetune"]["batch_size"], chosen["finetune"]["max_length"]) == (4, 4096)
    with pytest.raises(InputError, match=r"the weights of .*SmolLM2-135M-Instruct take 0 GB, too much"):
        choice.choose(cards(1, 0.1), {"encoder": None, "engine": small, "finetune": "org/base"})


@pytest.mark.parametrize(
    "folder", ["/no/model", "./no", "~/model", "models/of/mine", "my model", "org/", "a//b"]
)
def test_folders_that_are_not_there_are_named(folder: str) -> None:
    """No hub has a name like these."""
    with pytest.raises(InputError, match=f"model folder {folder} does not exist"):
        choice.named(folder)


def test_models_are_named_as_a_configuration_has_them() -> None:
    assert choice.named("gpt2@v1") == {"model": "gpt2", "revision": "v1"}
    assert choice.named("s3://bucket/a model") == {"model": "s3://bucket/a model"}
    assert choice.named("org/model") == {"model": "org/model", "revision": "main"}
