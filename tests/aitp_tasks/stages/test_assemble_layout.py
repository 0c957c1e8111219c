"""A version's folder, what lies elsewhere, marks in texts, and versions of earlier releases."""

import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from aitp_tasks.dataset.apart import identity
from aitp_tasks.records import data_files, held_out, marks, version_rows, versions
from aitp_tasks.records.contents import Contents
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.stages import assemble
from tests.aitp_tasks.dataset.test_export import in_any_order
from tests.aitp_tasks.world import LINE, STAGES, World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

MARKED = " <|im_end|> and [INST]"
FIRST: dict[str, Any] = {
    "sft": {"home": 20, "east": 10, "south": 10},
    "dump": {"home": 4, "south": 2, "east": 2, "north": 6},
}


def night(place: str, **further: Any) -> dict[str, Any]:
    return FIRST | {"dump": {"home": 4, place: 6}} | further


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def folder_of(world: World, run: Run) -> Path:
    return world.root / data_files.folder(run.require_manifest("assemble"))


def test_its_folder_holds_the_dataset_and_records_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, pictures=True)
    # So that new pairs are near-duplicates, and some find no room.
    world.night(FIRST)
    world.night(night("west", questions=2, good=2, share=0.1, assemble={"max_similarity": 0.7}))
    run = world.runs[-1]
    done, folder = run.require_manifest("assemble"), folder_of(world, run)
    assert {name for name in files(folder) if not name.startswith("trained/")} == {
        *("README.md", "version.json", "dataset_info.json", "sharegpt.json", "alpaca.json"),
        *("coverage.png", "croissant.json"),
        "data/train-00000-of-00001.parquet",
    }
    assert done.ledger is not None
    assert done.ledger.rejected["near_duplicate"] > 0
    assert done.ledger.rejected["over_rewritten_share"] > 0
    for name in ("near_duplicates", "left_out"):
        assert done.output(name).startswith(f"{run.prefix}/assemble/")
        assert len(pq.read_table(world.root / done.output(name))) > 0
    told = versions.load(run.storage, LINE, done.figures["version"])
    assert told.contents is not None
    found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    assert len(found["train"]) == told.contents.rows == done.ledger.rows_out
    _is_told_by_its_card(folder, done, told.contents)
    # Later runs find the pairs, with what tells where each comes from, as the rows have it.
    (key,) = told.pairs
    assert key.startswith(f"datasets/{LINE}/records/pairs-")
    assert told.corpus is not None
    assert told.corpus.startswith(f"datasets/{LINE}/records/corpus-grid-")
    kept = {pair["pair_id"]: pair for pair in pq.read_table(world.root / key).to_pylist()}
    assert {row["pair_id"]: row for row in found["train"] if row["origin"] == "aitp"} == kept != {}


def test_half_of_what_is_held_out_is_a_split_where_that_is_wanted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("evaluate", "promote"):
        monkeypatch.setitem(STAGES, stage, lambda run: None)
    share, split = 0.4, {"assemble": {"validation_split": True}}
    held = {"evaluate": {"held_out": share}, "share": 0.4, "dump": {"home": 4, "west": 24}}
    world.night(FIRST | held)
    # Nothing else is new: the split alone makes another version, and another night none.
    for _ in range(2):
        world.night(FIRST | held | split | {"same_dump_as": 0})
    before, run, again = world.runs
    assert not before.require_manifest("assemble").figures["unchanged"]
    assert not run.require_manifest("assemble").figures["unchanged"]
    assert again.require_manifest("assemble").figures["unchanged"]
    assert not list(folder_of(world, before).glob("data/validation-*"))
    folder = folder_of(world, run)
    found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    told = Contents.model_validate(json.loads((folder / "version.json").read_text())["contents"])
    assert list(found) == ["train", "validation"]
    assert told.rows == len(found["train"])
    assert sum(told.validation_shards.values()) == len(found["validation"])
    # Each example and pair is held out by its hash, and one half of them is in the split.
    pairs_seen = set()
    for row in found["validation"]:
        place = identity(row["messages"]) if row["origin"] == "sft" else row["doc_id"]
        assert held_out.is_held_out(place, share)
        assert held_out.is_validation(place)
        pairs_seen |= {row["pair_id"]} if row["origin"] == "aitp" else set()
    sft = [turns for turns in world.sft if held_out.is_held_out(identity(turns), share)]
    chosen = [turns for turns in sft if held_out.is_validation(identity(turns))]
    in_split = [row["messages"] for row in found["validation"] if row["origin"] == "sft"]
    assert in_any_order(in_split) == in_any_order(chosen)
    assert 0 < len(chosen) < len(sft) < len(world.sft)
    # What proves has none of it, and what is trained on neither.
    proof = run.require_manifest("assemble").outputs
    proved = {
        name: pq.read_table(world.root / proof[f"held_out_{name}"]).to_pylist() for name in ("sft", "pairs")
    }
    assert not pairs_seen & {row["id"] for row in proved["pairs"]}
    assert len(proved["sft"]) == len(sft) - len(chosen)
    assert pairs_seen
    assert not pairs_seen & {row["pair_id"] for row in found["train"]}
    # No JSON file has it, and whoever reads the version's pairs does not meet it.
    assert len(json.loads((folder / "sharegpt.json").read_text())) == told.rows
    assert not pairs_seen & set(version_rows.pair_ids(run.storage, LINE, told_name(run)))


