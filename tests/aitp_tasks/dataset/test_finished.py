"""What is handed on: the files as they were made, the card with what is known and decided by now."""

import json
from pathlib import Path

import pytest

from aitp_tasks.dataset import front
from aitp_tasks.dataset.finished import Finished
from aitp_tasks.errors import InputError
from aitp_tasks.records import contents, evaluated
from aitp_tasks.storage import open_storage
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset.test_card import EVALUATED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    handed.stored(tmp_path / "storage", handed.rows())
    return tmp_path / "storage"


def fetched(found: Finished, folder: Path) -> dict[str, bytes]:
    return {path: found.fetch(path, folder).read_bytes() for path in found.files}


def test_without_anything_new_all_files_are_as_they_were_made(root: Path, tmp_path: Path) -> None:
    found = Finished(open_storage(f"file://{root}"), handed.settings(), "news-1")
    folder = root / "datasets/aitp/news-1"
    assert fetched(found, tmp_path / "there") == {path: (folder / path).read_bytes() for path in found.files}
    assert contents.files(tmp_path / "there") == {path: found.files[path] for path in sorted(found.files)}
    order = list(found.files)
    assert (order[0], order[-2:]) == ("data/train-00000-of-00001.parquet", ["README.md", "version.json"])


def test_evaluation_and_licence_are_those_of_now_and_the_stored_card_stays(
    root: Path, tmp_path: Path
) -> None:
    storage, path = open_storage(f"file://{root}"), root / "datasets/aitp/news-1/README.md"
    before = path.read_bytes()
    evaluated.note(storage, "aitp", "news-1", EVALUATED)
    found = Finished(storage, handed.settings(license="odc-by"), "latest")
    files = fetched(found, tmp_path / "there")
    text = files["README.md"].decode()
    assert front.split(text)[0]["license"] == "odc-by"
    assert "| SFT examples | -0.3750 (-0.5000 to -0.2500) | -0.1250 |" in text
    assert b'"license": "Open Data Commons License Attribution family"' in files["croissant.json"]
    assert path.read_bytes() == before
    # What leaves is told as it leaves, and what is not finished as it was made.
    assert contents.files(tmp_path / "there") == {path: found.files[path] for path in sorted(found.files)}
    same = [
        path for path in found.files if files[path] == (root / "datasets/aitp/news-1" / path).read_bytes()
    ]
    assert found.files.keys() - same == {"README.md", "croissant.json"}


@pytest.mark.parametrize("name", ["news-2", "none", "latest"])
def test_a_version_that_is_not_there_is_named(root: Path, name: str) -> None:
    line = handed.settings(dataset="other") if name == "latest" else handed.settings()
    with pytest.raises(InputError, match=f"has no version {name}: name one that is there"):
        Finished(open_storage(f"file://{root}"), line, name)


@pytest.mark.parametrize("path", ["../out.md", "/tmp/out.md", "data/../../out.md"])
def test_no_file_leaves_its_folder(root: Path, path: str) -> None:
    version = root / "datasets/aitp/news-1/version.json"
    told = json.loads(version.read_text())
    told["contents"]["files"][path] = {"bytes": 1, "sha256": "0" * 64}
    version.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"is not as version\.json says it was made"):
        Finished(open_storage(f"file://{root}"), handed.settings(), "news-1")


def test_a_file_that_is_gone_is_named(root: Path) -> None:
    found = Finished(open_storage(f"file://{root}"), handed.settings(), "news-1")
    found.require_whole()
    (root / "datasets/aitp/news-1/alpaca.json").unlink()
    with pytest.raises(InputError, match=r"news-1/alpaca\.json is not as version\.json says it was made"):
        found.require_whole()
