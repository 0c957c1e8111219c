"""Models in a folder, on the hub and under a storage prefix: identity, copy, races, hostile keys."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError

from aitp_tasks.config import Model
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import models
from aitp_tasks.storage import ObjectInfo
from aitp_tasks.storage.local import LocalStorage
from tests.aitp_tasks.conftest import MODELS

FILES = {"config.json": b"{}", "1_Pooling/config.json": b'{"mean": true}', "model.safetensors": bytes(3000)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(tmp_path: Path) -> Model:
    """A model under a storage prefix."""
    for name, content in FILES.items():
        path = tmp_path / "bucket/models/small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Model(model=f"file://{tmp_path}/bucket/models/small")


def contents(folder: str) -> dict[str, bytes]:
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("model", "revision", "label"),
    [("/a/folder", None, "folder"), ("org/name", "abc", "org/name@abc")],
    ids=["folder", "hub"],
)
def test_folder_and_hub_models_are_loaded_from_where_they_are(
    model: str, revision: str | None, label: str
) -> None:
    settings = Model(model=model, revision=revision)
    assert models.local(settings) == model
    assert settings.label == label


@pytest.mark.parametrize(
    "model", ["s3://secret-bucket/models/name", "file:///home/somebody/name", "file:///name/"]
)
def test_where_a_stored_model_lies_is_not_in_its_label(model: str) -> None:
    assert Model(model=model).label == "name"


def test_a_stored_model_is_copied_once(stored: Model, cache: Path) -> None:
    folder = models.local(stored)
    assert contents(folder) == FILES
    assert Path(folder) == cache / "models" / models.identity(stored)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert models.local(stored) == folder
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_another_version_is_another_model(stored: Model) -> None:
    first, identity = models.local(stored), models.identity(stored)
    (Path(stored.model.removeprefix("file://")) / "config.json").write_bytes(b'{"new": 1}')
    second = models.local(stored)
    assert models.identity(stored) != identity
    assert contents(first)["config.json"] == b"{}"
    assert contents(second)["config.json"] == b'{"new": 1}'


@pytest.mark.parametrize("damage", ["a file lost", "a file cut short", "a copy that was killed"])
def test_a_copy_that_is_not_whole_is_made_again(stored: Model, damage: str) -> None:
    weights = Path(models.local(stored)) / "model.safetensors"
    if damage == "a file lost":
        weights.unlink()
    elif damage == "a file cut short":
        weights.write_bytes(b"short")
    else:
        weights.parent.rename(weights.parent.with_suffix(".unfinished"))
    folder = models.local(stored)
    assert contents(folder) == FILES
    assert [path.name for path in Path(folder).parent.iterdir() if path.is_dir()] == [Path(folder).name]


def test_processes_that_race_leave_one_whole_copy(stored: Model, cache: Path) -> None:
    script = (
        "import sys; from aitp_tasks import config; from aitp_tasks.machine import models\n"
        "print(models.local(config.Model(model=sys.argv[1])))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script, stored.model], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    folders = {racer.communicate()[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 4
    assert contents(folders.pop()) == FILES
    assert not folders
    assert len([path for path in (cache / "models").iterdir() if path.is_dir()]) == 1


def test_a_model_replaced_while_it_is_copied_is_noticed(
    stored: Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalStorage.download

    def replaced(self: LocalStorage, key: str, path: Path) -> None:
        plain(self, key, path)
        self.write("config.json", b"other")

    monkeypatch.setattr(LocalStorage, "download", replaced)
    with pytest.raises(TransientError, match=r"models/small was changed while it was copied: run the task"):
        models.local(stored)
    assert [path.suffix for path in (cache / "models").iterdir()] == [".lock"]


@pytest.mark.parametrize("suffix", ["", "/"])
def test_a_prefix_without_a_model_is_named(tmp_path: Path, suffix: str) -> None:
    model = Model(model=f"file://{tmp_path}/none{suffix}")
    for read in (models.identity, models.local):
        with pytest.raises(InputError, match=r"no model under file://.*/none: upload it, or correct"):
            read(model)


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/outside", "a\0b"])
def test_a_key_that_leads_out_of_the_prefix_is_refused(
    stored: Model, cache: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def listed(self: LocalStorage, prefix: str) -> Iterator[ObjectInfo]:
        yield from (ObjectInfo("config.json", 2, "tag"), ObjectInfo(key, 1, "tag"))

    monkeypatch.setattr(LocalStorage, "list", listed)
    with pytest.raises(InputError, match="leads out of it: remove it"):
        models.local(stored)
    assert not cache.exists()


def test_folder_marks_are_no_files(stored: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LocalStorage.list

    def marked(self: LocalStorage, prefix: str) -> Iterator[ObjectInfo]:
        yield from (ObjectInfo("", 0, "tag"), ObjectInfo("1_Pooling/", 0, "tag"), *plain(self, prefix))

    identity = models.identity(stored)
    monkeypatch.setattr(LocalStorage, "list", marked)
    assert models.identity(stored) == identity
    assert contents(models.local(stored)) == FILES


def test_a_real_encoder_loads_from_its_copy() -> None:
    from sentence_transformers import SentenceTransformer

    folder = models.local(Model(model=f"file://{MODELS}/all-MiniLM-L6-v2"))
    assert os.path.commonpath([folder, MODELS]) != str(MODELS)
    encoder = SentenceTransformer(folder, device="cpu", local_files_only=True)
    assert encoder.encode(["grain"]).shape == (1, 384)


def status(code: int) -> HfHubHTTPError:
    return HfHubHTTPError("no", response=httpx.Response(code, request=httpx.Request("GET", "http://hub")))


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (LocalEntryNotFoundError("no connection, and not in the cache"), TransientError),
        (ConnectionResetError(), TransientError),
        (status(503), TransientError),
        (OSError(errno.ENOSPC, "no space left"), TransientError),
        (status(404), InputError),
        (OfflineModeIsEnabled("HF_HUB_OFFLINE=1"), InputError),
        (SafetensorError("header too small"), InputError),
        (None, InputError),
    ],
)
def test_a_model_that_is_wrong_is_told_from_a_hub_that_does_not_answer(
    cause: Exception | None, kind: type[Exception]
) -> None:
    with (
        pytest.raises(kind, match="encoder org/name cannot be loaded"),
        models.loading(Model(model="org/name", revision="abc"), "encoder"),
    ):
        raise OSError("the model cannot be had") from cause


def test_notes_of_the_hubs_client_are_no_part_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = models.identity(Model(model=str(tmp_path)))
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/config.json.metadata").write_text("1764000000.0")
    assert models.identity(Model(model=str(tmp_path))) == before
    (tmp_path / "other.json").write_text("{}")
    assert models.identity(Model(model=str(tmp_path))) != before


def test_what_a_link_in_a_models_folder_leads_to_is_of_the_model(tmp_path: Path) -> None:
    folder, away = tmp_path / "model", tmp_path / "away"
    for name in ("model/config.json", "model/1_Pooling/config.json", "away/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    plain = models.identity(Model(model=str(folder)))
    shutil.rmtree(folder / "1_Pooling")
    (folder / "1_Pooling").symlink_to(away)
    assert models.identity(Model(model=str(folder))) == plain
    (away / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert models.identity(Model(model=str(folder))) != plain
    # One that leads back is no folder of its own.
    before = models.identity(Model(model=str(folder)))
    (folder / "self").symlink_to(folder)
    assert models.identity(Model(model=str(folder))) == before


def test_a_stored_model_with_a_link_to_a_folder_is_refused(stored: Model, tmp_path: Path) -> None:
    (tmp_path / "bucket/models/small/adapter").symlink_to(tmp_path)
    for read in (models.identity, models.local):
        with pytest.raises(InputError, match="holds 'adapter', a link to a folder or to nothing"):
            read(stored)
