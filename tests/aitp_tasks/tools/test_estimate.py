"""How the sample is drawn, and how many requests are rehearsed at once; tests/e2e has a real rehearsal."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import Examples
from aitp_tasks.errors import InputError
from aitp_tasks.forecast.costs import Measured
from aitp_tasks.forecast.work import Sizes
from aitp_tasks.inputs import shards
from aitp_tasks.inputs.examples import Example
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.storage import open_storage
from aitp_tasks.tools import estimate
from aitp_tasks.tools.estimate import sample
from aitp_tasks.tools.estimate.rehearsal import Rehearsal
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard
from tests.aitp_tasks.forecast import conftest as nights
from tests.aitp_tasks.forecast.conftest import MEASURED, Line, whole
from tests.aitp_tasks.test_cli import aitp

pytestmark = pytest.mark.slow

line = nights.line


class StandIn:
    """Rehearses nothing, and has measured what was made up."""

    asked: list[int]

    def __init__(self, config: object, folder: Path) -> None:
        StandIn.asked = []

    def below_tau(self) -> float:
        return 0.5

    def measure(self, part: int) -> Measured:
        self.asked.append(part)
        return MEASURED


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.asked = []
    monkeypatch.setattr(estimate, "Rehearsal", StandIn)
    return StandIn


def test_where_runs_tell_all_nothing_is_rehearsed(
    line: Line, stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    whole(line.night("one"))
    # The limits do not hold for who asks.
    limited = {"max_gpu_hours": 0, "price_per_gpu_hour": 36.0}
    line.planned("two")
    told = estimate.execute(line.config("two", plan=limited))
    assert (told["rehearsed"], told["runs"], told["sampled"], stand_in.asked) == (False, 1, 0, [])
    assert told["gpu_hours"] == pytest.approx(254 / 3600, abs=1e-6)
    assert told["cost"] == pytest.approx(2.54, abs=1e-3)
    assert estimate.execute(line.config("two"), price=1.0)["cost"] == pytest.approx(254 / 3600, abs=1e-3)
    assert "in all" in capsys.readouterr().err


def test_where_no_run_tells_a_rehearsal_does_and_plan_knows_it_then(
    line: Line, stand_in: type[StandIn]
) -> None:
    line.planned("one")
    told = estimate.execute(line.config("one"))
    assert (told["rehearsed"], told["runs"], told["unknown"]) == (True, 0, [])
    # Half of the documents are below tau.
    assert stand_in.asked == [6]
    assert plan.execute(line.config("one"))["estimate"].endswith("by a rehearsal")
    again = estimate.execute(line.config("one"))
    assert (again["rehearsed"], again["gpu_hours"]) == (False, told["gpu_hours"])
    whole(line.night("night"))
    line.planned("two")
    here = estimate.execute(line.config("two"), rehearse=True)
    assert (here["rehearsed"], here["runs"]) == (True, 0)
    assert estimate.execute(line.config("two"))["runs"] == 1


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
    sample.write(run, tmp_path / "sample", 256, 256)
    sizes = Sizes.of(run.plan)
    assert (sizes.rows("corpus"), sizes.rows("sft")) == (13, 8)
    shards = [pq.read_table(tmp_path / f"sample/corpus/sample/{number}.parquet") for number in (0, 1)]
    assert [len(shard) for shard in shards] == [4, 9]
    texts = [text for shard in shards for text in shard["text"].to_pylist()]
    assert sorted(filter(None, texts))[0] == "Document 0-0 tells of rivers, ports and grain."
    assert texts.count(None) == 1
    examples = pq.read_table(tmp_path / "sample/sft/sample/1.parquet")["messages"].to_pylist()
    assert [turn["role"] for turn in examples[0]] == ["user", "assistant"]


def test_the_sample_keeps_all_that_examples_say(root: Path, configure: Configure, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": [1, None]}}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Ask {number}."},
                {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [call]},
                {"role": "tool", "content": "1"},
                {"role": "assistant", "content": "One.", "weight": 0},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        }
        for number in range(8)
    ]
    path = root / "sft/calls/0.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run.open(plan.execute(configure(sft="calls"))["run"])
    sample.write(run, tmp_path / "sample", 8, 8)
    storage = open_storage(f"file://{tmp_path}/sample")
    found = [
        {"messages": example.messages, "tools": example.tools}
        for info in storage.list("sft/")
        for example in shards.Sft(storage, info, run.config.sft_text, Examples()).examples()
        if isinstance(example, Example)
    ]
    assert sorted(found, key=str) == sorted(rows, key=str)


def test_examples_without_a_footer_are_counted_by_their_bytes(
    root: Path, configure: Configure, tmp_path: Path
) -> None:
    lines = "".join(json.dumps(example) + "\n" for example in alpaca(500))
    for number in range(2):
        path = root / f"sft/lines/{number}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    run = Run.open(plan.execute(configure(sft="lines"))["run"])
    sample.write(run, tmp_path / "sample", 20, 30)
    assert Sizes.of(run.plan).rows("sft") == 1000
    held = [len(pq.read_table(tmp_path / f"sample/sft/sample/{number}.parquet")) for number in (0, 1)]
    assert held == [8, 22]


def test_a_rehearsal_needs_no_sources(root: Path, configure: Configure, tmp_path: Path) -> None:
    for shard in sorted((root / "corpus/news").iterdir()):
        table = pq.read_table(shard)
        pq.write_table(table.append_column("site", table["text"]), shard)
    settings = {"source_column": "site", "max_per_source": 1, "tau": 1e9}
    # Nor has it evaluation sets.
    (root / "asked.jsonl").write_text(json.dumps({"question": "Why?", "answer": "So."}))
    config = configure(difference=settings, contamination={"sets": "asked.jsonl"})
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
    ("engine", "part", "at_once"),
    [
        ({"engine_args": {"max_num_seqs": 3}}, 100, 3),
        ({"engine_args": {"max_num_seqs": 300}}, 7, 7),
        ({"endpoint": {"url": "http://127.0.0.1:9/v1", "served_model": "m", "concurrency": 5}}, 100, 5),
        ({"deterministic": True, "engine_args": {"max_num_seqs": 300}}, 100, 1),
        # How responses are stored decides nothing of it.
        ({"requests_per_flush": 1}, 100, 100),
        ({"requests_per_flush": 1}, 5000, 256),
    ],
)
def test_as_many_requests_are_rehearsed_at_once_as_the_run_has_under_way(
    configure: Configure, tmp_path: Path, engine: dict[str, object], part: int, at_once: int
) -> None:
    config = configure(
        engine={"model": "/model", **engine}, difference={"documents_per_part": part, "max_documents": 9000}
    )
    assert Rehearsal(config, tmp_path)._config.difference.max_documents == at_once
