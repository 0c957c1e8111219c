"""Nights of a world that tests of tools share: made once, and copied for each test.

``v1`` has three pairs, of which one is marked bad and leaves with ``v2``, and one leaves with ``v3``
for an SFT example that says the same. ``w2`` was planned on ``v1`` and finished after ``v2``. The
pairs of the last night are too long: they come into no version.
"""

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitp_tasks.records.run import Run
from aitp_tasks.stages import assemble
from aitp_tasks.storage import Storage, open_storage
from tests.aitp_tasks.world import World, place_of

_SHARE = {"share": 0.5, "questions": 1, "good": 1}
_STATE = ("_dumps", "_scores", "_sft", "_twins", "runs", "trained")


@dataclass
class Nights:
    """A world after some nights.

    Attributes:
        world: that goes on.
        config: a file with the configuration of its last night.
        names: of the versions, by what they are called here.
        pairs: ids of pairs, by their place.
    """

    world: World
    config: Path
    names: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, list[str]] = field(default_factory=dict)

    def night(self, dump: dict[str, Any], sft: int = 100, **more: Any) -> dict[str, Any]:
        """A night as it is told."""
        return {"sft": {"home": sft}, "dump": dump, **_SHARE, **more}

    def run(self, name: str) -> Run:
        """The run that has made a version."""
        return next(run for run in self.world.runs if assemble.version(run) == self.names[name])


_MADE: dict[str, Nights] = {}


def of(folder: Path, monkeypatch: pytest.MonkeyPatch, factory: pytest.TempPathFactory) -> Nights:
    """These nights, in a folder of one's own; others can follow."""
    if "made" not in _MADE:
        with pytest.MonkeyPatch.context() as patch:
            _MADE["made"] = _make(factory.mktemp("nights"), patch)
    made = _MADE["made"]
    folder = folder / "nights"
    folder.mkdir()
    world = World(folder, monkeypatch)
    for name in _STATE:
        setattr(world, name, copy.copy(getattr(made.world, name)))
    shutil.copytree(made.world.root, world.root)
    storage = open_storage(f"file://{world.root}")
    world.runs = [_at(storage, run) for run in made.world.runs]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(world.runs[-1].config.model_dump(mode="json")))
    return Nights(world, path, made.names, made.pairs)


def _at(storage: Storage, run: Run) -> Run:
    """A run where it was copied to."""
    config = run.config.model_copy(update={"root": storage.root})
    return Run(storage, run.plan.model_copy(update={"config": config}), run.digest)


def _make(folder: Path, patch: pytest.MonkeyPatch) -> Nights:
    made = Nights(World(folder, patch), folder / "config.yaml")
    world = made.world

    def note(name: str, run: Run | None = None) -> None:
        latest = world.latest()
        assert latest is not None
        made.names[name] = assemble.version(run) if run else latest.name
        for pair in world.pairs_of(latest):
            known = made.pairs.setdefault(place_of(pair), [])
            known += [pair["pair_id"]] if pair["pair_id"] not in known else []

    world.night(made.night({"north": 2, "west": 1}))
    note("v1")
    second = made.night({"home": 2, "se": 1})
    late = world.begin(second)
    world.night(
        made.night({"ne": 1, "sw": 1}, mark_bad_before={"place": "north", "n": 1}, questions=2, good=2)
    )
    note("v2")
    world._night = second
    world.go_on(late)
    world.runs.append(late)
    note("w2", late)
    world.night(made.night({"home": 2, "se": 1}, 89, same_dump_as=1, twins_before={"place": "north", "n": 1}))
    note("v3")
    world.night(made.night({"home": 1, "nw": 2}, 89, assemble={"max_answer_words": 1}))
    return made
