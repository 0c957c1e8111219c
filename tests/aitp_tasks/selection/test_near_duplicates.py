"""Near-duplicates: new pairs are compared with the SFT side and with one another."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from aitp_tasks.inputs import rows
from aitp_tasks.inputs.forms import compared
from aitp_tasks.records import indexed
from aitp_tasks.records.run import Run
from aitp_tasks.selection import near_duplicates
from aitp_tasks.selection.near_duplicates import Selection
from aitp_tasks.stages import plan
from aitp_tasks.vector_index.opened import OpenIndex
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL

pytestmark = pytest.mark.slow

LIMIT = 0.95
small_models = test_generation.small_models


def select(run: Run, pairs: list[dict[str, Any]], limit: float = LIMIT) -> Selection:
    """The call of who chooses among pairs."""
    texts = (compared.of_pair(one["messages"], run.config.sft_text) for one in pairs)
    with OpenIndex(run.storage, indexed.keys(run, "sft"), "sft") as index:
        compared_with = index if limit < 1 else None
        return near_duplicates.select(
            pairs, made.encoder().vectors_of(texts), compared_with, limit, lambda values: values[:, :2] / 2.0
        )


def pair(number: int, question: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"pair_id": f"{number:032x}", "messages": messages}


def texts(pairs: list[dict[str, Any]], run: Run) -> list[str]:
    found = [compared.of_pair(one["messages"], run.config.sft_text) for one in pairs]
    assert all(isinstance(text, str) for text in found)
    return [str(text) for text in found]


@pytest.fixture
def run(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run up to its SFT index, its vectors made from each text's first word and whole."""
    monkeypatch.setattr("aitp_tasks.stages.embed.open_encoder", lambda *_: made.encoder())
    config = configure(**SELECT_ALL, assemble={"max_similarity": LIMIT})
    return made.through(Run.open(plan.execute(config)["run"]), "merge")


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    """600 pairs, more than a chunk, around 30 centres; every tenth is the one before it, word for word."""
    made_pairs = [pair(n, f"topic{n % 30} is what, for the {n}th time?", "It is so.") for n in range(600)]
    for number in range(10, 600, 10):
        made_pairs[number]["messages"] = made_pairs[number - 1]["messages"]
    return made_pairs


def test_kept_and_left_out_are_those_of_all_pairs_compared_one_by_one(
    run: Run, pairs: list[dict[str, Any]]
) -> None:
    chosen = select(run, pairs)
    values = np.stack([made.vector(text).astype(np.float16) for text in texts(pairs, run)]).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    kept: list[int] = []
    for number in range(len(pairs)):
        if not kept or (values[kept] @ values[number]).max() <= LIMIT:
            kept.append(number)
    assert [one["pair_id"] for one in chosen.kept] == [pairs[number]["pair_id"] for number in kept]
    assert len(chosen.duplicates) == 600 - len(kept) >= 59
    for row in chosen.duplicates:
        other = int(row["nearest_pair_id"], 16)
        assert other in kept
        assert row["similarity"] == pytest.approx(values[int(row["pair_id"], 16)] @ values[other], abs=1e-3)


def test_a_pair_that_is_an_sft_example_names_its_place(run: Run, root: Path) -> None:
    shard = sorted((root / "sft").rglob("*.parquet"))[0]
    example = pq.read_table(shard).to_pylist()[3]
    known = pair(1, f"{example['instruction']}", example["output"])
    other = pair(2, "Where do swallows sleep?", "In reeds.")
    chosen = select(run, [known, other])
    (left_out,) = chosen.duplicates
    assert chosen.kept == [other]
    assert left_out["similarity"] == pytest.approx(1, abs=1e-3)
    assert (left_out["pair_id"], left_out["nearest_pair_id"]) == (known["pair_id"], None)
    assert (left_out["nearest_shard"], left_out["nearest_row"]) == (str(shard.relative_to(root)), 3)


def test_the_vectors_of_those_kept_are_handed_on(run: Run, pairs: list[dict[str, Any]]) -> None:
    chosen = select(run, pairs)
    assert list(chosen.points) == [one["pair_id"] for one in chosen.kept]
    for one, text in zip(chosen.kept, texts(chosen.kept, run), strict=True):
        vector = made.vector(text).astype(np.float16)
        assert np.array_equal(chosen.points[one["pair_id"]], vector[:2] / 2.0)


def test_at_1_all_are_kept(run: Run, pairs: list[dict[str, Any]]) -> None:
    chosen = select(run, pairs, limit=1.0)
    assert (chosen.kept, chosen.duplicates) == (pairs, [])


def test_a_pair_without_a_vector_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = [pair(1, "Same question?", "Same."), pair(2, "Same question?", "Same.")]
    refused = rows.Refusal("empty", "no text")
    monkeypatch.setattr(compared, "of_pair", lambda *_: refused)
    assert select(run, twins).kept == twins
