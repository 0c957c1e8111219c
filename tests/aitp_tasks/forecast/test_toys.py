"""Each rule alone, at its edge and on both sides of it; and what must not be warned of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.forecast import toys
from aitp_tasks.forecast.toys import Scale
from aitp_tasks.records.plan import Shard
from tests.aitp_tasks.conftest import REPOSITORY, Configure

CONFIGS = REPOSITORY / "configs"
BILLION = 10**9
GIB = 2**30
#: A night of a team that means it, and the demo, as `make demo` has them.
LARGE = Scale(10**7, 10**12, 10**6, 7 * BILLION, 7 * BILLION, 8192)
DEMO = Scale(406, 10**6, 999, 135 * 10**6, 135 * 10**6, 512)
#: A setting, a value that suits a toy, one that just does not, and a scale where the first does no harm.
CASES: list[tuple[str, Any, Any, Scale]] = [
    ("engine.engine_args.enforce_eager", True, False, replace(LARGE, engine=BILLION - 1, documents=9_999)),
    ("engine.max_model_len", 4095, 4096, replace(LARGE, engine=None)),
    ("encoder.max_tokens", 256, 257, replace(LARGE, encoder_tokens=2047)),
    ("plan.group_bytes", 64 * 2**20 - 1, 64 * 2**20, replace(LARGE, corpus_bytes=GIB - 1)),
    ("difference.max_documents", 999, 1000, replace(LARGE, documents=99_900)),
    ("prompts.sampling.max_tokens", 256, 257, replace(LARGE, engine=None)),
    ("prompts.sampling.repetition_penalty", 1.1, 1.05, replace(LARGE, engine=None)),
    ("prompts.failure_budget", 0.51, 0.5, replace(LARGE, engine=None)),
    ("prompts.second_attempt", False, True, replace(LARGE, engine=None)),
    ("gates.min_quality", 3, 4, replace(LARGE, engine=None)),
    ("finetune.max_length", 512, 513, replace(LARGE, base=BILLION - 1, examples=9_999)),
    # 32 examples a step: 3,125 of them are 100,000.
    ("finetune.max_steps", 3124, 3125, replace(LARGE, examples=9_999)),
]


def with_setting(config: RunConfig, setting: str, value: Any) -> RunConfig:
    values = config.model_dump(mode="json")
    *sections, name = setting.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[name] = value
    return RunConfig.model_validate(values)


@pytest.fixture
def usual(configure: Configure) -> RunConfig:
    """A configuration with the defaults of all that the rules look at."""
    return configure(
        encoder={"model": "/m"}, engine={"model": "/m"}, prompts={"folder": "/p"}, assemble={"dataset": "d"}
    )


@pytest.mark.parametrize(("setting", "toy", "fine", "harmless"), CASES, ids=[case[0] for case in CASES])
def test_a_setting_is_named_with_its_value(
    usual: RunConfig, setting: str, toy: Any, fine: Any, harmless: Scale
) -> None:
    found = toys.found(with_setting(usual, setting, toy), LARGE)
    assert [one.setting for one in found] == [setting]
    told = str(found[0])
    assert told.startswith(f"{setting}={str(toy).lower()} suits a tiny model or a few rows only: ")
    assert found[0].remedy in told
    assert toys.found(with_setting(usual, setting, fine), LARGE) == []
    assert toys.found(with_setting(usual, setting, toy), harmless) == []


def test_a_tiny_model_is_one_where_the_data_is_not(usual: RunConfig) -> None:
    small = replace(LARGE, engine=BILLION - 1)
    assert [one.setting for one in toys.found(usual, small)] == ["engine.model"]
    assert toys.found(usual, replace(small, documents=9_999)) == []
    assert toys.found(usual, replace(small, engine=BILLION)) == []
    # Of a server's model, or one in the storage, nothing is known.
    assert toys.found(usual, replace(small, engine=None)) == []


def test_every_rule_has_a_case() -> None:
    ruled = {rule.setting for rule in toys.RULES} - {"engine.model"}
    assert ruled | {"finetune.max_steps"} == {case[0] for case in CASES}


@pytest.mark.parametrize(
    "scale", [DEMO, Scale(0, 0, 0), replace(DEMO, engine=None, base=None, encoder_tokens=None)]
)
def test_the_demo_is_what_its_settings_suit(scale: Scale) -> None:
    assert toys.found(RunConfig.load(CONFIGS / "demo.yaml"), scale) == []


def test_the_demos_settings_on_a_large_run_are_all_told() -> None:
    config = RunConfig.load(CONFIGS / "demo.yaml")
    assert {toy.name for toy in toys.found(config, LARGE)} == {
        "engine.engine_args.enforce_eager=true",
        "engine.max_model_len=2048",
        "encoder.max_tokens=256",
        "plan.group_bytes=1200000",
        "difference.max_documents=24",
        "prompts.sampling.max_tokens=256",
        "prompts.sampling.repetition_penalty=1.1",
        "prompts.failure_budget=0.9",
        "prompts.second_attempt=false",
        "gates.min_quality=3",
        "finetune.max_length=256",
        "finetune.max_steps=24",
    }


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_preset_holds_a_toy(path: Path) -> None:
    if path.stem == "demo":
        return
    assert toys.found(RunConfig.load(path, ["root=s3://my-bucket"]), LARGE) == []


def test_the_scale_is_that_of_shards_and_files(configure: Configure, smollm2: Path) -> None:
    config = configure()
    shards = [
        Shard("corpus", "news", "corpus/news/a", "e", 100, 7),
        # Of a damaged one the rows are not known.
        Shard("corpus", "news", "corpus/news/b", "e", 50, -1),
        Shard("sft", "sums", "sft/sums/a", "e", 10, 8),
        Shard("sft", "aitp", "datasets/aitp/pairs", "e", 10, 3),
    ]
    scale = Scale.of(config, shards)
    assert (scale.documents, scale.corpus_bytes, scale.examples) == (7, 150, 8)
    # As published; the embeddings are tied.
    assert scale.base == scale.engine == pytest.approx(134.5e6, rel=0.01)
    assert scale.encoder_tokens == 512
    stored = configure(
        engine={"model": "s3://b/m"}, finetune={"model": "/no/model"}, encoder={"model": "o/n"}
    )
    unknown = Scale.of(stored, shards)
    assert (unknown.engine, unknown.base, unknown.encoder_tokens) == (None, None, None)


def test_a_broken_model_file_is_no_reason_to_refuse(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    broken = configure(engine={"model": str(tmp_path)}, encoder={"model": str(tmp_path)})
    assert Scale.of(broken, []).engine is None
