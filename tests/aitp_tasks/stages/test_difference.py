"""The direction of the difference set, its sample, and its texts; vectors are made, not embedded."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from aitp_tasks.densities.projection import Projection
from aitp_tasks.errors import InputError
from aitp_tasks.records import embedded, projected, tables
from aitp_tasks.records.run import Run
from aitp_tasks.selection import agreement
from aitp_tasks.stages import density, difference, embed, plan
from tests.aitp_tasks import made
from tests.aitp_tasks.conftest import Configure, alpaca, write_shard

pytestmark = pytest.mark.slow


def _numbers(text: str) -> tuple[int, int]:
    """Whether a text's first word is ``left``, and what it is otherwise."""
    return int(text.startswith("left")), crc32(text.encode()) >> 1


def _place(left: int, seed: int) -> NDArray[np.float32]:
    """A vector on its side, ``left`` or ``right``."""
    vector = (1.0 if left else -1.0) / 4 + np.random.default_rng(seed).normal(size=made.DIMENSION) * 0.05
    return vector.astype(np.float32)


@pytest.fixture
def blobs(root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Two blobs of documents; all SFT examples lie in the left one."""
    encoder = made.encoder(_numbers, _place)
    monkeypatch.setattr(embed, "open_encoder", lambda *_: encoder)
    for shard in range(3):
        texts = [{"text": f"{side} {shard} {row}"} for row in range(100) for side in ("left", "right")]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", texts)
    examples = [row | {"instruction": "left " + row["instruction"]} for row in alpaca(200)]
    write_shard(root / "sft/sums/sums-00000.parquet", examples)

    def make(**changes: Any) -> Run:
        return made.through(Run.open(plan.execute(configure(**changes))["run"]), "difference")

    return make


def selected(run: Run) -> list[dict[str, Any]]:
    done = run.require_manifest("difference")
    return [row for part in run.parts for row in tables.read(run.storage, done.output(part)).to_pylist()]


@pytest.mark.parametrize(("criterion", "tau"), [("density_ratio", 0.5), ("sft_density", 1e-3), ("knn", 0.5)])
def test_documents_that_the_sft_set_does_not_cover_are_selected(
    blobs: Callable[..., Run], criterion: str, tau: float
) -> None:
    rows = selected(blobs(difference={"criterion": criterion, "tau": tau}))
    sides = [row["text"].split()[0] for row in rows]
    assert sides.count("right") == 300
    assert sides.count("left") <= 15
    assert all(row["p_sft"] < row["p_corpus"] for row in rows if row["text"].startswith("right"))


def test_densities_equal_the_exact_sums(blobs: Callable[..., Run]) -> None:
    run = blobs(difference={"tau": 1e9})
    rows = selected(run)
    points = np.array([[row["x"], row["y"]] for row in rows])
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    exact = np.exp(-squares / 2).mean(axis=1) / (2 * np.pi)
    found = np.array([row["p_corpus"] for row in rows])
    assert len(rows) == 600
    assert np.abs(found / exact - 1).max() < 1e-3


def test_text_and_place_belong_to_the_document(blobs: Callable[..., Run], root: Path) -> None:
    import pyarrow.parquet as pq

    for row in selected(blobs()):
        text = pq.read_table(root / row["shard"])["text"][row["row"]].as_py()
        assert (row["text"], row["dump"]) == (text, "news")


def test_the_sample_is_drawn_by_content_not_by_place(blobs: Callable[..., Run], root: Path) -> None:
    first = {row["doc_id"] for row in selected(blobs(difference={"max_documents": 50, "tau": 0.5}))}
    files = sorted((root / "corpus/news").iterdir())
    rows = [row for path in files for row in _rows(path)]
    for path in files:
        path.unlink()
    for shard in range(5):
        write_shard(
            root / f"corpus/news/other-{shard:05d}.parquet", rows[::-1][shard * 120 : shard * 120 + 120]
        )
    again = {row["doc_id"] for row in selected(blobs(difference={"max_documents": 50, "tau": 0.5}))}
    other_seed = {
        row["doc_id"] for row in selected(blobs(difference={"max_documents": 50, "tau": 0.5, "seed": 1}))
    }
    assert len(first) == 50
    assert first == again != other_seed


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_the_ledger_and_the_sweep_count_every_document(blobs: Callable[..., Run], root: Path) -> None:
    write_shard(root / "corpus/news/news-00003.parquet", [{"text": "right 0 0"}, {"text": "right 0 0"}])
    run = blobs(difference={"tau": 0.5})
    done = run.require_manifest("difference")
    assert done.ledger is not None
    below = done.figures["below_tau"]
    assert (done.ledger.rows_in, done.ledger.rows_out) == (602, below - 2)
    assert done.ledger.rejected == {
        "covered": 602 - below,
        "repeated_text": 2,
        "not_sampled": 0,
        "no_room": 0,
    }
    sweep = dict(map(tuple, done.figures["sweep"]))
    assert sweep[0.5] == done.figures["below_tau"]
    assert sorted(sweep.values()) == list(sweep.values())


def test_parts_are_slices_of_the_hash_space(blobs: Callable[..., Run]) -> None:
    run = blobs(difference={"documents_per_part": 100, "tau": 0.5})
    done = run.require_manifest("difference")
    ids = [tables.read(run.storage, done.output(part))["doc_id"].to_pylist() for part in run.parts]
    assert len(ids) >= 3
    assert all(max(left) < min(right) for left, right in itertools.pairwise(ids))


def test_another_try_cuts_the_same_parts(blobs: Callable[..., Run]) -> None:
    run = blobs(difference={"tau": 0.5})
    first = run.require_manifest("difference")
    assert (run.part_count, first.figures["documents_per_part"]) == (1, 5000)
    # A try that ended before its manifest has settled it; what is learnt since then changes nothing.
    run.storage.write(run.key("parts", "size.json"), b'{"documents": 100, "why": "a test"}')
    run.storage.delete([run.manifest_key("difference")])
    fresh = Run.open(run.uri)
    difference.execute(fresh)
    given = blobs(difference={"documents_per_part": 100, "tau": 0.5})
    assert fresh.part_count == given.part_count > 1
    assert selected(fresh) == selected(given)
    assert [row["doc_id"] for row in selected(fresh)] == [
        row["doc_id"] for row in tables.read(run.storage, first.output(run.parts[0])).to_pylist()
    ]


def test_nothing_selected_is_no_part(blobs: Callable[..., Run]) -> None:
    run = blobs(difference={"tau": 1e-250})
    assert (run.part_count, selected(run)) == (0, [])


@pytest.mark.parametrize("target", [{"target_share": 0.25}, {"target_documents": 150}])
def test_the_threshold_follows_from_what_is_to_be_selected(
    blobs: Callable[..., Run], target: dict[str, Any]
) -> None:
    run = blobs(difference=target)
    done = run.require_manifest("difference")
    assert done.figures["below_tau"] == len(selected(run)) == 150
    assert max(row["ratio"] for row in selected(run)) < done.figures["tau"]


def test_more_wanted_than_there_are_is_everything(blobs: Callable[..., Run]) -> None:
    assert len(selected(blobs(difference={"target_documents": 9999}))) == 600


def test_the_published_script_selects_what_the_sft_set_covers(blobs: Callable[..., Run]) -> None:
    run = blobs(difference={"criterion": "authors_compat", "tau": 0.5})
    geometry = projected.geometry(run)
    assert not np.array_equal(geometry.projections["sft"].mean, geometry.projections["corpus"].mean)
    assert all(row["p_corpus"] / row["p_sft"] < 0.5 for row in selected(run))


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("bandwidth", ["scott", "silverman"])
def test_other_dimensions_and_rules(blobs: Callable[..., Run], components: int, bandwidth: str) -> None:
    run = blobs(density={"components": components, "bandwidth": bandwidth}, difference={"tau": 0.5})
    sides = [row["text"].split()[0] for row in selected(run)]
    assert sides.count("right") == 300
    factor = (600 * (1 if bandwidth == "scott" else (components + 2) / 4)) ** (-1 / (components + 4))
    geometry = projected.geometry(run)
    moments = embedded.moments(run, "corpus")
    mean = np.exp(np.log(geometry.projections["corpus"].spread(moments)).mean())
    assert geometry.bandwidths["corpus"] == pytest.approx(factor * mean)


def test_the_error_of_the_densities_is_measured(blobs: Callable[..., Run]) -> None:
    figures = blobs(difference={"tau": 0.5}).require_manifest("difference").figures
    assert 0 < figures["density_error"]["corpus"] < 1e-3
    assert figures["density_error"]["sft"] < 1e-3
    assert figures["p_corpus"]["q05"] < figures["p_corpus"]["q50"] < figures["p_corpus"]["q95"]


def test_rates_are_told_by_shard_and_source(blobs: Callable[..., Run], root: Path) -> None:
    rows = [{"text": f"{side} more {row}", "site": side} for row in range(50) for side in ("left", "right")]
    for path in sorted((root / "corpus/news").glob("*")):
        path.unlink()
    run_rows = _with_sites(root, rows)
    run = blobs(difference={"tau": 0.5, "source_column": "site", "max_per_source": 30})
    done = run.require_manifest("difference")
    by_source = {item["source"]: item for item in done.figures["sources"]}
    assert by_source["right"] | {"below_tau": 0} == {
        "source": "right",
        "documents": run_rows // 2,
        "below_tau": 0,
        "selected": 30,
    }
    assert by_source["right"]["below_tau"] > 300 > by_source["left"]["below_tau"]
    shards = tables.read(run.storage, done.output("shards")).to_pylist()
    assert sum(shard["documents"] for shard in shards) == run_rows
    assert sum(shard["selected"] for shard in shards) == done.figures["selected"]
    assert {row["source"] for row in selected(run)} <= {"left", "right"}


def _with_sites(root: Path, rows: list[dict[str, Any]]) -> int:
    """Three old shards with a column of sites, and one of ``rows``; how many rows there are."""
    for shard in range(3):
        old = [
            {"text": f"{side} {shard} {row}", "site": side}
            for row in range(100)
            for side in ("left", "right")
        ]
        write_shard(root / f"corpus/news/news-{shard:05d}.parquet", old)
    write_shard(root / "corpus/news/news-00003.parquet", rows)
    return 600 + len(rows)


def test_a_source_column_that_is_not_there_is_named(blobs: Callable[..., Run]) -> None:
    with pytest.raises(InputError, match=r"no column 'site' .* correct difference.source_column"):
        blobs(difference={"source_column": "site"})


def test_a_second_run_of_the_same_geometry_projects_nothing(
    blobs: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = blobs(difference={"tau": 0.5})
    # The criteria are compared on documents that are projected for that alone.
    monkeypatch.setattr(agreement, "scores", lambda *_: {})
    monkeypatch.setattr(agreement, "figures", lambda *_: {})
    monkeypatch.setattr(Projection, "apply", None)
    assert blobs(difference={"tau": 0.4}).digest != first.digest


@pytest.mark.parametrize("criterion", ["density_ratio", "sft_density"])
def test_one_sft_example_is_a_density(blobs: Callable[..., Run], root: Path, criterion: str) -> None:
    write_shard(root / "sft/sums/sums-00000.parquet", [{"instruction": "left", "input": "", "output": "a"}])
    run = blobs(difference={"criterion": criterion, "target_share": 0.5})
    sides = [row["text"].split()[0] for row in selected(run)]
    assert (sides.count("right"), sides.count("left")) == (300, 0)


def test_a_set_without_any_vector_is_named(blobs: Callable[..., Run], root: Path) -> None:
    bad_answers = [{"prompt": "q", "completion": "a", "label": False}]
    write_shard(root / "sft/sums/sums-00000.parquet", bad_answers)
    with pytest.raises(InputError, match=r"none of the sft rows has a vector: see their quarantine in "):
        blobs(examples={"preference": "chosen"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, r"() does not exist: .*; or delete "),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), r"file://(\S+) is damaged .*: delete it, "),
    ],
    ids=["lost", "cut"],
)
def test_coordinates_are_made_again_by_what_the_message_says(
    blobs: Callable[..., Run], root: Path, harm: Callable[[Path], object], said: str
) -> None:
    run = blobs(difference={"tau": 0.5})
    harmed = sorted(root.glob("density/*/*/coordinates-*"))
    whole = [path.read_bytes() for path in harmed]
    for path in harmed:
        harm(path)
    (root / run.manifest_key("difference")).unlink()
    remedy = re.compile(rf"{said}file://(\S+) and file://(\S+), then run `aitp density`")
    for _ in range(10):
        with pytest.raises(InputError, match=remedy) as lost_one:
            difference.execute(run)
        told = remedy.search(str(lost_one.value))
        assert told is not None
        for name in filter(None, told.groups()):
            Path(name).unlink()
        for unit in range(len(run.plan.groups)):
            density.execute(run, unit)
        if all(path.exists() and path.read_bytes() == data for path, data in zip(harmed, whole, strict=True)):
            break
    difference.execute(run)
    assert run.require_manifest("difference").figures["below_tau"] == 300
