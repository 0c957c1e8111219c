"""Planning: identity, packing, and clear refusals."""

import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.forecast import toys
from aitp_tasks.inputs import footers
from aitp_tasks.machine.gpus import Gpu
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.plan import UNKNOWN_ROWS, Group, Shard
from aitp_tasks.records.run import Run
from aitp_tasks.stages import plan
from aitp_tasks.stages.plan import pack, units
from tests.aitp_tasks.conftest import MODELS, REPOSITORY, Configure, write_shard
from tests.aitp_tasks.training import tiny


def opened(config: RunConfig) -> Run:
    return Run.open(plan.execute(config)["run"])


def test_the_same_inputs_lead_to_the_same_run(configure: Configure, root: Path) -> None:
    first = plan.execute(configure())
    files = {path: path.stat().st_mtime_ns for path in root.rglob("plan.json")}
    assert plan.execute(configure())["run"] == first["run"]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("plan.json")} == files
    assert (first["documents"], first["embed_units"]) == (12, 2)


def test_what_the_card_says_beside_its_figures_makes_no_other_run(
    configure: Configure, root: Path, tmp_path: Path
) -> None:
    first = plan.execute(configure())
    (tmp_path / "own.md").write_text("# {{ title }}")
    own = {"card": str(tmp_path / "own.md"), "license": "other", "license_name": "acme-1"}
    again = plan.execute(configure(assemble={"max_rewritten_share": 1.0} | own))
    assert again["run"] == first["run"]
    # The plan has it all the same, for whoever assembles.
    planned = Run.open(again["run"]).plan
    assert (planned.card, planned.config.assemble.license_name) == ("# {{ title }}", "acme-1")


def test_other_inputs_lead_to_another_run(configure: Configure, root: Path) -> None:
    runs = {plan.execute(configure())["run"], plan.execute(configure(difference={"tau": 0.5}))["run"]}
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": "one more"}])
    runs.add(plan.execute(configure())["run"])
    assert len(runs) == 3


def test_a_run_of_several_dumps_labels_units_by_what_they_hold(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/books/books-00000.parquet", [{"text": "a book"}])
    run = opened(configure(dump="news+books"))
    assert [group.label for group in run.plan.groups] == [
        "books books-00000",
        "news news-00000–news-00001",
        "sums sums-00000",
    ]


def test_one_unreadable_shard_is_planned_and_left_to_its_unit(configure: Configure, root: Path) -> None:
    (root / "corpus/news/news-00001.parquet").write_bytes(b"PAR1 broken")
    run = opened(configure(plan={"group_bytes": 1}))
    rows = {shard.name: shard.rows for group in run.plan.groups for shard in group.shards}
    assert rows == {"news-00000": 6, "news-00001": UNKNOWN_ROWS, "sums-00000": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dump": "olds"}, r"corpus/olds/ holds no objects: name one of \['news'\]"),
        ({"sft": "none"}, r"sft/none/ holds no objects: name one of \['sums'\]"),
        ({"text_columns": "body"}, r"news-0000.\.parquet has no column 'body' \(it has text\)"),
        (
            {"difference": {"source_column": "site"}},
            r"news-0000.\.parquet has no column 'site' \(it has text\): correct difference.source_column",
        ),
        ({"encoder": {"model": "/no/model"}}, "model folder /no/model does not exist"),
        (
            {"prompts": {"folder": "/no/prompts"}},
            "prompt /no/prompts/rewrite_shift_question.yaml cannot be read",
        ),
        ({"plan": {"max_fanout": 1}}, "max_fanout=1 is less than the 2 sources"),
        ({"assemble": {"card": "/no/card.md"}}, "card template /no/card.md cannot be read"),
    ],
)
def test_wrong_input_is_named(configure: Configure, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.execute(configure(**changes))


def test_an_empty_dump_is_named(configure: Configure, root: Path) -> None:
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    with pytest.raises(InputError, match="holds no objects: upload shards to it"):
        plan.execute(configure())


def test_a_shard_of_another_type_is_named(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00001.parquet", pa.table({"text": [1, 2]}))
    with pytest.raises(InputError, match="news-00001.parquet: text is of type int64, not text"):
        plan.execute(configure())


def test_a_run_that_was_not_planned_is_named(root: Path) -> None:
    for uri, message in (
        ("file:///x", "not of the form"),
        (f"file://{root}/runs/news/0", "there is no plan"),
    ):
        with pytest.raises(InputError, match=message):
            Run.open(uri)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 3000))
