"""Task files are data: what they hold is a part of a run's identity, and they bring no code."""

from pathlib import Path

import pytest

from aitp_tasks.config import Evaluate
from aitp_tasks.errors import InputError
from aitp_tasks.evaluation import task_files


def _settings(folder: Path | None) -> Evaluate:
    return Evaluate(held_out=0.1, tasks=("quiz",), task_folder=folder and str(folder))


def _write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_text(content)
    return folder


def test_contents_and_names_decide_and_where_they_lie_does_not(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", quiz_yaml="task: quiz", quiz_jsonl="{}")
    other = _write(tmp_path / "other", quiz_yaml="task: quiz", quiz_jsonl="{}")
    before = task_files.identity(_settings(one))
    assert before == task_files.identity(_settings(other))
    found = {before}
    for files in ({"quiz_jsonl": "[]"}, {"quiz_yaml": "task: b"}, {"more_txt": ""}):
        found.add(task_files.identity(_settings(_write(other, **files))))
    (other / "more.txt").rename(other / "less.txt")
    found.add(task_files.identity(_settings(other)))
    assert len(found) == 5
    assert task_files.identity(_settings(None)) == ""


def test_files_that_were_changed_after_the_plan_are_refused(tmp_path: Path) -> None:
    settings = _settings(_write(tmp_path / "one", quiz_yaml="task: quiz"))
    planned = task_files.identity(settings)
    task_files.require_planned(settings, planned)
    _write(tmp_path / "one", quiz_yaml="task: quiz\nnum_fewshot: 3")
    with pytest.raises(InputError, match="are not those that the run was planned with: put them back"):
        task_files.require_planned(settings, planned)
    task_files.require_planned(_settings(None), "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task: quiz\nprocess_docs: !function evil.run\n", "code \\(!function\\) is not run"),
        ("task: !!python/object/apply:os.system [id]\n", "is no plain YAML"),
        ("task: [\n", "is no plain YAML"),
        ("dataset_path: pandas\n", "'pandas', which loads pickles"),
        ("dataset_path: webdataset\n", "'webdataset', which loads pickles"),
        ("include: ../evil.yaml\n", "includes '../evil.yaml': put it into"),
        ("include: [quiz.yaml, /etc/evil.yaml]\n", "includes '/etc/evil.yaml'"),
        ("include: evil.txt\n", "with a name that ends in .yaml"),
    ],
)
def test_code_and_pickles_are_refused(tmp_path: Path, content: str, message: str) -> None:
    folder = _write(tmp_path / "one", quiz_yaml=content)
    with pytest.raises(InputError, match=message):
        task_files.identity(_settings(folder))


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder: name one with YAML task files"):
        task_files.identity(_settings(tmp_path / "nowhere"))


def test_a_folder_that_is_huge_is_refused_unread(tmp_path: Path) -> None:
    folder = _write(tmp_path / "one", quiz_yaml="task: quiz")
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(InputError, match=r"holds 2\.0 GiB, more than 1"):
        task_files.identity(_settings(folder))
