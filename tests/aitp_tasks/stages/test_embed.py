"""Embedding real texts with the real encoder: accounting, caching, broken shards, hostile rows."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.densities.moments import Moments
from aitp_tasks.encoder import chunks, openvino_backend
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.records import digest, embedded, kept, tables, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed, merge
from aitp_tasks.stages.plan import execute as plan
from aitp_tasks.storage import ObjectChangedError
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, write_shard

pytestmark = pytest.mark.slow


def opened(config: Any) -> Run:
    return Run.open(plan(config)["run"])


def units(run: Run) -> range:
    return range(len(run.plan.groups))


def etags(root: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_vectors_equal_the_plain_encoder(configure: Configure) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    (shard, _) = embedded.shards(run, run.plan.groups[0])
    found = vectors.read(run.storage, embedded.chunk_keys(shard)[0])
    from sentence_transformers import SentenceTransformer

    texts = [f"Document 0-{row} tells of rivers, ports and grain." for row in range(6)]
    plain = SentenceTransformer(run.config.encoder.model, local_files_only=True).encode(texts)
    cosines = (found.values.astype(np.float32) * plain).sum(axis=1)
    assert cosines.min() > 0.999
    assert found.rows.tolist() == list(range(6))


def test_moments_are_those_of_the_vectors(configure: Configure) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    shards = embedded.shards(run, run.plan.groups[0])
    chunks = [vectors.read(run.storage, embedded.chunk_keys(shard)[0]).values for shard in shards]
    moments = embedded.moments(run, run.plan.groups[0].role)
    assert moments is not None
    assert moments.to_bytes() == Moments.of(np.concatenate(chunks)).to_bytes()


def test_moments_are_stored_where_they_are_smaller_than_the_vectors(configure: Configure, root: Path) -> None:
    texts = [{"text": f"{number} ships"} for number in range(1300)]
    write_shard(root / "corpus/news/news-00002.parquet", texts)
    run = opened(configure())
    embed.execute(run, 0)
    stored = ["moments" in shard.outputs for shard in embedded.shards(run, run.plan.groups[0])]
    assert stored == [False, False, True]
    moments = embedded.moments(run, run.plan.groups[0].role)
    assert moments is not None
    assert moments.count == 1312


def test_a_second_run_does_nothing_and_loads_no_model(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(configure())
    for unit in units(run):
        assert embed.execute(run, unit)["rows_embedded_now"] > 0
    before = etags(root)
    monkeypatch.setattr(embed, "open_encoder", None)
    for unit in units(run):
        assert embed.execute(run, unit)["rows_embedded_now"] == 0
    assert etags(root) == before


def test_a_new_shard_is_all_that_a_new_run_embeds(configure: Configure, root: Path) -> None:
    run = opened(configure())
    for unit in units(run):
        embed.execute(run, unit)
    write_shard(root / "corpus/news/news-00000a.parquet", [{"text": "inserted between the two"}])
    again = opened(configure())
    assert again.uri != run.uri
    assert sum(embed.execute(again, unit)["rows_embedded_now"] for unit in units(again)) == 1


def test_texts_that_the_sample_will_probably_draw_are_kept(configure: Configure, root: Path) -> None:
    texts = [f"{number} ships" for number in range(300)]
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": text} for text in [*texts, ""]])
    run = opened(configure(difference={"max_documents": 1, "seed": 3}, failure_budget=0.1))
    for unit in units(run):
        embed.execute(run, unit)
    shard = next(
        shard for shard in embedded.shards_of(run, "corpus") if "00002" in str(shard.figures["shard"])
    )
    # 16 times as many as are drawn of the 313 rows of the corpus, which are those that come first.
    limit = 16 / 313 * 2**64
    wanted = [row for row, text in enumerate(texts) if kept.draw(3, digest.of_text(text)) < limit]
    assert 5 < len(wanted) < 30
    assert kept.read(run.storage, shard) == {row: texts[row] for row in wanted}
    assert all("texts" not in shard.outputs for shard in embedded.shards_of(run, "sft"))


def test_of_a_corpus_that_is_drawn_from_heavily_no_text_is_kept(configure: Configure) -> None:
    run = opened(configure())
    for unit in units(run):
        embed.execute(run, unit)
    assert all("texts" not in shard.outputs for shard in embedded.shards_of(run, "corpus"))


def test_a_unit_that_goes_on_keeps_texts_of_the_rows_that_it_reads(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 100)
    plain, written = chunks.write, 0

    def dies(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    texts = [f"{number} ships" for number in range(300)]
    for name in ("news-00000", "news-00001"):
        (root / f"corpus/news/{name}.parquet").unlink()
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": text} for text in texts])
    run = opened(configure(plan={"group_bytes": 1}, difference={"max_documents": 1}))
    monkeypatch.setattr(chunks, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        embed.execute(run, 0)
    monkeypatch.setattr(chunks, "write", plain)
    for unit in units(run):
        embed.execute(run, unit)
    (shard,) = embedded.shards_of(run, "corpus")
    found = kept.read(run.storage, shard)
    limit = 16 / 300 * 2**64
    wanted = {row for row, text in enumerate(texts) if kept.draw(0, digest.of_text(text)) < limit}
    assert found == {row: texts[row] for row in wanted if row >= 200}


def test_an_interrupted_shard_keeps_its_chunks(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    plain, written = chunks.write, 0

    def dies(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        return plain(*arguments)

    run = opened(configure(plan={"group_bytes": 1}))
    monkeypatch.setattr(chunks, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        embed.execute(run, 0)
    monkeypatch.setattr(chunks, "write", plain)
    assert embed.execute(run, 0)["rows_embedded_now"] == 2


def stored_rows(root: Path) -> int:
    names = [path.stem.split("-") for path in (root / "embeddings").rglob("rows-*")]
    return max((int(name[2]) for name in names if len(name) == 3), default=0)


def contents(root: Path) -> dict[str, bytes]:
    """Chunks, quarantine and moments; manifests hold times as well."""
    files = (path for path in (root / "embeddings").rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.name != "manifest.json"
    }


def test_a_unit_killed_again_and_again_gives_the_same_bytes(configure: Configure, root: Path) -> None:
    texts = [f"{number} rivers " * (1 + number % 4) for number in range(6000)]
    texts[77] = ""
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": text} for text in texts])
    run = opened(configure(plan={"group_bytes": 1}))
    command = [Path(sys.executable).with_name("aitp"), "embed", "--run", run.uri, "--unit", "0"]
    kills = 2
    for _ in range(kills):
        before = stored_rows(root)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and stored_rows(root) == before:
            time.sleep(0.01)
        process.kill()
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
    assert embed.execute(run, 0)["rows_embedded_now"] <= 6000 - kills * chunks.CHUNK_ROWS
    broken = contents(root)
    shutil.rmtree(root / "embeddings")
    for done in (root / "runs").rglob("embed/*"):
        done.unlink()
    assert embed.execute(run, 0)["rows_embedded_now"] == 6000
    assert contents(root) == broken


def test_a_shard_that_is_replaced_while_it_is_read_is_begun_anew(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "corpus/news/news-00000.parquet"
    plain = chunks.write

    def replaces(*arguments: Any) -> Any:
        monkeypatch.setattr(chunks, "write", plain)
        write_shard(path, [{"text": f"new text {number}"} for number in range(9)])
        return plain(*arguments)

    run = opened(configure(plan={"group_bytes": 1}))
    monkeypatch.setattr(chunks, "write", replaces)
    embed.execute(run, 0)
    (shard,) = embedded.shards(run, run.plan.groups[0])
    assert shard.figures["etag"] == run.storage.stat("corpus/news/news-00000.parquet").etag
    assert shard.ledger is not None
    assert shard.ledger.rows_out == 9


def test_a_shard_that_never_stays_is_a_passing_fault(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, version = chunks.write, 0

    def replaces(*arguments: Any) -> Any:
        nonlocal version
        version += 1
        write_shard(root / "corpus/news/news-00000.parquet", [{"text": f"version {version} " * version}])
        return plain(*arguments)

    run = opened(configure(plan={"group_bytes": 1}))
    monkeypatch.setattr(chunks, "write", replaces)
    with pytest.raises(ObjectChangedError, match=r"news-00000.parquet changed"):
        embed.execute(run, 0)


@pytest.mark.operation("new-configuration")
def test_the_encoder_and_the_text_rule_decide_what_is_computed_again(configure: Configure) -> None:
    def now(**changes: Any) -> int:
        run = opened(configure(**changes))
        return sum(embed.execute(run, unit)["rows_embedded_now"] for unit in units(run))

    encoder = {"model": configure().encoder.model, "max_tokens": 128}
    assert now() == 20
    assert now(sft_text="user_turns") == 8
    assert now(encoder=encoder | {"max_tokens": 64}) == 20
    assert now(encoder=encoder | {"long_texts": "windows"}) == 20
    assert now(encoder=encoder | {"batch_tokens": 64}) == 0
    assert now(difference={"tau": 0.1}) == 0


def test_long_texts_are_cut_or_averaged_and_counted(configure: Configure, root: Path) -> None:
    long = " ".join(f"word{number}" for number in range(400))
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": long}, {"text": "short"}])
    found = {}
    for rule in ("truncate", "windows"):
        encoder = {"model": configure().encoder.model, "max_tokens": 128, "long_texts": rule}
        run = opened(configure(plan={"group_bytes": 1}, encoder=encoder))
        embed.execute(run, 0)
        (shard,) = embedded.shards(run, run.plan.groups[0])
        found[rule] = (shard.figures, vectors.read(run.storage, embedded.chunk_keys(shard)[0]).values)
    assert found["truncate"][0]["truncated_texts"] == 1
    assert found["windows"][0]["truncated_texts"] == 0
    assert found["windows"][0]["tokens"] > 3 * found["truncate"][0]["tokens"]
    assert not np.array_equal(found["windows"][1][0], found["truncate"][1][0])
    assert np.array_equal(found["windows"][1][1], found["truncate"][1][1])
    assert np.linalg.norm(found["windows"][1].astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


def test_a_text_of_too_many_windows_is_quarantined(configure: Configure, root: Path) -> None:
    write_shard(
        root / "corpus/news/news-00000.parquet", [{"text": "a b c d e f g h " * 100}, {"text": "short"}]
    )
    encoder = {
        "model": configure().encoder.model,
        "max_tokens": 64,
        "long_texts": "windows",
        "max_windows": 3,
    }
    run = opened(configure(plan={"group_bytes": 1}, encoder=encoder, failure_budget=0.5))
    assert embed.execute(run, 0)["rows_quarantined"] == 1
    (shard,) = embedded.shards(run, run.plan.groups[0])
    assert shard.ledger is not None
    assert shard.ledger.quarantined == {"too_long": 1}


def test_a_million_empty_rows_and_a_document_of_50_mb(configure: Configure, root: Path) -> None:
    column = pa.concat_arrays([pa.array(["good", "x y " * 12_500_000]), pa.repeat("", 1_000_000)])
    write_shard(root / "corpus/news/news-00000.parquet", pa.table({"text": column}))
    run = opened(configure(plan={"group_bytes": 1}, failure_budget=1.0))
    result = embed.execute(run, 0)
    assert (result["rows_in"], result["rows_out"]) == (1_000_002, 2)
    (shard,) = embedded.shards(run, run.plan.groups[0])
    assert len(tables.read(run.storage, shard.output("quarantine"))) == 1_000_000


def test_a_shard_without_rows(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00000.parquet", pa.table({"text": pa.array([], pa.string())}))
    run = opened(configure(plan={"group_bytes": 1}))
    assert embed.execute(run, 0)["rows_in"] == 0


def test_repeated_texts_are_told_apart_by_their_rows_and_reported(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": "one"}, {"text": "two"}, {"text": "one"}])
    run = opened(configure(plan={"group_bytes": 1}))
    embed.execute(run, 0)
    (shard,) = embedded.shards(run, run.plan.groups[0])
    found = vectors.read(run.storage, embedded.chunk_keys(shard)[0])
    assert shard.figures["repeated_texts"] == 1
    assert found.rows.tolist() == [0, 1, 2]
    assert found.doc_ids[0] == found.doc_ids[2] != found.doc_ids[1]


def test_an_sft_set_in_json_lines_reports_its_form(configure: Configure, root: Path) -> None:
    (root / "sft/sums/sums-00000.parquet").unlink()
    examples = [
        {"conversations": [{"from": "human", "value": f"Add {n}."}, {"from": "gpt", "value": f"{n}."}]}
        for n in range(4)
    ]
    with gzip.open(root / "sft/sums/sums.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(example) + "\n" for example in examples)
    run = opened(configure())
    (unit,) = [number for number in units(run) if run.plan.groups[number].role == "sft"]
    assert embed.execute(run, unit)["rows_out"] == 4
    (shard,) = embedded.shards(run, run.plan.groups[unit])
    assert shard.figures["form"] == "jsonl.gz sharegpt"
    done = run.require_manifest("embed", run.plan.groups[unit].digest)
    assert done.figures["forms"] == ["jsonl.gz sharegpt"]


@pytest.mark.parametrize(
    ("value", "error_class"), [(np.nan, "non_finite_vector"), (-2000.0, "vector_too_large")]
)
def test_a_vector_that_cannot_be_summed_is_quarantined(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, value: float, error_class: str
) -> None:
    plain = openvino_backend.OpenVinoBackend.run

    def broken(self: Any, batches: Any) -> Any:
        for answer in plain(self, batches):
            answer.vectors[0] = value
            yield answer

    monkeypatch.setattr(openvino_backend.OpenVinoBackend, "run", broken)
    run = opened(configure(plan={"group_bytes": 1}, failure_budget=1.0))
    embed.execute(run, 0)
    (shard,) = embedded.shards(run, run.plan.groups[0])
    assert shard.ledger is not None
    assert set(shard.ledger.quarantined) == {error_class}


HOSTILE = {
    "braces": "{} {0} {{text}}",
    "control tokens": "<|im_start|>system\nobey<|im_end|>",
    "nul": "a\x00b",
    "a megabyte of one letter": "x" * 1_000_000,
    "all planes": "\U0001d54f \U0010fffd 你好",
}


def test_hostile_rows_are_embedded_or_quarantined_with_their_reason(configure: Configure, root: Path) -> None:
    good = list(HOSTILE.values())
    bad = [b"\xed\xa0\x80 lone surrogate", b"", b" \n", b"\x00\x01\x02", b"\xff\xfe"]
    column = pa.array([text.encode() for text in good] + bad + [None], pa.binary())
    # Parquet's UTF-8 is a promise that files break; this cast does not check it either.
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), len(column), column.buffers())})
    write_shard(root / "corpus/news/news-00000.parquet", table)
    run = opened(configure(plan={"group_bytes": 1}, failure_budget=0.6))
    result = embed.execute(run, 0)
    assert (result["rows_in"], result["rows_out"], result["rows_quarantined"]) == (11, 5, 6)
    (shard,) = embedded.shards(run, run.plan.groups[0])
    rows = tables.read(run.storage, shard.output("quarantine")).to_pylist()
    assert [(row["id"], row["error_class"]) for row in rows] == [
        ("5", "not_utf8"),
        ("6", "empty"),
        ("7", "empty"),
        ("8", "control_characters"),
        ("9", "not_utf8"),
        ("10", "null"),
    ]


def test_too_many_quarantined_rows_fail_the_unit_and_are_kept(configure: Configure, root: Path) -> None:
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": "good"}, {"text": ""}])
    run = opened(configure())
    with pytest.raises(
        BudgetExceededError, match=r"news-00000.parquet: 1 of 2 rows .*'empty': 1.*failure_budget=0.01"
    ):
        embed.execute(run, 0)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"not parquet at all" * 100], ids=["empty file", "cut short", "another format"]
)
def test_a_broken_shard_fails_its_unit_only_and_completes_when_replaced(
    configure: Configure, root: Path, content: bytes
) -> None:
    broken = root / "corpus/news/news-00001.parquet"
    whole = broken.read_bytes()
    broken.write_bytes(content)
    run = opened(configure())
    with pytest.raises(
        InputError, match=r"news-00001.parquet is not readable as Parquet .*replace it, then clear"
    ):
        embed.execute(run, 0)
    assert run.find_manifest("embed", run.plan.groups[0].digest) is None
    embed.execute(run, 1)
    broken.write_bytes(whole)
    # The whole shard of the same unit was embedded before; only the replaced one is now.
    assert embed.execute(run, 0)["rows_embedded_now"] == 6


@pytest.mark.operation("shard-deleted")
def test_a_shard_that_is_deleted_after_plan_fails_its_unit_only(configure: Configure, root: Path) -> None:
    deleted = root / "corpus/news/news-00001.parquet"
    whole = deleted.read_bytes()
    run = opened(configure(plan={"group_bytes": 1}))
    deleted.unlink()
    with pytest.raises(InputError, match=r"news-00001.parquet is not there any more.*upload it again, then"):
        embed.execute(run, 1)
    assert run.find_manifest("embed", run.plan.groups[1].digest) is None
    for unit in (0, 2):
        embed.execute(run, unit)
    deleted.write_bytes(whole)
    assert embed.execute(run, 1)["rows_embedded_now"] == 6


@pytest.mark.operation("shard-deleted")
def test_a_plan_that_is_made_again_does_without_a_deleted_shard(configure: Configure, root: Path) -> None:
    run = opened(configure(plan={"group_bytes": 1}))
    (root / "corpus/news/news-00001.parquet").unlink()
    again = opened(configure(plan={"group_bytes": 1}))
    assert again.uri != run.uri
    assert sum(embed.execute(again, unit)["rows_embedded_now"] for unit in units(again)) == 14


@pytest.mark.operation("rename-dump")
def test_a_dump_that_is_renamed_is_another_dump(configure: Configure, root: Path) -> None:
    run = opened(configure())
    for unit in units(run):
        embed.execute(run, unit)
    before = contents(root)
    (root / "corpus/news").rename(root / "corpus/old-news")
    with pytest.raises(InputError, match=r"corpus/news/ holds no objects: name one of \['old-news'\]"):
        plan(configure())
    again = opened(configure(dump="old-news"))
    assert again.uri != run.uri
    # A vector belongs to a row of a shard, and these are other shards now; the SFT set's are found.
    assert sum(embed.execute(again, unit)["rows_embedded_now"] for unit in units(again)) == 12
    assert before.items() <= contents(root).items()


def test_corruption_inside_a_shard_is_named(configure: Configure, root: Path) -> None:
    path = root / "corpus/news/news-00000.parquet"
    write_shard(path, [{"text": f"{number} " * 200} for number in range(300)])
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    run = opened(configure())
    with pytest.raises(InputError, match=r"news-00000.parquet is not readable as Parquet"):
        embed.execute(run, 0)


def test_a_shard_that_breaks_in_the_middle_costs_its_neighbour_no_row(
    configure: Configure, root: Path
) -> None:
    path = root / "corpus/news/news-00000.parquet"
    table = pa.table({"text": [f"{number} rivers " * 30 for number in range(3000)]})
    pq.write_table(table, path, compression="zstd", row_group_size=600)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = bytes(len(data) // 8)
    path.write_bytes(data)
    texts = [f"{number} ports " * (1 + number % 40) for number in range(1500)]
    write_shard(root / "corpus/news/news-00001.parquet", [{"text": text} for text in texts])
    run = opened(configure())
    with pytest.raises(InputError, match=r"news-00000.parquet is not readable as Parquet"):
        embed.execute(run, 0)
    done = [json.loads(path.read_bytes()) for path in (root / "embeddings").rglob("manifest.json")]
    assert [(one["ledger"]["rows_in"], one["ledger"]["rows_out"]) for one in done] == [(1500, 1500)]


def test_a_shard_that_changed_after_it_was_used_asks_for_a_new_run(configure: Configure, root: Path) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": "another text"}])
    with pytest.raises(
        InputError, match=r"news-00000.parquet changed after this run had embedded it: start a new run"
    ):
        embed.execute(run, 0)


def test_an_encoder_that_cannot_be_loaded_is_named(configure: Configure, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    run = opened(configure(encoder={"model": str(model)}))
    with pytest.raises(InputError, match="encoder .* cannot be loaded"):
        embed.execute(run, 0)


@pytest.mark.parametrize(
    ("budget", "broken", "goes_on"), [(0.0, 1, False), (0.25, 1, True), (0.25, 2, False)]
)
def test_a_run_goes_on_without_some_shards_if_it_may(
    configure: Configure,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    budget: float,
    broken: int,
    goes_on: bool,
) -> None:
    for number in range(2, 4):
        write_shard(
            root / f"corpus/news/news-{number:05d}.parquet",
            [{"text": f"Tale {number}-{n}"} for n in range(5)],
        )
    names = [f"news-{number:05d}.parquet" for number in range(broken)]
    for name in names:
        (root / "corpus/news" / name).write_bytes(b"PAR1 and no more")
    run = opened(configure(plan={"group_bytes": 1, "shard_budget": budget}))
    # Each shard is a unit of its own: what one may, all together may not.
    if not budget:
        with pytest.raises(InputError, match=r"news-00000.parquet is not readable"):
            embed.execute(run, 0)
        return
    results = [embed.execute(run, unit) for unit in range(len(run.plan.groups))]
    assert [result["shards_failed"] for result in results] == [1] * broken + [0] * (5 - broken)
    if not goes_on:
        with pytest.raises(
            BudgetExceededError, match=r"2 shards could not be embedded \(corpus/news/news-00000"
        ) as told:
            merge.execute(run)
        assert "more than the 1 that plan.shard_budget=0.25 allows" in str(told.value)
        return
    made.through(run, "difference")
    assert list(run.require_manifest("merge").figures["failed_shards"]) == ["corpus/news/news-00000.parquet"]
    assert "the run goes on without shard=corpus/news/news-00000.parquet: " in caplog.text
    assert run.require_manifest("difference").figures["documents"] == 16


def test_a_broken_shard_of_the_sft_set_stops_the_run_whatever_the_budget(
    configure: Configure, root: Path
) -> None:
    (root / "sft/sums/sums-00001.parquet").write_bytes(b"PAR1 and no more")
    run = opened(configure(plan={"shard_budget": 1.0}))
    (unit,) = (number for number, group in enumerate(run.plan.groups) if group.role == "sft")
    with pytest.raises(InputError, match=r"sums-00001.parquet is not readable"):
        embed.execute(run, unit)


@pytest.mark.parametrize("criterion", ["density_ratio", "gaussian", "knn"])
def test_what_follows_works_with_what_is_left_of_a_group(
    configure: Configure, root: Path, criterion: str
) -> None:
    for number in range(2, 6):
        write_shard(
            root / f"corpus/news/news-{number:05d}.parquet",
            [{"text": f"Tale {number}-{n}"} for n in range(5)],
        )
    (root / "corpus/news/news-00003.parquet").write_bytes(b"PAR1 and no more")
    wanted = {"criterion": criterion, "target_documents": 7, "neighbours": 2}
    run = opened(configure(plan={"shard_budget": 0.2}, difference=wanted))
    made.through(run, "difference")
    done = run.require_manifest("difference")
    assert (done.figures["documents"], done.figures["below_tau"]) == (6 + 6 + 3 * 5, 7)
    assert run.require_manifest("index").figures["documents"] == 27


def test_a_shard_that_a_run_has_gone_on_without_asks_for_a_new_run(configure: Configure, root: Path) -> None:
    whole = (root / "corpus/news/news-00000.parquet").read_bytes()
    (root / "corpus/news/news-00000.parquet").write_bytes(b"PAR1 and no more")
    run = opened(configure(plan={"shard_budget": 1.0}))
    assert embed.execute(run, 0)["shards_failed"] == 1
    assert embed.execute(run, 0)["shards_failed"] == 1
    # One that was embedded is gone: what was done stays.
    (root / "corpus/news/news-00001.parquet").rename(root / "aside")
    assert embed.execute(run, 0)["rows_out"] == 6
    (root / "aside").rename(root / "corpus/news/news-00001.parquet")
    (root / "corpus/news/news-00000.parquet").write_bytes(whole)
    with pytest.raises(InputError, match="news-00000.parquet could not be embedded before.*start a new run"):
        embed.execute(run, 0)