def test_packing_keeps_every_shard_once_and_in_order(sizes: list[int], group_bytes: int) -> None:
    shards = [
        Shard(role="corpus", source="d", key=f"corpus/d/{number:05d}.parquet", etag="e", size=size, rows=1)
        for number, size in enumerate(sizes)
    ]
    groups = pack(reversed(shards), group_bytes)
    assert [shard for group in groups for shard in group.shards] == shards
    assert all(len(group.shards) == 1 or sum(s.size for s in group.shards) <= group_bytes for group in groups)


def shards_of(sizes: list[int], source: str = "d") -> list[Shard]:
    return [
        Shard(
            role="corpus",
            source=source,
            key=f"corpus/{source}/{number:06d}.parquet",
            etag="e",
            size=size,
            rows=1,
        )
        for number, size in enumerate(sizes)
    ]


def bytes_of(group: Group) -> int:
    return sum(shard.size for shard in group.shards)


@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=80), min_size=1, max_size=4),
    st.integers(4, 40),
    st.integers(1, 3000),
)
def test_units_hold_every_shard_once_and_in_order(
    sources: list[list[int]], max_fanout: int, group_bytes: int
) -> None:
    shards = [shards_of(sizes, f"d{number}") for number, sizes in enumerate(sources)]
    groups = units(shards, group_bytes, max_fanout)
    assert [shard for group in groups for shard in group.shards] == [shard for one in shards for shard in one]
    assert len(groups) <= max_fanout
    assert all(len({shard.source for shard in group.shards}) == 1 for group in groups)


@given(st.lists(st.integers(80, 120), min_size=1, max_size=300), st.integers(1, 40))
@example([80] * 7 + [94] + [80] * 7 + [87], 15)
def test_units_of_similar_shards_are_similar(sizes: list[int], max_fanout: int) -> None:
    groups = units([shards_of(sizes)], 1, max_fanout)
    assert len(groups) == min(len(sizes), max_fanout)
    assert max(map(bytes_of, groups)) <= 2 * sum(sizes) / len(groups)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300), st.integers(1, 40))
def test_as_many_units_as_allowed_are_made_however_the_shards_differ(
    sizes: list[int], max_fanout: int
) -> None:
    assert len(units([shards_of(sizes)], 1, max_fanout)) == min(len(sizes), max_fanout)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.integers(1, 40))
def test_a_unit_is_at_most_the_mean_and_one_shard_long(sizes: list[int], max_fanout: int) -> None:
    groups = units([shards_of(sizes)], 1, max_fanout)
    assert max(map(bytes_of, groups)) <= sum(sizes) / min(len(sizes), max_fanout) + max(sizes)


def test_units_are_shared_among_sources_by_their_bytes() -> None:
    sources = [shards_of([10] * 900, "large"), shards_of([10] * 90, "small"), shards_of([10_000], "one")]
    groups = units(sources, 10, 100)
    assert [
        sum(group.shards[0].source == name for group in groups) for name in ("large", "small", "one")
    ] == [
        90,
        9,
        1,
    ]


def test_a_dump_of_many_shards_is_planned_into_max_fanout_units(configure: Configure, root: Path) -> None:
    shard = root / "corpus/news/news-00000.parquet"
    for number in range(2, 2000):
        os.link(shard, root / f"corpus/news/news-{number:05d}.parquet")
    result = plan.execute(configure(plan={"max_fanout": 20, "group_bytes": 1}))
    groups = Run.open(result["run"]).plan.groups
    corpus = [group for group in groups if group.role == "corpus"]
    assert (result["embed_units"], result["documents"], len(groups)) == (20, 12_000, 20)
    assert [shard.name for group in corpus for shard in group.shards] == [
        f"news-{n:05d}" for n in range(2000)
    ]
    assert max(map(bytes_of, corpus)) <= 1.1 * min(map(bytes_of, corpus))