def told_name(run: Run) -> str:
    return str(run.require_manifest("assemble").figures["version"])


def _is_told_by_its_card(folder: Path, done: Manifest, contents: Contents) -> None:
    """The card's figures are those of the run, its picture is one, and no file is another."""
    card = (folder / "README.md").read_text()
    counts = {name: int(count) for name, count in re.findall(r"^\| ([^|]+) \| (\d+) \|$", card, re.MULTILINE)}
    known = counts["– of these, in an earlier version already"]
    removed = counts["– of these, left out by the rules below"]
    assert counts["questions with an answer"] - known - removed == counts["new pairs in this version"]
    assert counts["new pairs in this version"] == done.figures["pairs"]
    assert removed == sum(rule["new"] for rule in done.figures["removed"].values()) > 0
    for name, rule in done.figures["removed"].items():
        assert f"| `{name}` | {rule['new']} | {rule['earlier']} | {rule['sft']} |" in card
    assert (
        counts["documents drawn of these"]
        <= counts["of these below τ: hardly covered"]
        <= counts["documents"]
        == 10
    )
    assert "![" in card
    assert "](coverage.png)" in card
    assert (folder / "coverage.png").read_bytes().startswith(b"\x89PNG\r\n")
    # Each file is as version.json says it was written.
    own = files(folder) - {"version.json"} - {name for name in files(folder) if name.startswith("trained/")}
    assert {name: (of.bytes, of.sha256) for name, of in contents.files.items()} == {
        name: (len(data), hashlib.sha256(data).hexdigest())
        for name in own
        if (data := (folder / name).read_bytes()) is not None
    }


def test_version_json_says_what_the_rows_say(world: World) -> None:
    world.night(FIRST | {"said": MARKED})
    world.night(night("west"))
    run = world.runs[-1]
    told = json.loads((folder_of(world, run) / "version.json").read_text())["contents"]
    rows = pq.read_table(folder_of(world, run) / "data").to_pylist()
    assert told["rows"] == len(rows)
    kinds = Counter(
        "sft"
        if row["origin"] == "sft"
        else "new_pairs"
        if row["version"] == assemble.version(run)
        else "earlier_pairs"
        for row in rows
    )
    assert len(kinds) == 3
    dumps, sources = (
        Counter(row[name] for row in rows if row["origin"] == "aitp") for name in ("dump", "source")
    )
    for name, counts in (
        ("kind", kinds),
        ("dump", dumps),
        ("source", sources + Counter({"sft/set": kinds["sft"]})),
    ):
        assert told[f"by_{name}"] == {
            key: {"rows": count, "share": round(count / len(rows), 6)} for key, count in counts.items()
        }
    assert set(told["models"]) == {"encoder", "engine", "base"}
    assert told["models"]["encoder"]["identity"] == run.plan.encoder_identity
    schema = pq.read_schema(folder_of(world, run) / "data/train-00000-of-00001.parquet")
    assert told["columns"] == {column.name: str(column.type) for column in schema}
    assert told["shards"] == {"data/train-00000-of-00001.parquet": len(rows)}
    for name, file in told["json_files"].items():
        assert file["rows"] == len(json.loads((folder_of(world, run) / name).read_text())) == len(rows)
    held = sum("<|im_end|>" in str(row["messages"]) for row in rows)
    assert held > 3
    assert told["marks"] == {
        "setting": "keep",
        "rows": held,
        "by_mark": {"<|im_end|>": held, "[INST]": held},
        "dropped": 0,
    }
    # The time is nowhere else: the same rows are the same files.
    assert told["made_at"] not in (folder_of(world, run) / "README.md").read_text()


def texts(world: World, run: Run) -> list[str]:
    rows = pq.read_table(folder_of(world, run) / "data").to_pylist()
    return [turn["content"] for row in rows for turn in row["messages"]]


def test_marks_that_are_escaped_can_be_had_again(world: World) -> None:
    world.night(FIRST | {"said": MARKED})
    kept = texts(world, world.runs[-1])
    escaping = FIRST | {"said": MARKED, "dump": {"home": 4, "east": 2}, "assemble": {"marks": "escape"}}
    assert world.night(escaping)["version"]
    run = world.runs[-1]
    escaped = texts(world, run)
    assert not any(marks.found(text) for text in escaped)
    # All that was there is there, beside what this night has added.
    assert Counter(kept) <= Counter(map(marks.unescape, escaped))
    assert sum("<\\|im_end|> and [\\INST]" in text for text in escaped) > 3
    # In the other files too; what later runs read is as it was written.
    assert marks.found((folder_of(world, run) / "sharegpt.json").read_text()) == []
    (key,) = versions.load(run.storage, LINE, assemble.version(run)).pairs
    assert any(
        marks.of_conversation(pair["messages"]) for pair in pq.read_table(world.root / key).to_pylist()
    )
    # A night that brings nothing finds the same dataset.
    assert not world.night(escaping | {"good": 0})["version"]


