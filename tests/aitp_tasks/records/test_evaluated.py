"""What was measured of a version is there for whoever hands it on."""

from pathlib import Path

from aitp_tasks.records import evaluated
from aitp_tasks.storage import open_storage


def test_the_figures_are_kept_until_others_are_measured(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}")
    assert evaluated.of_version(storage, "aitp", "v1") is None
    figures = {"sets": {"sft": {"n": 3}}, "steps": 4, "baseline_seconds": 1.5}
    evaluated.note(storage, "aitp", "v1", figures)
    assert evaluated.of_version(storage, "aitp", "v1") == {"sets": {"sft": {"n": 3}}, "steps": 4}
    (first,) = storage.list("datasets/aitp/v1/")
    evaluated.note(storage, "aitp", "v1", figures | {"baseline_seconds": 2.5})
    assert list(storage.list("datasets/aitp/v1/")) == [first]
    evaluated.note(storage, "aitp", "v1", figures | {"tasks": {}})
    assert evaluated.of_version(storage, "aitp", "v1") == {"sets": {"sft": {"n": 3}}, "steps": 4, "tasks": {}}
