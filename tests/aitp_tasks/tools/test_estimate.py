"""What is extrapolated from a rehearsal, and how the sample is drawn; tests/e2e has a real rehearsal."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.tools import estimate
from aitp_tasks.tools.estimate import sample, summary
from aitp_tasks.tools.estimate.rehearsal import Cost, Measured, Rehearsal, seconds_per_step
from aitp_tasks.tools.estimate.sample import Sizes
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard
from tests.aitp_tasks.test_cli import aitp

pytestmark = pytest.mark.slow

FIXED = Cost(2.0)
MEASURED = Measured(
    costs={
        "plan": FIXED,
        "embed corpus": Cost(5.0, 0.01),
        "embed sft": Cost(5.0, 0.002),
        **dict.fromkeys(("merge", "density", "index", "difference", "assemble", "report"), FIXED),
        "rewrite": Cost(30.0, 1.0),
        "score": Cost(30.0, 0.5),
        "answer": Cost(30.0, 2.0),
        "finetune": Cost(60.0, 3.0),
    },
    tokens={"corpus": 200.0, "sft": 50.0},
    generated={"rewrite": 100.0, "score": 10.0, "answer": 200.0},
    questions=1.5,
    kept=0.5,
    answered=0.8,
)
SIZES = Sizes((("corpus", 6000), ("corpus", 4000), ("sft", 3000)))


def anywhere(config: RunConfig) -> estimate.Places:
    """Room for all."""
    return estimate.Places(float("inf"), config.difference.max_documents)


@pytest.mark.parametrize(
    ("seconds", "slots", "end"),
    [
        ([], 2, 0.0),
        ([3.0, 3.0, 3.0], 1, 9.0),
        ([3.0, 3.0, 3.0], 2, 6.0),
        ([1.0, 5.0, 1.0, 1.0], 2, 5.0),
        ([4.0, 2.0], 8, 4.0),
    ],
)
def test_units_start_in_order_as_slots_become_free(seconds: list[float], slots: int, end: float) -> None:
    assert estimate.makespan(seconds, slots) == end


def test_the_forecast_follows_the_shares_of_the_sample(configure: Configure) -> None:
    config = configure(difference={"max_documents": 1000, "documents_per_part": 400})
    places = estimate.Places(333, 1000)
    expected = estimate.forecast(config, SIZES, 0.25, MEASURED, places)
    assert expected == estimate.Forecast(
        documents=10_000, sft_examples=3000, below_tau=2500, selected=1000, parts=3, questions=1500, kept=750,
        # A tenth of the dataset: 333 of the 600 pairs. 3,333 examples make 105 steps an epoch.
        pairs=333, steps=315,
    )  # fmt: skip
    few = estimate.forecast(config, SIZES, 0.01, MEASURED, places)
    assert (few.selected, few.parts, few.pairs) == (100, 1, 60)
    none = estimate.forecast(config, SIZES, 0.0, MEASURED, places)
    assert (none.selected, none.parts, none.pairs) == (0, 0, 0)


@pytest.mark.parametrize(
    ("share", "most", "pairs", "documents"),
    # Half a pair of a document is expected, and a quarter more are drawn.
    [
        (0.2, 732_000, 2.0, 5),
        (0.5, 732_000, 8.0, 20),
        (0.5, 12, 8.0, 12),
        (1.0, 12, float("inf"), 12),
        (0.0, 9, 0.0, 0),
    ],
)
def test_no_more_documents_are_expected_than_the_dataset_has_room_for(
    configure: Configure, share: float, most: int, pairs: float, documents: int
) -> None:
    config = configure(assemble={"max_rewritten_share": share}, difference={"max_documents": most})
    planned = Run.open(plan.execute(config)["run"]).plan
    assert estimate.Places.of(planned, sft=8) == estimate.Places(pairs, documents)


@pytest.mark.parametrize(
    ("settings", "examples", "steps"),
    [
        ({"max_steps": 24}, 999, 24),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 3}, 96, 9),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 3}, 97, 12),
        ({"batch_size": 4, "gradient_accumulation": 8, "epochs": 1, "processes": 8}, 52_000, 204),
        ({"epochs": 0.5}, 320, 5),
        ({}, 0, 3),
    ],
)
def test_steps(configure: Configure, settings: dict[str, float], examples: int, steps: int) -> None:
    config = configure(finetune={"model": "/model", **settings})
    assert estimate.steps(config.finetune, examples) == steps


def test_time_and_gpu_hours(configure: Configure) -> None:
    config = configure(
        difference={"max_documents": 1000, "documents_per_part": 500},
        engine={"model": "/model", "engine_args": {"tensor_parallel_size": 2}},
        finetune={"model": "/model", "processes": 4, "max_steps": 100},
    )
    expected = estimate.forecast(config, SIZES, 1.0, MEASURED, anywhere(config))
    stages = estimate.units(config, SIZES, expected, MEASURED, on_gpus=True)
    assert stages["embed"].seconds == (65.0, 45.0, 11.0)
    assert stages["embed"].hours(1) * 3600 == pytest.approx(121)
    assert stages["embed"].hours(2) * 3600 == pytest.approx(65)
    assert stages["embed"].gpu_hours * 3600 == pytest.approx(121)
    assert stages["rewrite"].seconds == (530.0, 530.0)
    # Two GPUs a unit: on three, one unit at a time.
    assert stages["rewrite"].hours(3) * 3600 == pytest.approx(1060)
    assert stages["rewrite"].hours(4) * 3600 == pytest.approx(530)
    assert stages["rewrite"].gpu_hours * 3600 == pytest.approx(2120)
    assert stages["finetune"].gpu_hours * 3600 == pytest.approx(4 * 360)
    assert stages["density"].gpu_hours == 0
    assert stages["density"].hours(1) * 3600 == pytest.approx(6)
    on_processors = estimate.units(config, SIZES, expected, MEASURED, on_gpus=False)
    assert on_processors["finetune"].gpu_hours * 3600 == pytest.approx(360)


def test_the_devices_of_endpoints_are_not_counted(configure: Configure) -> None:
    endpoint = {"url": "http://127.0.0.1:9/v1", "served_model": "model"}
    config = configure(
        encoder={"model": "/model", "endpoint": endpoint}, engine={"model": "/model", "endpoint": endpoint}
    )
    expected = estimate.forecast(config, SIZES, 1.0, MEASURED, anywhere(config))
    stages = estimate.units(config, SIZES, expected, MEASURED, on_gpus=True)
    assert [name for name, stage in stages.items() if stage.gpu_hours] == ["finetune"]
    assert stages["rewrite"].hours(2) > 0
    said = estimate._assumptions(config, expected, gpus=1)
    for server in ("embedding", "generating"):
        assert f"the {server} server's own devices are not counted" in said


def test_the_first_step_is_left_out() -> None:
    assert seconds_per_step([{"seconds": 9.0}, {"seconds": 11.0}, {"seconds": 14.0}]) == 2.5
    assert seconds_per_step([{"seconds": 9.0}]) == 9.0


def test_a_cost_never_starts_below_zero() -> None:
    assert Cost.measured(10.0, 4, 2.0) == Cost(2.0, 2.0)
    assert Cost.measured(10.0, 4, 3.0) == Cost(0.0, 3.0)


@pytest.mark.parametrize("rows", [[1000] * 50, [3] * 500, [5000, 1], [0, 7, 0, 9000]])
def test_blocks_hold_the_wanted_rows_in_few_places(rows: list[int]) -> None:
    drawn = sample.blocks(rows, 256)
    assert 256 <= sum(held for _, _, held in drawn) < 256 + 32
    assert all(first >= 0 and first + held <= rows[shard] for shard, first, held in drawn)
    assert len({(shard, first) for shard, first, _ in drawn}) == len(drawn)
    assert len(drawn) <= 10 or max(rows) < 32
    assert drawn == sample.blocks(rows, 256)


def test_few_rows_are_drawn_all() -> None:
    assert sum(held for _, _, held in sample.blocks([10, 0, 40], 256)) == 50
    assert sample.blocks([], 256) == []


def test_the_sample_is_real_rows_in_two_shards(root: Path, configure: Configure, tmp_path: Path) -> None:
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": None}])
    run = Run.open(plan.execute(configure())["run"])
    sizes = sample.write(run, tmp_path / "sample", 256, 256)
    assert (sizes.rows("corpus"), sizes.rows("sft")) == (13, 8)
    shards = [pq.read_table(tmp_path / f"sample/corpus/sample/{number}.parquet") for number in (0, 1)]
    assert [len(shard) for shard in shards] == [4, 9]
    texts = [text for shard in shards for text in shard["text"].to_pylist()]
    assert sorted(filter(None, texts))[0] == "Document 0-0 tells of rivers, ports and grain."
    assert texts.count(None) == 1
    examples = pq.read_table(tmp_path / "sample/sft/sample/1.parquet")["messages"].to_pylist()
    assert [turn["role"] for turn in examples[0]] == ["user", "assistant"]


def test_examples_without_a_footer_are_counted_by_their_bytes(
    root: Path, configure: Configure, tmp_path: Path
) -> None:
    lines = "".join(json.dumps(example) + "\n" for example in alpaca(500))
    for number in range(2):
        path = root / f"sft/lines/{number}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    run = Run.open(plan.execute(configure(sft="lines"))["run"])
    sizes = sample.write(run, tmp_path / "sample", 20, 30)
    assert sizes.rows("sft") == 1000
    held = [len(pq.read_table(tmp_path / f"sample/sft/sample/{number}.parquet")) for number in (0, 1)]
    assert held == [8, 22]


def test_a_rehearsal_needs_no_sources(root: Path, configure: Configure, tmp_path: Path) -> None:
    for shard in sorted((root / "corpus/news").iterdir()):
        table = pq.read_table(shard)
        pq.write_table(table.append_column("site", table["text"]), shard)
    settings = {"source_column": "site", "max_per_source": 1, "tau": 1e9}
    config = configure(difference=settings)
    sample.write(Run.open(plan.execute(config)["run"]), tmp_path, 12, 8)
    assert Rehearsal(config, tmp_path).below_tau() == 1.0


def test_a_corpus_without_texts_is_refused(root: Path, configure: Configure, tmp_path: Path) -> None:
    write_shard(root / "corpus/void/void-00000.parquet", [{"text": " "}])
    run = Run.open(plan.execute(configure(dump="void"))["run"])
    with pytest.raises(InputError, match="no row of the corpus of file:///.* has a text"):
        sample.write(run, tmp_path / "sample", 20, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "-1"], "error: --price -1.0 is no price: give 0 or more"),
        (["--price", "nan"], "error: --price nan is no price: give 0 or more"),
        (["--parallel", "0"], "error: --parallel 0 is too small: give 1 or more"),
        (["--sample", "0"], "error: --sample 0 is too small: give 1 or more"),
    ],
)
def test_wrong_settings_exit_2(arguments: list[str], message: str) -> None:
    done = aitp("estimate", "--config", "none.yaml", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == message


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0 s"),
        (41.4 / 3600, "41 s"),
        (365 / 3600, "6 min 05 s"),
        (59.999 / 60, "1 h 00 min"),
        (12.5, "12 h 30 min"),
        (1234.0, "1,234 h 00 min"),
    ],
)
def test_durations(hours: float, text: str) -> None:
    assert summary.duration(hours) == text
