"""A hundred nights on one line: what must hold after each, and that none costs more than those before."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aitp_tasks.storage.local import LocalStorage
from tests.aitp_tasks.world import PLACES, World, place_of

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

NIGHTS, SHARE = 100, 0.2


def night_of(number: int, random_: random.Random) -> dict[str, Any]:
    """What a night brings: every seventh dump is narrow, the SFT set grows, shrinks and grows again."""
    names = list(PLACES)
    weights = [1.0 / (place + 1) for place in range(len(names))]
    if number % 7 == 6:
        places = ["home", "north", "south", *random_.sample(names[4:], 1)]
    else:
        places = ["home", "north", "south", *random_.choices(names, weights, k=9)]
    step = [0, 0, 10, 10, -20, 0, 5, 5, 5, 5][number // 10]
    examples = {"home": 30, "ne": 14 + step // 4, "south": 20 + step}
    return {
        "sft": {place: max(count, 3) for place, count in examples.items()},
        "dump": dict(Counter(places) + Counter({"home": 4})),
        "share": SHARE,
        "questions": 2,
        "good": 2 if number % 5 else 1,
        "max_documents": 12,
    }


def coverage(corpus: Counter[str], examples: Counter[str], of: float) -> float:
    """Share of a corpus at whose places the examples are at least as dense as the corpus is."""
    total = sum(corpus.values())
    covered = sum(count for place, count in corpus.items() if examples.get(place, 0) / of >= count / total)
    return covered / total


class Counted:
    """Bytes and objects that go through a storage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.listed = 0
        read, read_range, walk = LocalStorage.read, LocalStorage.read_range, LocalStorage.list

        def counted_read(storage: LocalStorage, key: str) -> bytes:
            data = read(storage, key)
            self.read += len(data)
            return data

        def counted_range(storage: LocalStorage, *arguments: Any) -> bytes:
            data = read_range(storage, *arguments)
            self.read += len(data)
            return data

        def counted_list(storage: LocalStorage, prefix: str) -> Any:
            for info in walk(storage, prefix):
                self.listed += 1
                yield info

        monkeypatch.setattr(LocalStorage, "read", counted_read)
        monkeypatch.setattr(LocalStorage, "read_range", counted_range)
        monkeypatch.setattr(LocalStorage, "list", counted_list)


def stored(root: Path) -> int:
    """Bytes of all objects but the inputs."""
    files = (
        path
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in ("corpus", "sft")
    )
    return sum(path.stat().st_size for path in files)


def test_a_hundred_nights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    world, random_ = World(tmp_path, monkeypatch), random.Random(14)
    counted = Counted(monkeypatch)
    costs: dict[str, list[float]] = {
        name: [] for name in ("seconds", "processor", "stored", "read", "listed")
    }
    seen, held = Counter[str](), Counter[str]()
    made, largest = 0, 0.0
    for number in range(NIGHTS):
        night, before = night_of(number, random_), _spent(world, counted)
        found = world.night(night)
        for name, old, new in zip(costs, before, _spent(world, counted), strict=True):
            costs[name].append(new - old)
        pairs = Counter(place_of(pair) for pair in world.pairs_of(world.latest()))
        examples = Counter(night["sft"])
        share = pairs.total() / (pairs.total() + examples.total())
        largest = max(largest, share / SHARE)
        assert share <= SHARE, number
        assert found["trained"] == found["version"], number
        # A night that made no version has left none of its dump either.
        corpus = seen + Counter(night["dump"])
        # By counting: places lie so far apart that each has its own kernels only.
        room = int(SHARE / (1 - SHARE) * examples.total() + 1e-9)
        if held.total() <= room:
            of = (examples + pairs).total()
            for dumps in (corpus, Counter(night["dump"])):
                assert coverage(dumps, examples + pairs, of) >= coverage(dumps, examples + held, of), number
        held = pairs
        seen = corpus if found["version"] else seen
        made += found["version"]
    record_property("nights_share_max", round(largest, 6))
    record_property("nights_versions", made)
    growth = {name: float(np.median(night[80:]) / np.median(night[20:40])) for name, night in costs.items()}
    for name, factor in growth.items():
        record_property(f"nights_{name}_growth", round(factor, 3))
    # It goes on improving, and nights that change nothing make no version.
    assert 20 < made < NIGHTS
    # How long a night takes depends on what else the machine does, and is told only; what it reads does not.
    assert max(growth[name] for name in ("stored", "read", "listed")) <= 1.25, growth
    assert growth["processor"] <= 2, growth


def _spent(world: World, counted: Counted) -> tuple[float, ...]:
    """Seconds, those of processors, bytes that are stored, bytes read and objects listed, until now."""
    return time.monotonic(), time.process_time(), stored(world.root), counted.read, counted.listed