def test_a_later_plan_reads_no_unchanged_footer(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan.execute(configure())
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": "one more"}])
    read = footers._read_one
    keys: list[str] = []
    monkeypatch.setattr(
        footers, "_read_one", lambda storage, info: (keys.append(info.key), read(storage, info))[1]
    )
    later = plan.execute(configure())
    assert keys == ["corpus/news/news-00002.parquet"]
    assert (first["documents"], later["documents"]) == (12, 13)


def test_shards_without_rows_are_planned(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00002.parquet", pa.table({"text": pa.array([], pa.string())}))
    (root / "corpus/news/news-00003.parquet").write_bytes(b"")
    result = plan.execute(configure())
    rows = [shard.rows for shard in Run.open(result["run"]).plan.groups[0].shards]
    assert rows == [6, 6, 0, UNKNOWN_ROWS]
    assert result["documents"] == 12


def test_a_dump_without_any_row_is_named_in_the_log(
    configure: Configure, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    write_shard(root / "corpus/news/a.parquet", pa.table({"text": pa.array([], pa.string())}))
    (root / "corpus/news/b.jsonl").write_bytes(b"\n")
    assert plan.execute(configure())["documents"] == 0
    assert "corpus/news: none of its 2 shards has a row" in caplog.text
    (root / "corpus/news/b.jsonl").write_bytes(b'{"text": "a"}\n')
    caplog.clear()
    plan.execute(configure())
    assert "has a row" not in caplog.text


ROW = b'{"instruction": "q", "output": "a"}'
BEGINNINGS = {".gz": gzip.compress(ROW)[:-1], ".zst": b"\x28\xb5\x2f\xfd"}


def test_json_shards_of_an_sft_set_are_counted(
    configure: Configure, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.json", "b.jsonl", "c.jsonl.gz", "d.jsonl.zst"]
    for name in names:
        # The last two are cut off behind the beginning of what their names say.
        (root / "sft/sums" / name).write_bytes(BEGINNINGS.get(Path(name).suffix, ROW))
    run = opened(configure(plan={"group_bytes": 1}))
    rows = {shard.name: shard.rows for group in run.plan.groups for shard in group.shards}
    parquet = {"news-00000": 6, "news-00001": 6, "sums-00000": 8}
    counted = {"a.json": 1, "b.jsonl": 1, "c.jsonl.gz": UNKNOWN_ROWS, "d.jsonl.zst": UNKNOWN_ROWS}
    assert rows == counted | parquet
    assert "no readable footer" not in caplog.text
    assert caplog.text.count("cannot be counted: its embed unit will fail") == 2


def test_what_is_not_read_is_named_in_log_plan_and_result(
    configure: Configure, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("README.md", "notes/b.txt", "_temporary/0/part.parquet", ".ipynb_checkpoints/news.parquet"):
        path = root / "corpus/news" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "sft/sums/dataset_info.json").write_text("{}")
    caplog.set_level(logging.INFO)
    result = plan.execute(configure())
    assert (result["objects_not_read"], result["objects_left_out"]) == (2, 3)
    news, sums = Run.open(result["run"]).plan.unread
    assert news.model_dump() == {
        "folder": "corpus/news/",
        "objects": 2,
        "first": ("corpus/news/README.md", "corpus/news/notes/b.txt"),
        "skipped": {"hidden files": 2},
    }
    assert (sums.objects, sums.skipped) == (0, {"files about files": 1})
    assert "2 objects are not read: corpus/news/README.md, corpus/news/notes/b.txt" in caplog.text
    # They decide nothing: without them, and with another answer to them, the run is the same.
    with pytest.raises(InputError, match=r"2 objects are not read: .*set plan.unknown_files=warn"):
        plan.execute(configure(plan={"unknown_files": "refuse"}))
    for name in ("README.md", "notes/b.txt"):
        (root / "corpus/news" / name).unlink()
    assert plan.execute(configure(plan={"unknown_files": "refuse"}))["run"] == result["run"]


def test_all_shards_of_a_wrong_schema_are_reported_together(configure: Configure, root: Path) -> None:
    for number in range(2, 8):
        write_shard(root / f"corpus/news/news-{number:05d}.parquet", [{"body": "x"}])
    write_shard(root / "corpus/news/news-00008.parquet", pa.table({"text": [1, 2]}))
    write_shard(root / "sft/sums/sums-00001.parquet", [{"question": "x"}])
    with pytest.raises(InputError) as caught:
        plan.execute(configure())
    message = str(caught.value)
    assert "news-00002.parquet has no column 'text'" in message
    assert "(the same: news-00003.parquet, news-00004.parquet, news-00005.parquet, and 2 more)" in message
    assert "news-00008.parquet: text is of type int64" in message
    assert "sums-00001.parquet is no SFT set" in message
    assert "news-00007" not in message


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_spent(
    configure: Configure, root: Path
) -> None:
    engine = configure().engine.model_dump(mode="json")
    for change in (
        {"engine": engine | {"max_model_len": 300}},
        {"prompts": {"folder": str(REPOSITORY / "prompts"), "sampling": {"max_tokens": 1000}}},
    ):
        with pytest.raises(
            InputError, match="no room for (the|a) document.*: raise engine.max_model_len, lower"
        ):
            plan.execute(configure(**change))
    assert not list((root / "runs").rglob("plan.json"))


def test_what_only_several_or_judged_answers_need_is_asked_for_only_then(
    configure: Configure, root: Path, tmp_path: Path
) -> None:
    three = tmp_path / "prompts"
    three.mkdir()
    for path in (REPOSITORY / "prompts").glob("[!j]*.yaml"):
        (three / path.name).write_text(path.read_text())
    prompts = {"folder": str(three), "sampling": {"max_tokens": 256}}
    greedy = prompts | {"answers_per_question": 4}
    several = greedy | {"sampling": {"max_tokens": 256, "temperature": 0.8}}
    small = tiny.make_model(
        tmp_path / "small", MODELS / "SmolLM2-135M-Instruct", "float32", max_position_embeddings=200
    )
    base: dict[str, Any] = {"finetune": {"model": str(small)}}
    # The judge's prompt is not there, and nobody asks for it.
    assert plan.execute(configure(prompts=several), check=True)["checked"]
    for message, changes in (
        ("judge_answer.yaml cannot be read", {"prompts": prompts, "gates": {"min_faithfulness": "partly"}}),
        ("answers_per_question=4, and .* has temperature=0", {"prompts": greedy}),
        ("reads 200 tokens at most: .* up to 256 do not fit", {"prompts": several, **base}),
    ):
        with pytest.raises(InputError, match=message):
            plan.execute(configure(**changes))
    assert not list((root / "runs").rglob("plan.json"))


@pytest.mark.parametrize(
    ("memory", "arguments", "fits"),
    [
        (0, {}, True),
        (300_000_000, {}, True),
        (200_000_000, {}, False),
        (300_000_000, {"gpu_memory_utilization": 0.8}, False),
        (200_000_000, {"tensor_parallel_size": 2}, True),
        (200_000_000, {"pipeline_parallel_size": 2}, True),
    ],
)
def test_weights_that_no_gpu_can_hold_are_refused_before_anything_is_spent(
    configure: Configure,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    arguments: dict[str, Any],
    fits: bool,
) -> None:
    # 134.5 million weights in bfloat16: 269 MB.
    gpus = [Gpu("GPU-0", 0, "A card", memory), Gpu("GPU-1", 1, "A card", 2 * memory)]
    if "tensor_parallel_size" in arguments:
        # A slice is for one process alone: it has no part in what is spread.
        gpus.append(Gpu("MIG-2", 2, "A card, a slice", 1, card="GPU-2"))
    monkeypatch.setattr("aitp_tasks.machine.gpus._installed", lambda: gpus)
    monkeypatch.setattr(plan.memory, "require", lambda _: None)
    engine = configure().engine.model_dump(mode="json") | {"engine_args": arguments}
    if fits:
        plan.execute(configure(engine=engine), check=True)
    else:
        with pytest.raises(InputError, match=r"take 0.3 GB a GPU, and 0.2 GB may be used: raise tensor"):
            plan.execute(configure(engine=engine), check=True)


def test_guessing_with_what_is_not_installed_is_refused_before_anything_is_spent(
    configure: Configure, root: Path
) -> None:
    engine = configure().engine.model_dump(mode="json")
    with pytest.raises(InputError, match=r"suffix needs the package arctic-inference, .* or set ngram"):
        plan.execute(configure(engine=engine | {"speculation": "suffix"}))
    assert not list((root / "runs").rglob("plan.json"))
    guessing = plan.execute(configure(engine=engine | {"speculation": "ngram"}))["run"]
    # It can be switched on and off within a run.
    assert guessing == plan.execute(configure(engine=engine))["run"]
    assert Run.open(guessing).config.engine.speculation is None


def test_a_training_that_no_gpu_can_hold_is_refused_before_anything_is_spent(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aitp_tasks.machine.gpus._installed", lambda: [Gpu("GPU-0", 0, "A card", 7_000_000_000)]
    )
    with pytest.raises(InputError, match="takes about 8 GB on each of 1 GPUs, which have 7 GB: set"):
        plan.execute(configure())
    finetune = configure().finetune.model_dump(mode="json") | {"nodes": 100}
    # Many machines could; evaluate has one.
    with pytest.raises(InputError, match="evaluate's training on one machine of .* takes about 8 GB on each"):
        plan.execute(configure(finetune=finetune, evaluate={"held_out": 0.1}))
    assert not list((root / "runs").rglob("plan.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no template", "has no chat template: set finetune.chat_template to a Jinja file"),
        ("no twin", "no training twin of the chat template of .* is known"),
        ("no tokenizer", "finetune.model .*tokenizer"),
    ],
)
def test_a_model_that_cannot_be_trained_on_chats_is_refused_before_anything_is_spent(
    configure: Configure, root: Path, tmp_path: Path, change: str, message: str
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in (MODELS / "SmolLM2-135M-Instruct").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").unlink()
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if change == "no twin":
        (folder / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    elif change == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=message):
        plan.execute(configure(finetune={"model": str(folder)}))
    assert not list((root / "runs").rglob("plan.json"))


def test_what_is_only_checked_leaves_no_plan(configure: Configure, root: Path) -> None:
    before = sorted(path for path in root.rglob("*") if path.is_file())
    checked = plan.execute(configure(), check=True)
    after = [path for path in root.rglob("*") if path.is_file() and path.parts[-3] != "footers"]
    assert sorted(after) == before
    planned = plan.execute(configure())
    assert {**checked, "checked": False, "seconds": 0} == {**planned, "seconds": 0}
    assert plan.execute(configure(), check=True)["run"] == planned["run"]
    with pytest.raises(InputError):
        plan.execute(configure(dump="typo"), check=True)


def test_the_result_is_small_however_long_names_are_and_whatever_is_done(
    configure: Configure, root: Path
) -> None:
    names = [f"dump-of-2026-{number:02d}" for number in range(12)]
    for name in names:
        for shard in range(10):
            write_shard(root / f"corpus/{name}/s{shard}.parquet", [{"text": "a"}])
    config = configure(dump="+".join(names), plan={"group_bytes": 1})
    run = Run.open(plan.execute(config)["run"])
    for unit in range(0, len(run.plan.groups), 2):
        run.commit(Manifest(stage="embed", label=""), run.plan.groups[unit].digest)
    # What a task hands on.
    assert len(json.dumps(plan.execute(config))) <= 1024


def test_settings_of_a_toy_are_told_and_refuse_nothing(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    large = toys.Scale(10**7, 10**12, 10**6, 7 * 10**9, 7 * 10**9, 8192)
    monkeypatch.setattr(toys.Scale, "of", lambda *_: large)
    engine = {"model": str(MODELS / "SmolLM2-135M-Instruct"), "engine_args": {"enforce_eager": True}}
    config = configure(engine=engine | {"max_model_len": 2048}, difference={"max_documents": 24})
    told = plan.execute(config, check=True)["toy_settings"]
    assert told[:2] == ["engine.engine_args.enforce_eager=true", "engine.max_model_len=2048"]
    assert "difference.max_documents=24" in told
    warned = [record.getMessage() for record in caplog.records if "suits a tiny model" in record.getMessage()]
    assert len(warned) == len(toys.found(config, large)) == len(told)
    assert plan._fitting(["a" * 40, "b" * 40], 70) == ["a" * 40]
    assert plan._fitting(["a" * 40], 10) == []
