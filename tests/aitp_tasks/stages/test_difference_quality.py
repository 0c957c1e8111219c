"""The quality filter in a run: poor documents are named, others come in their place."""

from pathlib import Path

import pytest

from aitp_tasks.records import selected, tables
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed, plan
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, write_shard
from tests.aitp_tasks.selection.test_quality import PROSE

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]


def test_poor_documents_are_named_and_others_come_in_their_place(
    configure: Configure, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "open_encoder", lambda *_: made.encoder())
    texts = [f"{number} {PROSE}" if number % 2 else f"{number} is short." for number in range(12)]
    for shard in range(2):
        rows = [{"text": text} for text in texts[6 * shard : 6 * shard + 6]]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", [*rows, rows[0]])
    settings = {"tau": 1e9, "max_documents": 5, "quality": "default"}
    run = made.through(Run.open(plan.execute(configure(difference=settings))["run"]), "difference")
    done = run.require_manifest("difference")
    assert done.ledger is not None
    drawn = [row["text"] for part in run.parts for row in selected.documents(run, part)]
    assert len(drawn) == 5
    assert all(PROSE in text for text in drawn)
    unfit = tables.read(run.storage, done.output("unfit")).to_pylist()
    assert {row["reason"] for row in unfit} == {"too_short"}
    assert done.ledger.rejected["quality_too_short"] == len(unfit) > 0
    assert (done.ledger.rows_in, done.ledger.rows_out) == (14, 5)
    # Of twelve different documents; the others, with one copy or none, were not looked at or not drawn.
    assert 5 + len(unfit) <= done.figures["looked_at"] <= 12
    assert 5 + len(unfit) + done.ledger.rejected["not_sampled"] + done.ledger.rejected["repeated_text"] == 14
