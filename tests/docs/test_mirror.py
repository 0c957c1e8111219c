"""tests/aitp_tasks/ mirrors aitp_tasks/: a module of tests belongs to the module or package it names."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = sorted(
    path.relative_to(REPOSITORY / "tests") for path in (REPOSITORY / "tests/aitp_tasks").rglob("test_*.py")
)


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_a_module_of_tests_belongs_to_what_it_names(path: Path) -> None:
    assert belongs_to(REPOSITORY, path) is not None, (
        f"tests/{path} tests nothing that is in {path.parent}/: move it to where its module lies, or name it "
        "test_<module>.py, test_<package>.py, or one of these with _<topic>"
    )


def belongs_to(root: Path, path: Path) -> str | None:
    """The longest name of a module or package beside it in the tree that a module of tests begins with."""
    tested = path.stem.removeprefix("test_")
    modules = {entry.stem for entry in (root / path.parent).glob("*.py")} - {"__init__"}
    packages = {entry.parent.name for entry in (root / path.parent).glob("*/__init__.py")}
    names = [name for name in modules | packages if tested == name or tested.startswith(f"{name}_")]
    return max(names, key=len, default=None)


def test_the_longest_name_counts_and_a_topic_may_follow(tmp_path: Path) -> None:
    for module in ("near.py", "near_far.py", "box/__init__.py"):
        path = tmp_path / "room" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    named = {
        name: belongs_to(tmp_path, Path(f"room/test_{name}.py")) for name in ("near_far_edge", "box_lid")
    }
    assert named == {"near_far_edge": "near_far", "box_lid": "box"}
    assert belongs_to(tmp_path, Path("room/test_nearer.py")) is None
    assert belongs_to(tmp_path, Path("other/test_near.py")) is None
