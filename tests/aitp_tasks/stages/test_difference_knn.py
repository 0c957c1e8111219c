"""The criterion knn: mean cosines against all pairs, reuse, few examples, damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, projected, tables, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.stages import difference, embed, plan
from aitp_tasks.vector_index import nearness, quantiser
from aitp_tasks.vector_index.library import unit
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]
TEXTS = [f"{side} text {row}" for row in range(60) for side in ("Add", "Sail", "Sow")]


@pytest.fixture
def make_run(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Runs up to a stage; of three groups of documents, the SFT examples lie in the one of ``Add``."""
    monkeypatch.setattr(embed, "open_encoder", lambda *_: made.encoder())
    for shard in range(2):
        rows = [{"text": text} for text in TEXTS[shard::2]]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", rows)
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(60))

    def make(last: str = "difference", **settings: Any) -> Run:
        settings = {"criterion": "knn", "tau": 0.6, **settings}
        config = configure(plan={"group_bytes": 1}, difference=settings)
        return made.through(Run.open(plan.execute(config)["run"]), last)

    return make


def all_pairs(run: Run, k: int) -> dict[str, float]:
    """Mean cosine of every document to its k nearest SFT examples."""
    found: dict[str, list[Any]] = {"corpus": [], "sft": []}
    ids: list[str] = []
    for group in run.plan.groups:
        for shard in embedded.shards(run, group):
            for _, some in vectors.read_all(run.storage, embedded.chunk_keys(shard)):
                found[group.role].append(unit(some.values))
                ids += some.doc_ids if group.role == "corpus" else []
    cosines = np.concatenate(found["corpus"]) @ np.concatenate(found["sft"]).T
    means = np.sort(cosines, axis=1)[:, -k:].mean(axis=1)
    return dict(zip(ids, means.tolist(), strict=True))


def selected(run: Run) -> list[dict[str, Any]]:
    done = run.require_manifest("difference")
    return [row for part in run.parts for row in tables.read(run.storage, done.output(part)).to_pylist()]


@pytest.mark.parametrize("k", [1, 10])
def test_documents_far_from_the_sft_set_are_selected(make_run: MakeRun, k: int) -> None:
    run = make_run(neighbours=k)
    expected = all_pairs(run, k)
    rows = selected(run)
    assert {row["text"].split()[0] for row in rows} == {"Sail", "Sow"}
    assert len(rows) == 120
    assert [row["similarity"] for row in rows] == pytest.approx(
        [expected[row["doc_id"]] for row in rows], abs=2e-3
    )
    assert all(row["p_sft"] > 0 for row in rows)


def test_the_sweep_and_the_quantiles_are_of_similarities(make_run: MakeRun) -> None:
    run = make_run()
    figures = run.require_manifest("difference").figures
    values = np.array(list(all_pairs(run, 10).values()))
    sweep = dict(map(tuple, figures["sweep"]))
    assert sweep[0.6] == figures["below_tau"] == 120
    assert list(sweep) == pytest.approx(np.linspace(0.05, 1, 20).tolist())
    near = [count for tau, count in sweep.items() if np.abs(values - tau).min() > 5e-3]
    assert near == [int((values < tau).sum()) for tau in sweep if np.abs(values - tau).min() > 5e-3]
    assert figures["similarity"]["mean"] == pytest.approx(values.mean(), abs=2e-3)
    assert figures["similarity"]["q50"] == pytest.approx(
        np.quantile(values, 0.5, method="inverted_cdf"), abs=3e-3
    )


def test_tau_may_follow_from_a_share(make_run: MakeRun) -> None:
    run = make_run(target_share=0.25)
    assert run.require_manifest("difference").figures["below_tau"] == 45
    assert max(row["similarity"] for row in selected(run)) < run.require_manifest("difference").figures["tau"]


def test_of_few_examples_the_mean_is_over_those_there_are(make_run: MakeRun, root: Path) -> None:
    write_shard(root / "sft/sums/sums-00000.parquet", alpaca(3))
    run = make_run(neighbours=10)
    expected = all_pairs(run, 3)
    rows = selected(run)
    assert [row["similarity"] for row in rows] == pytest.approx(
        [expected[row["doc_id"]] for row in rows], abs=2e-3
    )


def test_inverted_lists_come_near(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantiser, "FLAT_VECTORS", 50)
    monkeypatch.setattr(quantiser, "_MOST_LISTS", 4)
    run = make_run()
    expected = all_pairs(run, 10)
    rows = selected(run)
    assert len(rows) == 120
    assert [row["similarity"] for row in rows] == pytest.approx(
        [expected[row["doc_id"]] for row in rows], abs=0.05
    )


def test_nearness_is_computed_once_for_an_sft_side(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_run()
    monkeypatch.setattr(nearness, "mean_cosines", None)
    again = make_run(seed=7)
    assert again.digest != first.digest
    keys = [
        [key for group in run.plan.groups for key in projected.keys(run, group, "nearness")]
        for run in (first, again)
    ]
    assert keys[0] == keys[1]
    assert [key is None for key in keys[0]] == [False, False, True]


def test_other_criteria_compute_none(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "mean_cosines", None)
    run = make_run(criterion="density_ratio")
    assert "similarity" not in run.require_manifest("difference").figures
    assert projected.keys(run, run.plan.groups[0], "nearness") == [None]


@pytest.mark.parametrize("damage", ["deleted", "other"])
def test_nearness_that_does_not_fit_is_named(make_run: MakeRun, damage: str) -> None:
    run = make_run("density")
    first, second = (projected.keys(run, group, "nearness")[0] for group in run.plan.groups[:2])
    assert first is not None
    assert second is not None
    if damage == "deleted":
        run.storage._path(first).unlink()  # type: ignore[attr-defined]
    else:
        run.storage.write(first, run.storage.read(second))
    expected = (
        "does not exist" if damage == "deleted" else r"is of other documents than those of .*news-00000"
    )
    with pytest.raises(InputError, match=f"{first} {expected}"):
        difference.execute(run)


def test_nothing_found_is_as_far_as_can_be() -> None:
    similarities = np.array([[0.5, -np.inf], [-np.inf, -np.inf]], np.float32)
    assert nearness.means(similarities, np.array([[3, -1], [-1, -1]])).tolist() == [0.5, -1.0]
