"""Nights told by somebody who had not read the code, with what is right after each."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.aitp_tasks.world import World

pytestmark = [pytest.mark.slow, pytest.mark.side_by_side]

CASES = json.loads((Path(__file__).parent / "nights.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_line_of_versions(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    wrong = []
    for number, night in enumerate(case["nights"]):
        found = world.night(night)
        wrong += [
            f"night {number}: {name} is {found[name]}, not {wanted}"
            for name, wanted in night["expect"].items()
            if not _is_right(found[name], wanted)
        ]
        # Who is not said to leave stays.
        left = night["expect"].get("left")
        wrong += [
            f"night {number}: {count} left, {reason}"
            for reason, count in (found["left"] if left is not None else {}).items()
            if reason not in left
        ]
    assert not wrong, f"{case['why']}: {wrong}"


def _is_right(found: Any, wanted: Any) -> bool:
    """Whether it is just that, or within bounds; of counts by name, none are 0."""
    if isinstance(wanted, dict):
        return all(_is_right(found.get(name, 0), count) for name, count in wanted.items())
    if isinstance(wanted, list):
        return bool(wanted[0] <= found <= wanted[1])
    return bool(found == wanted)
