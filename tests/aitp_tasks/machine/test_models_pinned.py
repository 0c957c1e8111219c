"""Models of the hub by commit: what a branch names is frozen when a run is planned."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aitp_tasks.config import Finetune, Model
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import base_model, models
from tests.aitp_tasks.machine.hub import REPOSITORY, Hub, serving

_FILES = {"config.json": b"{}", "model.safetensors": b"weights", "LICENSE": b"free"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    hub.commit("main", _FILES)
    with serving(hub, tmp_path / "hub", monkeypatch):
        yield hub


def _model(revision: str | None) -> Model:
    return Model(model=REPOSITORY, revision=revision)


def test_a_branch_becomes_the_commit_that_it_names_now(hub: Hub) -> None:
    first = models.pinned(_model("main"))
    assert first.revision == hub.names["main"]
    hub.commit("main", {"config.json": b"[]"})
    hub.names["v1"] = first.revision or ""
    assert models.pinned(_model("main")).revision == hub.names["main"] != first.revision
    assert models.identity(models.pinned(_model("main"))) != models.identity(first)
    assert models.pinned(_model("v1")) == first


def test_a_commit_is_taken_as_it_is(hub: Hub) -> None:
    model = _model("0123456789" * 4)
    assert models.pinned(model) is model
    folder = Model(model="/a/folder")
    assert models.pinned(folder) is folder
    assert hub.asked == []


def test_a_revision_that_does_not_exist_is_bad_input(hub: Hub) -> None:
    with pytest.raises(InputError, match=f"model {REPOSITORY} cannot be loaded: correct it or its revision"):
        models.pinned(_model("mian"))


def test_a_hub_that_is_away_is_asked_again(hub: Hub) -> None:
    hub.status = 404
    with pytest.raises(InputError):
        models.pinned(_model("main"))
    hub.status = 503
    with pytest.raises(TransientError, match="retry"):
        models.pinned(_model("main"))


def test_the_base_comes_whole_and_without_code(hub: Hub) -> None:
    others = {
        "modeling.py": b"1",
        "pytorch_model.bin": b"1",
        "original/model.safetensors": b"1",
        "consolidated.safetensors": b"1",
        "README.md": b"1",
    }
    commit = hub.commit("main", {**_FILES, **others})
    folder = base_model.fetch(Finetune(model=REPOSITORY, revision=commit))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(
        _FILES
    )
    hub.asked.clear()
    assert base_model.fetch(Finetune(model=REPOSITORY, revision=commit)) == folder
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_other_weights_come_where_there_are_no_safetensors(hub: Hub) -> None:
    commit = hub.commit("main", {"config.json": b"{}", "pytorch_model.bin": b"weights"})
    folder = base_model.fetch(Finetune(model=REPOSITORY, revision=commit))
    assert (folder / "pytorch_model.bin").read_bytes() == b"weights"
