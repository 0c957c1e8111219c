"""Embedding real texts with the real encoder: accounting, caching, broken shards, hostile rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks import embed, index, tables, vectors
from aitp_tasks.embed import encoder
from aitp_tasks.errors import BudgetExceededError, InputError
from aitp_tasks.moments import Moments
from aitp_tasks.plan import execute as plan
from aitp_tasks.run import Run
from tests.aitp_tasks.conftest import Configure, write_shard


def opened(config: Any) -> Run:
    return Run.open(plan(config)["run"])


def units(run: Run) -> range:
    return range(len(run.plan.groups))


def etags(root: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_vectors_equal_the_plain_encoder(configure: Configure) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    (shard, _) = embed.shard_manifests(run, run.plan.groups[0])
    found = vectors.read(run.storage, embed.chunk_keys(shard)[0])
    from sentence_transformers import SentenceTransformer

    texts = [f"Document 0-{row} tells of rivers, ports and grain." for row in range(6)]
    plain = SentenceTransformer(run.config.encoder.model, local_files_only=True).encode(texts)
    cosines = (found.values.astype(np.float32) * plain).sum(axis=1)
    assert cosines.min() > 0.999
    assert found.rows.tolist() == list(range(6))


def test_moments_and_index_are_those_of_the_vectors(configure: Configure) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    for shard in embed.shard_manifests(run, run.plan.groups[0]):
        found = vectors.read(run.storage, embed.chunk_keys(shard)[0])
        moments = Moments.from_bytes(run.storage.read(shard.output("moments")))
        assert moments.count == 6
        assert np.allclose(moments.total, found.values.astype(np.float64).sum(axis=0))
        stored = index.from_bytes(run.storage.read(shard.output("index")), "index")
        assert sorted(index.ids_of(stored).tolist()) == sorted(vectors.faiss_ids(found.doc_ids).tolist())


def test_a_second_run_does_nothing_and_loads_no_model(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(configure())
    for unit in units(run):
        assert embed.execute(run, unit)["rows_embedded_now"] > 0
    before = etags(root)
    monkeypatch.setattr(encoder, "Encoder", None)
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


def test_an_interrupted_shard_keeps_its_chunks(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "CHUNK_ROWS", 2)
    calls = 0
    plain = encoder.Encoder.encode

    def dies(self: Any, texts: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return plain(self, texts)

    run = opened(configure(plan={"group_bytes": 1}))
    monkeypatch.setattr(encoder.Encoder, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        embed.execute(run, 0)
    monkeypatch.setattr(encoder.Encoder, "encode", plain)
    assert embed.execute(run, 0)["rows_embedded_now"] == 2


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
    (shard,) = embed.shard_manifests(run, run.plan.groups[0])
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


def test_corruption_inside_a_shard_is_named(configure: Configure, root: Path) -> None:
    path = root / "corpus/news/news-00000.parquet"
    write_shard(path, [{"text": f"{number} " * 200} for number in range(300)])
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    run = opened(configure())
    with pytest.raises(InputError, match=r"news-00000.parquet is not readable as Parquet"):
        embed.execute(run, 0)


def test_a_shard_that_changed_after_it_was_used_asks_for_a_new_run(configure: Configure, root: Path) -> None:
    run = opened(configure())
    embed.execute(run, 0)
    write_shard(root / "corpus/news/news-00000.parquet", [{"text": "another text"}])
    with pytest.raises(
        InputError, match=r"news-00000.parquet changed after this run had embedded it: start a new run"
    ):
        embed.execute(run, 0)


def test_an_encoder_that_cannot_be_loaded_is_named(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    run = opened(configure(encoder={"model": str(tmp_path)}))
    with pytest.raises(InputError, match="encoder .* cannot be loaded"):
        embed.execute(run, 0)
