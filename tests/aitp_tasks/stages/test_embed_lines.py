"""JSON Lines embedded with the real encoder give what Parquet of the same texts gives, in parts too."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.inputs import parts
from aitp_tasks.records import embedded, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.selection.texts import Texts
from aitp_tasks.stages import embed
from aitp_tasks.stages.plan import execute as plan
from tests.aitp_tasks.conftest import Configure, write_shard

pytestmark = pytest.mark.slow

ROWS = [
    {"id": number, "text": f"Document {number} tells of ports.", "site": f"s{number % 2}"}
    for number in range(40)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def news(root: Path) -> Path:
    folder = root / "corpus/news"
    for shard in folder.iterdir():
        shard.unlink()
    return folder


def embedded_corpus(config: Any) -> tuple[Run, dict[str, Any], list[tuple[str, str, int]]]:
    """A run, the vectors of its corpus by document, and where each document lies."""
    run = Run.open(plan(config)["run"])
    found, places = {}, []
    for unit, group in enumerate(run.plan.groups):
        if group.role != "corpus":
            continue
        embed.execute(run, unit)
        for shard in embedded.shards(run, group):
            for key in embedded.chunk_keys(shard):
                chunk = vectors.read(run.storage, key)
                found |= dict(zip(chunk.doc_ids, chunk.values, strict=True))
                shard_key, etag = str(shard.figures["shard"]), str(shard.figures["etag"])
                places += [(shard_key, etag, row) for row in chunk.rows.tolist()]
    return run, found, places


def test_lines_and_their_parts_have_the_vectors_of_the_same_texts(
    configure: Configure, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(news / "a.parquet", ROWS)
    _, expected, _ = embedded_corpus(configure())
    (news / "a.parquet").unlink()
    assert len(expected) == len(ROWS)

    (news / "a.jsonl.gz").write_bytes(gzip.compress(LINES))
    _, found, _ = embedded_corpus(configure())
    (news / "a.jsonl.gz").unlink()
    assert found.keys() == expected.keys()

    monkeypatch.setattr(parts, "_SMALLEST", 1)
    (news / "a.jsonl").write_bytes(LINES)
    config = configure(plan={"group_bytes": 700}, difference={"source_column": "site"})
    run, found, places = embedded_corpus(config)
    groups = run.plan.groups_of("corpus")
    assert len(groups) == -(-len(LINES) // 700)
    assert sum(shard.rows for group in groups for shard in group.shards) == pytest.approx(len(ROWS), abs=2)
    assert found.keys() == expected.keys()
    for doc_id, values in expected.items():
        assert np.abs(found[doc_id].astype(np.float32) - values.astype(np.float32)).max() < 0.01

    # Every place leads back to its text.
    table = pa.table(dict(zip(("shard", "etag", "row"), map(list, zip(*places, strict=True)), strict=True)))
    with Texts(run.storage, config.text_columns, table) as texts:
        read = texts.take(np.arange(len(table))).to_pylist()
    assert sorted(read) == sorted(row["text"] for row in ROWS)

    # A part of another version of the file is nothing that was planned.
    (news / "a.jsonl").write_bytes(LINES + LINES)
    with pytest.raises(InputError, match="changed after it was planned.*start a new run"):
        embed.execute(Run.open(run.uri), 0)


def test_a_file_of_which_no_row_can_be_used_is_refused_whatever_the_budget(
    configure: Configure, news: Path
) -> None:
    # The head has a text, so that plan lets it pass; the file is replaced behind its back.
    (news / "a.jsonl").write_bytes(LINES)
    run = Run.open(plan(configure(failure_budget=1.0))["run"])
    (news / "a.jsonl").write_bytes(b'{"body": "x", "id": 1}\n' * 30)
    with pytest.raises(InputError, match=r"none of its 30 rows .*no text: the row has body, id") as caught:
        embed.execute(run, 0)
    assert "budget" not in str(caught.value)
    # By another format under the same name, too.
    (news / "a.jsonl").write_bytes(gzip.compress(LINES))
    with pytest.raises(
        InputError, match=r"a\.jsonl is not readable as JSON Lines \(it is compressed by gzip\)"
    ):
        embed.execute(run, 0)
    (news / "a.jsonl").write_bytes(b"\n".join(LINES.split(b"\n")[:20]))
    assert embed.execute(run, 0)["rows_in"] == 20
