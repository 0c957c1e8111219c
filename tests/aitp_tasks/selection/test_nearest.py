"""The SFT examples that every drawn document comes with, against all pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aitp_tasks.encoder import chunks
from aitp_tasks.errors import InputError
from aitp_tasks.records import digest, embedded, tables, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.selection import agreement, nearest
from aitp_tasks.stages import difference, embed, plan
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]
EXAMPLES = [f"Add {number} and one.\nThe sum is {number + 1}." for number in range(40)]


@pytest.fixture
def make_run(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Runs up to a stage over two shards of several chunks; draws all documents, if not told otherwise."""
    monkeypatch.setattr(embed, "open_encoder", lambda *_: made.encoder())
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 16)
    for shard in range(2):
        texts = ["", *(f"{side} text {row} of {shard}" for row in range(30) for side in ("Add", "Sail"))]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", [{"text": text} for text in texts])
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(40))

    def make(last: str = "difference", **settings: Any) -> Run:
        config = configure(difference={"tau": 1e9, **settings}, failure_budget=0.5)
        return made.through(Run.open(plan.execute(config)["run"]), last)

    return make


def selected(run: Run) -> list[dict[str, Any]]:
    done = run.require_manifest("difference")
    return [row for part in run.parts for row in tables.read(run.storage, done.output(part)).to_pylist()]


def cosines(text: str, examples: list[str]) -> np.ndarray:
    """Cosines of a text to some examples."""
    values = np.stack([made.vector(some).astype(np.float64) for some in [text, *examples]])
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values[1:] @ values[0]


def test_each_document_has_its_five_nearest(make_run: MakeRun) -> None:
    by_id = {digest.of_text(example): example for example in EXAMPLES}
    rows = selected(make_run(documents_per_part=30))
    assert len(rows) == 120
    for row in rows:
        found = cosines(row["text"], EXAMPLES)
        assert row["sft_similarities"] == pytest.approx(np.sort(found)[:-6:-1].tolist(), abs=2e-3)
        own = cosines(row["text"], [by_id[doc_id] for doc_id in row["sft_doc_ids"]])
        assert own.tolist() == pytest.approx(row["sft_similarities"], abs=2e-3)


def test_the_figures_tell_the_extremes(make_run: MakeRun) -> None:
    run = make_run()
    rows = sorted(selected(run), key=lambda row: row["sft_similarities"][0])
    figures = run.require_manifest("difference").figures["nearest_sft"]
    first = [row["sft_similarities"][0] for row in rows]
    assert figures["similarity"]["mean"] == pytest.approx(np.mean(first), abs=1e-3)
    assert figures["similarity"]["q50"] == pytest.approx(
        np.quantile(first, 0.5, method="inverted_cdf"), abs=2e-3
    )
    for name, row in (("farthest", rows[0]), ("nearest", rows[-1])):
        assert figures[name] == {
            "doc_id": row["doc_id"],
            "sft_doc_id": row["sft_doc_ids"][0],
            "similarity": round(row["sft_similarities"][0], 4),
        }


def test_only_chunks_with_drawn_rows_are_read(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("density", max_documents=2)
    plain, read = vectors.read, []

    def counted(storage: Any, key: str) -> Any:
        read.append(key)
        return plain(storage, key)

    monkeypatch.setattr(vectors, "read", counted)
    # The criteria are compared on chunks of their own.
    monkeypatch.setattr(agreement, "some_vectors", lambda *_: np.zeros((1, made.DIMENSION), np.float16))
    difference.execute(run)
    assert len(selected(run)) == 2
    assert 1 <= len(read) <= 2


def test_of_few_examples_the_lists_are_shorter(make_run: MakeRun, root: Path) -> None:
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(3))
    rows = selected(make_run())
    assert {len(row["sft_doc_ids"]) for row in rows} == {len(row["sft_similarities"]) for row in rows} == {3}


def test_where_nothing_is_drawn_nothing_is_told(make_run: MakeRun) -> None:
    run = make_run(tau=1e-250)
    assert run.require_manifest("difference").figures["nearest_sft"] == {}


def test_a_vector_that_is_missing_is_named(make_run: MakeRun) -> None:
    run = make_run("density")
    shard = embedded.shards(run, run.plan.groups[0])[0]
    key, other = embedded.chunk_keys(shard)[:2]
    run.storage.write(key, run.storage.read(other))
    with pytest.raises(InputError, match=rf"{key} has no vector of row \d+: delete it and embed anew"):
        difference.execute(run)


def test_the_columns_are_typed(make_run: MakeRun) -> None:
    run = make_run()
    schema = tables.read(run.storage, run.require_manifest("difference").output(run.parts[0])).schema
    assert str(schema.field(nearest.IDS).type).startswith("list<")
    assert schema.field(nearest.IDS).type.value_type == "string"
    assert schema.field(nearest.SIMILARITIES).type.value_type == "float"
