"""A dataset's line of versions: what a run builds on, what it adds, and that nothing is made twice."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import embedded, versions
from aitp_tasks.records.run import Run
from aitp_tasks.stages import answer, assemble, difference, rewrite, score
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks.conftest import REPOSITORY, Configure, write_shard
from tests.aitp_tasks.generation import test_part as test_generation
from tests.aitp_tasks.generation.test_part import SELECT_ALL, StandIn, run_stage, up_to_difference

pytestmark = pytest.mark.slow

engine = test_generation.engine
small_models = test_generation.small_models

#: The stand-in's answers are all alike, so they are not compared.
EVERYTHING = {"assemble": {"max_rewritten_share": 1.0, "max_similarity": 1.0}}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}/line")


def version(name: str, *ancestors: str) -> versions.Version:
    geometry = versions.Geometry(key="g", identity="i", corpus_grid="c")
    return versions.Version(name=name, run=f"runs/{name}", ancestors=ancestors, geometry=geometry)


def base(storage: Storage, inputs: str = "inputs", setting: str = "latest", **made: str) -> str | None:
    """Name of the base; ``made`` says which version each base would lead to."""
    found = versions.base(
        storage, "line", setting, inputs, lambda before: made[before.name if before else "nothing"]
    )
    return found and found.name


def test_a_run_builds_on_the_latest_version(storage: Storage) -> None:
    assert base(storage, nothing="a") is None
    versions.add(storage, "line", version("a"))
    assert base(storage, "others") == "a"
    versions.add(storage, "line", version("b", "a"))
    assert base(storage, "more") == "b"


def test_inputs_whose_version_is_in_the_line_keep_their_base(storage: Storage) -> None:
    assert base(storage, nothing="a") is None
    for added in (version("a"), version("b", "a"), version("c", "a", "b")):
        versions.add(storage, "line", added)
        assert base(storage, nothing="a") is None
    assert base(storage, "later") == "c"


def test_inputs_whose_version_never_came_move_to_the_latest(storage: Storage) -> None:
    assert base(storage, nothing="failed") is None
    versions.add(storage, "line", version("a"))
    assert base(storage, nothing="failed") == "a"
    versions.add(storage, "line", version("b", "a"))
    assert base(storage, a="mine") == "b"


def test_a_version_on_an_older_base_does_not_push_out_the_latest(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    assert versions.add(storage, "line", version("a"))
    assert versions.add(storage, "line", version("b", "a"))
    assert not versions.add(storage, "line", version("late", "a"))
    latest = versions.latest(storage, "line")
    assert latest is not None
    assert latest.name == "b"
    assert "late builds on a, but b is the latest version now" in caplog.text
    assert versions.add(storage, "line", version("a"))


def test_latest_can_be_set_back(storage: Storage) -> None:
    for added in (version("a"), version("bad", "a")):
        versions.add(storage, "line", added)
    storage.write("datasets/line/latest.json", b'{"version": "a"}')
    assert base(storage, "next") == "a"
    assert versions.add(storage, "line", version("good", "a"))
    assert base(storage, "after") == "good"


class Interrupted:
    """A storage in which others do something between reading a key and the next conditional write to it."""

    def __init__(self, storage: Storage, key: str, meanwhile: list[Callable[[], object]]) -> None:
        self._storage, self._key, self._meanwhile = storage, key, meanwhile

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._storage, name)
        if name not in ("write_if_matches", "write_if_absent"):
            return made

        def write(key: str, *arguments: Any) -> bool:
            if key == self._key and self._meanwhile:
                self._meanwhile.pop(0)()
            return bool(made(key, *arguments))

        return write


LATEST = "datasets/line/latest.json"


@pytest.mark.parametrize("before", [(), ("a",)])
def test_a_version_that_came_first_in_the_same_second_stays_the_latest(
    storage: Storage, caplog: pytest.LogCaptureFixture, before: tuple[str, ...]
) -> None:
    for name in before:
        versions.add(storage, "line", version(name))
    racing: Any = Interrupted(
        storage, LATEST, [lambda: versions.add(storage, "line", version("first", *before))]
    )
    assert not versions.add(racing, "line", version("second", *before))
    latest = versions.latest(storage, "line")
    assert latest is not None
    assert latest.name == "first"
    assert "but first is the latest version now and stays it" in caplog.text


def test_a_version_whose_successor_came_meanwhile_is_in_the_line(storage: Storage) -> None:
    def another_task_of_the_run_and_the_next_night() -> None:
        versions.add(storage, "line", version("mine"))
        versions.add(storage, "line", version("next", "mine"))

    racing: Any = Interrupted(storage, LATEST, [another_task_of_the_run_and_the_next_night])
    assert versions.add(racing, "line", version("mine"))
    latest = versions.latest(storage, "line")
    assert latest is not None
    assert latest.name == "next"


def test_the_loser_tries_again_where_it_may_still_be_the_latest(storage: Storage) -> None:
    # Somebody sets the pointer to the same version in other words.
    versions.add(storage, "line", version("a"))
    meanwhile = [lambda: storage.write(LATEST, b'{"version":  "a"}')] * 3
    racing: Any = Interrupted(storage, LATEST, list(meanwhile))
    assert versions.add(racing, "line", version("b", "a"))
    assert json.loads(storage.read(LATEST))["version"] == "b"


def test_a_pointer_that_never_stays_is_a_passing_fault(storage: Storage) -> None:
    versions.add(storage, "line", version("a"))
    texts = (f'{{"version": "a", "n": {number}}}'.encode() for number in range(1000))
    racing: Any = Interrupted(storage, LATEST, [lambda: storage.write(LATEST, next(texts))] * 1000)
    with pytest.raises(TransientError, match=r"latest.json was moved by others 100 times"):
        versions.add(racing, "line", version("b", "a"))


def test_plans_of_the_same_inputs_at_once_agree_on_a_base(storage: Storage) -> None:
    assert base(storage, nothing="failed") is None
    versions.add(storage, "line", version("a"))

    def the_next_night_and_another_plan() -> None:
        versions.add(storage, "line", version("b", "a"))
        assert base(storage, nothing="failed") == "b"

    # This plan has read that "a" is the latest, and that the inputs were planned on nothing.
    racing: Any = Interrupted(
        storage, "datasets/line/plans/inputs.json", [lambda: None, the_next_night_and_another_plan]
    )
    assert base(racing, nothing="failed") == "b"
    assert json.loads(storage.read("datasets/line/plans/inputs.json")) == {"base": "b"}


def test_a_pointer_that_names_nothing_is_told(storage: Storage) -> None:
    for text in (b"", b"[]", b'{"run": "x"}', b"1"):
        storage.write(LATEST, text)
        with pytest.raises(InputError, match=r"latest.json names no version: write"):
            versions.latest(storage, "line")


#: Adds a version on what is the latest, again and again; says which of its versions became it.
_ADDING = """
import sys
from aitp_tasks.records import versions
from aitp_tasks.storage import open_storage
storage, me = open_storage(sys.argv[1]), sys.argv[2]
for number in range(int(sys.argv[3])):
    base = versions.latest(storage, "line")
    ancestors = (*base.ancestors, base.name) if base else ()
    geometry = versions.Geometry(key="g", identity="i", corpus_grid="c")
    made = versions.Version(name=f"{me}-{number}", run="r", ancestors=ancestors, geometry=geometry)
    if versions.add(storage, "line", made):
        print(made.name)