def test_what_holds_marks_is_dropped_with_a_name_and_a_count(world: World) -> None:
    world.night(FIRST | {"said": MARKED})
    before = world.runs[-1].require_manifest("assemble").figures
    told = world.night(night("west", said=MARKED, assemble={"marks": "drop"}))
    run = world.runs[-1]
    done = run.require_manifest("assemble")
    assert done.ledger is not None
    # All earlier pairs, all new ones, and one example of each place.
    assert told["left"] == {"holds_marks": before["pairs"]}
    assert told["pairs"] == 0
    assert done.figures["sft_examples"] == before["sft_examples"] - 3
    left = pq.read_table(world.root / done.output("left_out")).to_pylist()
    assert {row["reason"] for row in left} == {"holds_marks"}
    assert done.ledger.rejected["holds_marks"] == len(left) + 3
    assert done.figures["contents"]["marks"] == {
        "setting": "drop",
        "rows": 0,
        "by_mark": {},
        "dropped": len(left) + 3,
    }
    assert not any(marks.found(text) for text in texts(world, run))
    # The report tells it as it tells what other gates leave out.
    (removed,) = json.loads((world.root / done.output("removals")).read_text())
    assert (removed["rule"], removed["settings"]) == ("holds_marks", {"assemble.marks": "drop"})
    assert (removed["new"], removed["earlier"]) == (len(left) - before["pairs"], before["pairs"])
    assert (removed["sft"], len(removed["examples"])) == (3, 10)


def as_before(world: World, run: Run) -> None:
    """Lay a run's version out as an earlier release has done it."""
    done, folder = run.require_manifest("assemble"), folder_of(world, run)
    version = f"datasets/{LINE}/{folder.name}"
    rows = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").iterdir())])
    pq.write_table(rows.drop_columns(["source"]), folder / "data.parquet")
    shutil.rmtree(folder / "data")
    (folder / "alpaca.json").unlink()
    outputs = {name: key for name, key in done.outputs.items() if not name.startswith("train-")}
    outputs |= {"parquet": f"{version}/data.parquet", "pairs": f"{version}/pairs.parquet"}
    del outputs["attempt"], outputs["alpaca"]
    pq.write_table(
        pq.read_table(world.root / done.output("pairs")).drop_columns(["source"]), folder / "pairs.parquet"
    )
    (world.root / done.output("pairs")).unlink()
    figures = {name: value for name, value in done.figures.items() if name not in ("contents", "inputs")}
    figures["examples"] = {"kept": {}, "lost": {}, "unread": {}}
    manifest = done.model_copy(update={"outputs": outputs, "figures": figures})
    (world.root / run.manifest_key("assemble")).write_text(manifest.model_dump_json())
    told = json.loads((folder / "version.json").read_text())
    del told["contents"]
    told["pairs"] = [f"{version}/pairs.parquet"]
    (folder / "version.json").write_text(json.dumps(told))


def test_a_line_goes_on_upon_a_version_of_an_earlier_release(world: World) -> None:
    world.night(FIRST)
    first = world.runs[-1]
    held = {pair["pair_id"] for pair in world.pairs_of(world.latest())}
    as_before(world, first)
    before = files(world.root)
    again = assemble.execute(first)
    assert (again["is_latest"], again["unchanged"], files(world.root)) == (True, False, before)
    # A night that changes nothing stands on it, and is trained on as such.
    assert not world.night(FIRST | {"same_dump_as": 0, "good": 0})["version"]
    unchanged = world.runs[-1].require_manifest("assemble")
    assert data_files.keys(unchanged) == [f"datasets/{LINE}/{assemble.version(first)}/data.parquet"]
    target = world.root.parent / "rows"
    data_files.download(world.runs[-1], unchanged, target)
    assert [path.read_bytes() for path in data_files.paths(target)] == [
        (world.root / data_files.keys(unchanged)[0]).read_bytes()
    ]
    # The next one has its pairs, in the new layout.
    assert world.night(night("west"))["version"]
    run = world.runs[-1]
    assert held <= {pair["pair_id"] for pair in world.pairs_of(world.latest())}
    dumps = json.loads((folder_of(world, run) / "version.json").read_text())["contents"]["by_source"]
    # Pairs of that release do not say their source: their dump stands for it.
    assert dumps.keys() == {"sft/set", "night-000", "night-002"}


def test_the_pages_of_both_releases_show_pairs_of_the_dataset(world: World) -> None:
    world.night(FIRST | {"share": 0.1})
    run = world.runs[-1]
    held = {pair["pair_id"] for pair in world.pairs_of(world.latest())}
    answered = sum(
        len(pq.read_table(path)) for path in (world.root / run.prefix / "answer").glob("part-*.parquet")
    )
    assert 0 < len(held) < answered
    for release in ("this", "earlier"):
        if release == "earlier":
            as_before(world, run)
        page = world.page(run)
        assert all(key in page for key in held)
        assert page.count('<article class="pair">') == len(held)
