"""Nights that follow each other: what a review has found, what is told, and what is not done twice."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from aitp_tasks.config import SftText
from aitp_tasks.inputs.forms import compared
from aitp_tasks.records import digest, earlier, published, versions
from aitp_tasks.records.run import Run
from aitp_tasks.stages import finetune, plan
from aitp_tasks.storage import open_storage
from aitp_tasks.tools import units
from tests.aitp_tasks.world import LINE, World, place_of, vector_of

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

SFT = {"home": 20, "east": 10, "south": 10}
HOME = {"home": 4, "south": 2, "east": 2}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def night(dump: dict[str, int], **more: Any) -> dict[str, Any]:
    return {"sft": SFT, "dump": HOME | dump, **more}


def places(world: World) -> Counter[str]:
    return Counter(place_of(pair) for pair in world.pairs_of(world.latest()))


def test_a_refit_on_a_narrow_dump_empties_no_region(world: World) -> None:
    world.night(night({"north": 5, "west": 5}))
    before = places(world)
    assert min(before["north"], before["west"]) > 0
    for _ in range(3):
        world.night(night({"ne": 9}, density={"refit": "always"}))
        after = places(world)
        assert min(after["north"], after["west"]) > 0, after
        assert after.total() <= 10


def test_a_refit_that_is_due_is_not_forgotten_by_a_night_that_changes_nothing(world: World) -> None:
    auto = {"density": {"refit": "auto", "max_drift": 0.05}}
    world.night(night({"north": 12}, **auto))
    found = world.night(night({}, max_documents=1, share=0.2, questions=1, good=0, **auto))
    unchanged = world.runs[-1]
    assert not found["version"]
    assert unchanged.require_manifest("difference").figures["refit_due"]
    assert world.begin(night({"north": 3}, **auto)).plan.geometry is None


def test_a_night_that_changed_nothing_is_found_again_after_others(world: World) -> None:
    world.night(night({"north": 12}))
    assert not world.night(night({"north": 3}, good=0))["version"]
    unchanged = world.runs[-1]
    assert world.night(night({"west": 12}))["version"]
    again = plan.execute(unchanged.config)
    assert again["run"] == unchanged.uri
    run = Run.open(again["run"])
    assert [units.execute(run, stage)["units"] for stage in ("embed", "density")] == [[], []]


def test_a_dump_is_taken_in_with_the_line_that_leads_on(world: World) -> None:
    storage = open_storage(f"file://{world.root}")
    world.night(night({"north": 12}))
    late = world.begin(night({"west": 5}))
    world.night(night({"ne": 5}))
    world.go_on(late)
    assert versions.taken_in(storage, LINE) == {"night-000", "night-002"}


def test_a_checkpoint_is_named_by_others_only_once_it_has_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.begin(night({"north": 12}))
    world.go_on(run, "assemble")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(published, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune.execute(Run.open(run.uri))
    trained = world.trained
    assert not world.night(night({"north": 3}, good=0))["version"]
    assert world.trained == trained + 1


def test_pairs_of_an_earlier_release_keep_the_version_that_they_came_with(world: World) -> None:
    storage = open_storage(f"file://{world.root}")
    world.night(night({"north": 12}))
    first = world.latest()
    assert first is not None
    # It wrote them beside the version's rows, without columns that came later.
    (key,) = first.pairs
    of_version = versions.prefix(LINE, first.name)
    table = pq.read_table(world.root / key)
    (world.root / key).unlink()
    before = f"{of_version}/pairs.parquet"
    pq.write_table(table.drop_columns(["version", "prompts", "source"]), world.root / before)
    told = json.loads((world.root / of_version / "version.json").read_text())
    (world.root / of_version / "version.json").write_text(json.dumps(told | {"pairs": [before]}))
    world.night(night({"west": 12}, mark_bad_before={"place": "north", "n": 1}))
    latest = world.latest()
    assert latest is not None
    found = {pair["version"] for pair in world.pairs_of(latest)}
    assert found <= {first.name, latest.name}
    assert first.name in found
    assert storage.find(latest.pairs[0]) is not None


def test_with_a_withdrawn_prompt_in_use_nothing_is_generated(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    found = world.night(night({"north": 12}, withdrawn=["answer@1"]))
    assert (found["drawn"], found["pairs"]) == (0, 0)
    assert "no document is drawn: answer@1 is withdrawn, and still in use" in caplog.text


def test_what_became_of_a_night_is_told_where_a_person_looks(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = world.night(night({"north": 12}))
    assert "plan sft_examples=40 max_rewritten_share=0.2 room=10 earlier_pairs=0 left=0" in caplog.text
    made = world.latest()
    assert made is not None
    assert made.order == ("rarity", "scores", "age")
    card = (world.root / f"datasets/{LINE}/{made.name}/README.md").read_text()
    assert f"# {LINE} {made.name}" in card
    assert "40 examples of the SFT set `set`, and 10 pairs" in card
    assert "share of rewritten pairs: 0.2000 of at most 0.2 (room for 10 pairs)" in card
    assert "who stays where there is not room for all: rarity, scores, age" in card
    page = world.page(world.runs[-1])
    assert "It has room for 10 pairs. Where that is too little, they stay by: rarity, scores, age." in page
    assert f"{first['drawn'] - 10} new pairs found no room." in page
    assert "Documents were drawn for 10 places, at 0.5 pairs a document: 25 at most." in page
    world.night(night({"west": 5}, mark_bad_before={"place": "north", "n": 2}))
    latest = world.latest()
    assert latest is not None
    card = (world.root / f"datasets/{LINE}/{latest.name}/README.md").read_text()
    assert "| marked_bad | 0 | 2 | 0 |" in card.replace("\\", "").replace("`", "")
    assert "Of the version before, 2 pairs left (<code>marked_bad</code>)" in world.page(world.runs[-1])
    assert "the dataset is full: room for 10 rewritten pairs" not in caplog.text
    world.night(night({"north": 3}, good=0))
    page = world.page(world.runs[-1])
    assert f"Nothing has changed: the dataset stays <code>{latest.name}</code>" in page
    assert "Nothing was trained:" in page
    assert "the dataset is full: room for 10 rewritten pairs, 10 are there" in caplog.text
    assert f"nothing has changed: the dataset stays {latest.name}, and no version is made" in caplog.text


def test_vectors_of_pairs_are_taken_over_and_those_of_new_ones_made(world: World) -> None:
    world.night(night({"north": 5}))
    world.night(night({"west": 5}))
    held = {pair["messages"][0]["content"]: pair["version"] for pair in world.pairs_of(world.latest())}
    latest = world.latest()
    assert latest is not None
    run = world.begin(night({"ne": 5}))
    world.encoded.clear()
    world.go_on(run, "embed")
    asked = [text.partition("\n")[0] for text in world.encoded]
    pairs_asked = {text for text in asked if text in held}
    assert pairs_asked == {question for question, version in held.items() if version == latest.name}
    assert 0 < len(pairs_asked) < len(held)
    # What was taken over is what the encoder says.
    world.go_on(run, "merge")
    taken = dict(earlier.known_vectors(Run.open(run.uri)))
    texts = {digest.of_text(text): text for text in _texts(world)}
    assert taken.keys() == texts.keys()
    for text_id, text in texts.items():
        assert np.array_equal(taken[text_id], vector_of(text))


def _texts(world: World) -> list[str]:
    found = [
        compared.of_pair(pair["messages"], SftText.FIRST_TURNS) for pair in world.pairs_of(world.latest())
    ]
    return [text for text in found if isinstance(text, str)]