"""


def test_of_racing_processes_each_version_that_became_the_latest_is_in_the_line(storage: Storage) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _ADDING, storage.root, name, "40"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
        )
        for name in ("left", "right")
    ]
    told = [name for racer in racers for name in racer.communicate(timeout=120)[0].split()]
    newest = versions.latest(storage, "line")
    assert newest is not None
    # None was pushed out, and none is in the line of which it was said that it is not.
    assert sorted((*newest.ancestors, newest.name)) == sorted(told)
    assert {name.partition("-")[0] for name in told} == {"left", "right"}


def test_a_base_can_be_named(storage: Storage) -> None:
    versions.add(storage, "line", version("a"))
    versions.add(storage, "line", version("b", "a"))
    assert base(storage, setting="a") == "a"
    assert base(storage, setting="none") is None
    with pytest.raises(InputError, match=r"datasets/line/x/version.json does not exist: name a version of"):
        base(storage, setting="x")


class Nights:
    """Whole refreshes over the same line, up to the dataset version."""

    def __init__(self, configure: Configure) -> None:
        self.configure = configure

    def refresh(self, **changes: Any) -> tuple[Run, dict[str, Any]]:
        run = up_to_difference(self.configure(**SELECT_ALL | EVERYTHING | changes))
        for stage in (rewrite, score, answer):
            run_stage(stage, run)
        return run, assemble.execute(run)


@pytest.fixture
def nights(configure: Configure, root: Path, engine: type[StandIn]) -> Nights:
    texts = [{"text": f"Letter {row} asks for bread, wool and candles."} for row in range(12)]
    write_shard(root / "corpus/letters/letters-00000.parquet", texts)
    return Nights(configure)


def figures(run: Run) -> dict[str, Any]:
    return run.require_manifest("difference").figures


def test_the_second_night_builds_on_the_first(nights: Nights, root: Path) -> None:
    first, made = nights.refresh()
    second, result = nights.refresh(dump="letters")
    assert (made["is_latest"], result["is_latest"]) == (True, True)
    assert second.plan.base is not None
    assert second.plan.base.name == made["label"]
    rows = pq.read_table(root / assemble.version_key(second) / "data").to_pylist()
    assert Counter(row["dump"] for row in rows) == {None: 8, "news": 24, "letters": 24}
    assert result["earlier_pairs"] == 24
    told = json.loads((root / assemble.version_key(second) / "version.json").read_text())
    assert told["ancestors"] == [assemble.version(first)]
    (pairs,) = told["pairs"]
    assert [row["dump"] for row in pq.read_table(root / pairs).to_pylist()] == ["news"] * 24 + [
        "letters"
    ] * 24


def test_pairs_of_earlier_versions_belong_to_the_sft_side(nights: Nights) -> None:
    first, _ = nights.refresh()
    second, _ = nights.refresh(gates={"min_quality": 2})
    (pairs,) = (group for group in second.plan.groups if group.source == "datasets/aitp")
    assert embedded.count(second, pairs) == 24
    assert figures(second)["p_sft"]["mean"] > 1.1 * figures(first)["p_sft"]["mean"]
    assert figures(first)["p_corpus"] == figures(second)["p_corpus"]


def test_the_same_inputs_lead_to_the_same_run(nights: Nights, engine: type[StandIn]) -> None:
    first, _ = nights.refresh()
    nights.refresh(dump="letters")
    engine.asked = []
    again, result = nights.refresh()
    assert again.uri == first.uri
    assert result["is_latest"]
    assert engine.asked == []


def test_the_projection_stays_with_the_line(nights: Nights) -> None:
    first, _ = nights.refresh()
    second, _ = nights.refresh(dump="letters", density={"max_drift": 1.0})
    outputs = [run.require_manifest("merge").outputs["geometry"] for run in (first, second)]
    assert outputs[0] == outputs[1]
    drift = figures(second)["drift"]
    assert 0.2 < drift["distance"] <= 1
    assert 0 < drift["explained_loss"] < 1
    assert figures(first)["drift"] is None
    assert figures(second)["refit_due"] is False
    anew, _ = nights.refresh(dump="letters", density={"refit": "always"})
    assert figures(anew)["drift"] is None


def test_a_corpus_that_has_moved_is_fitted_anew_the_next_night(
    nights: Nights, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nights.refresh()
    second, _ = nights.refresh(dump="letters", density={"max_drift": 0.01})
    assert figures(second)["refit_due"] is True
    assert "a refit is due: the corpus has drifted" in caplog.text
    write_shard(root / "corpus/notes/notes-00000.parquet", [{"text": f"Note {row}"} for row in range(6)])
    third, _ = nights.refresh(dump="notes", density={"max_drift": 0.01})
    assert third.plan.base is not None
    assert third.plan.geometry is None
    kept, _ = nights.refresh(dump="notes", density={"max_drift": 0.01, "refit": "never"})
    assert kept.plan.geometry is not None


def test_the_same_corpus_has_not_moved(nights: Nights) -> None:
    nights.refresh()
    second, _ = nights.refresh(difference=SELECT_ALL["difference"] | {"seed": 1})
    assert figures(second)["drift"] == {"outside": 0.0, "explained_loss": 0.0, "distance": 0.0}


def test_another_encoder_cannot_keep_the_projection(nights: Nights, configure: Configure) -> None:
    nights.refresh()
    encoder = configure().encoder.model_dump(mode="json") | {"max_tokens": 64}
    with pytest.raises(InputError, match=r"refit=never, but news-\w+ was projected with another encoder"):
        nights.refresh(encoder=encoder, density={"refit": "never"})
    other, _ = nights.refresh(encoder=encoder)
    assert other.plan.base is not None
    assert other.plan.geometry is None


def test_grids_and_vectors_of_the_same_shards_are_not_made_again(nights: Nights, root: Path) -> None:
    def objects() -> set[str]:
        return {str(path) for name in ("embeddings", "density") for path in (root / name).rglob("*.parquet")}

    nights.refresh()
    before = objects()
    nights.refresh(gates={"min_quality": 2})
    # Only the first night's pairs are new: one chunk of vectors, one table of coordinates.
    assert len(objects() - before) == 2


def test_a_pair_enters_the_line_once(nights: Nights) -> None:
    nights.refresh()
    run, result = nights.refresh(gates={"min_quality": 2})
    ledger = run.require_manifest("assemble").ledger
    assert ledger is not None
    assert (result["pairs"], result["earlier_pairs"]) == (0, 24)
    assert ledger.rejected == {"in_an_earlier_version": 24, "near_duplicate": 0, "over_rewritten_share": 0}


def test_a_pair_near_to_an_earlier_versions_pair_names_its_place(nights: Nights, root: Path) -> None:
    limit = {"assemble": {"max_rewritten_share": 1.0, "max_similarity": 0.95}}
    first, made = nights.refresh(**limit)
    second, result = nights.refresh(gates={"min_quality": 2}, **limit)
    # Each of twelve documents is asked one question of its own, and one that all are asked.
    assert 0 < made["pairs"] < 24
    assert (result["pairs"], result["earlier_pairs"]) == (0, made["pairs"])
    pairs = first.require_manifest("assemble").output("pairs")
    earlier = pq.read_table(root / pairs).to_pylist()
    done = second.require_manifest("assemble")
    assert done.figures["unchanged"]
    rows = pq.read_table(root / done.output("near_duplicates")).to_pylist()
    assert len(rows) == 24 - made["pairs"]
    for row in rows:
        assert (row["nearest_shard"], row["nearest_pair_id"]) == (pairs, None)
        assert earlier[row["nearest_row"]]["pair_id"] != row["pair_id"]
        assert row["similarity"] > 0.95


def test_a_line_keeps_to_its_share_of_rewritten_pairs(nights: Nights) -> None:
    _, first = nights.refresh(assemble={"max_rewritten_share": 0.5, "max_similarity": 1.0})
    _, second = nights.refresh(dump="letters", assemble={"max_rewritten_share": 0.6, "max_similarity": 1.0})
    assert first["pairs"] == 8
    assert (second["earlier_pairs"], second["pairs"]) == (8, 4)


def test_the_first_difference_reads_no_version(nights: Nights, root: Path) -> None:
    run = up_to_difference(nights.configure(**SELECT_ALL))
    assert not (root / "datasets/aitp/latest.json").exists()
    assert difference.execute(run)["selected"] == 12


def regions(documents: tuple[float, ...], pairs: tuple[float, ...], **changes: Any) -> versions.Regions:
    """Two regions, in which each document costs ten tokens."""
    return versions.Regions(
        cuts=changes.get("cuts", ((0, 1.5),)),
        setup=changes.get("setup", "a"),
        documents=documents,
        pairs=pairs,
        tokens=tuple(10 * count for count in documents),
    )


def test_a_night_counts_half_as_much_as_the_next_in_each_region() -> None:
    found = regions((8, 0), (4, 0)).plus(regions((2, 6), (1, 3))).plus(regions((0, 1), (0, 1)))
    assert (found.documents, found.pairs, found.tokens) == ((3.0, 4.0), (1.5, 2.5), (30.0, 40.0))


@pytest.mark.parametrize("other", [{"setup": "b"}, {"cuts": ((1, 1.5),)}])
def test_what_was_given_by_another_setup_or_elsewhere_is_forgotten(other: dict[str, Any]) -> None:
    before, night = regions((8, 8), (4, 4)), regions((1, 1), (1, 0), **other)
    assert before.plus(night) == night
    nothing = versions.Regions.unmeasured(night.cuts, night.setup)
    assert before.plus(nothing) == before
    assert nothing.documents == (0.0, 0.0)
