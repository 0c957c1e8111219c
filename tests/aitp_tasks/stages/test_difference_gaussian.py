"""The criterion gaussian through the stages: it sees what the plane does not."""

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from aitp_tasks.densities.discriminant import Discriminant
from aitp_tasks.densities.moments import Moments
from aitp_tasks.encoder.batches import Answer, Batch
from aitp_tasks.encoder.facts import Facts
from aitp_tasks.encoder.opened import Encoder
from aitp_tasks.encoder.tokens import Tokenised
from aitp_tasks.records import embedded, selected, vectors
from aitp_tasks.records.run import Run
from aitp_tasks.stages import embed, plan
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, write_shard

pytestmark = pytest.mark.slow

WIDTH, OLD, NEW = 32, 900, 100
MakeRun = Callable[..., Run]


def vector(new: int, seed: int) -> NDArray[np.float32]:
    """Two factors that make the plane, noise, and a tenth axis along which the new ones are shifted."""
    random = np.random.default_rng(seed)
    found = random.normal(size=WIDTH)
    for factor, columns in ((random.normal(), slice(0, 8)), (random.normal(), slice(12, 20))):
        found[columns] = 0.3 * found[columns] + factor
    found[9] += 6.0 * new
    return (0.1 * found).astype(np.float32)


def _tokens(texts: Sequence[str]) -> list[Tokenised]:
    """``new 17`` as two tokens: whether it is new, and its number."""
    found = []
    for text in texts:
        kind, number = text.split()[:2]
        found.append(Tokenised([np.array([kind == "new", int(number)], np.int32)], False))
    return found


class _Backend:
    name, dimension, batch_tokens, window_tokens = "made", WIDTH, 64, 0

    def run(self, batches: Iterable[Batch]) -> Generator[Answer, None, None]:
        for batch in batches:
            yield Answer(batch, np.stack([vector(*sequence.tolist()) for sequence in batch.sequences]))

    def memory_mb(self) -> float:
        return 0.0


@pytest.fixture
def make_run(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """900 documents as the SFT set has them, 100 new ones, over a given number of shards."""
    facts = Facts(
        dimension=WIDTH, max_tokens=2, prompt="", prompt_tokens=0, lower_case=False, normalised=False, pad=0
    )
    encoder = Encoder(facts, cast(Any, _tokens), _Backend())
    monkeypatch.setattr(embed, "open_encoder", lambda *_: encoder)
    texts = [f"old {number}" for number in range(OLD)] + [f"new {number}" for number in range(NEW)]
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    examples = [{"instruction": f"old {number}", "input": "", "output": "a"} for number in range(5000, 5600)]
    write_shard(root / "sft/sums/sums-00000.parquet", examples)

    def make(criterion: str, shards: int = 3, **settings: Any) -> Run:
        for number, part in enumerate(np.array_split(np.array(texts), shards)):
            name = f"corpus/news/of-{shards}-{number:05d}.parquet"
            write_shard(root / name, [{"text": text} for text in part.tolist()])
        config = configure(difference={"criterion": criterion, **settings})
        run = made.through(Run.open(plan.execute(config)["run"]), "difference")
        for shard in (root / "corpus/news").iterdir():
            shard.unlink()
        return run

    return make


def _new(run: Run) -> float:
    """Of the new documents, the share that is selected."""
    rows = [row for part in run.parts for row in selected.documents(run, part, ["text"])]
    return sum(row["text"].startswith("new") for row in rows) / NEW


def test_what_the_plane_does_not_see_is_found(make_run: MakeRun) -> None:
    assert _new(make_run("gaussian", target_documents=NEW)) >= 0.9
    assert _new(make_run("density_ratio", target_documents=NEW)) < 0.2


def test_scores_and_threshold_are_those_written_out_plainly(make_run: MakeRun) -> None:
    run = make_run("gaussian", tau=0.5)
    values = {}
    for role in ("corpus", "sft"):
        chunks = [key for shard in embedded.shards_of(run, role) for key in embedded.chunk_keys(shard)]
        values[role] = np.concatenate([found.values for _, found in vectors.read_all(run.storage, chunks)])
    discriminant = Discriminant.fit(*(Moments.of(values[role]) for role in ("corpus", "sft")))
    scores = discriminant.at(values["corpus"])
    figures = run.require_manifest("difference").figures
    assert (figures["criterion"], figures["tau"]) == ("gaussian", np.log(0.5))
    assert figures["below_tau"] == (scores < np.log(0.5)).sum()
    assert figures["sweep"] == [[tau, (scores < tau).sum()] for tau, _ in figures["sweep"]]
    for share, name in ((0.05, "q05"), (0.5, "q50"), (0.95, "q95")):
        expected = np.quantile(scores, share, method="inverted_cdf")
        assert figures["log_ratio"][name] == pytest.approx(expected, rel=3e-3, abs=3e-3)


@pytest.mark.parametrize(
    "wanted", [{"target_documents": 1}, {"target_documents": 777}, {"target_share": 0.25}]
)
def test_targets_select_exactly_so_many(make_run: MakeRun, wanted: dict[str, Any]) -> None:
    figures = make_run("gaussian", **wanted).require_manifest("difference").figures
    assert figures["below_tau"] == wanted.get("target_documents", 250)


def test_the_same_documents_are_selected_however_they_are_cut(make_run: MakeRun) -> None:
    found = []
    for shards in (1, 2, 7):
        run = make_run("gaussian", shards, target_documents=150)
        rows = [row for part in run.parts for row in selected.documents(run, part, ["doc_id", "log_ratio"])]
        found.append([(row["doc_id"], row["log_ratio"].hex()) for row in rows])
    assert found[0] == found[1] == found[2]


def test_the_report_is_told_how_far_the_criteria_agree(make_run: MakeRun) -> None:
    agreement = make_run("gaussian", target_documents=NEW).require_manifest("difference").figures["agreement"]
    assert (agreement["documents"], agreement["selected"]) == (OLD + NEW, NEW)
    assert set(agreement["shared"]) == {"density_ratio", "sft_density", "authors_compat", "knn", "gaussian"}
    shared = agreement["shared"]
    assert all(shared[one][other] == shared[other][one] for one in shared for other in shared[one])
    assert all(len(row) == len(shared) - 1 for row in shared.values())
    # The plane knows nothing of the new ones: what it selects is as good as drawn by lot.
    assert shared["gaussian"]["density_ratio"] < 0.25
