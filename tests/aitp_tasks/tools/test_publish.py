"""publish to a prefix: which objects are written, in which order, and what is left alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.storage import open_storage
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools import publish
from tests.aitp_tasks import handed, stores
from tests.aitp_tasks.dataset import card_cases
from tests.aitp_tasks.tools.test_publish_hub import OWN


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    handed.stored(root, handed.rows())
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "storage"))


def to(root: Path, place: str, version: str = "news-1", public: bool = False) -> dict[str, Any]:
    return publish.execute(handed.config(f"file://{root}"), version, place, public)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_versions_own_files_are_written_as_they_are(root: Path, tmp_path: Path, slash: str) -> None:
    folder = root / "datasets/aitp/news-1"
    (folder / "trained").mkdir()
    (folder / "trained/x.json").write_text("{}")
    target = tmp_path / "pub"
    target.mkdir()
    (target / "logo.png").write_bytes(b"mine")
    done = to(root, f"file://{target}{slash}")
    assert done["published"] == f"file://{target}/news-1"
    expected = {f"news-1/{path}": (folder / path).read_bytes() for path in OWN}
    assert files(target) == expected | {"logo.png": b"mine"}
    assert to(root, f"file://{target}")["written"] == 0


def test_what_was_broken_off_goes_on_and_what_tells_of_the_others_comes_last(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = LocalStorage.upload
    broken = True

    def upload(self: LocalStorage, key: str, path: Path) -> None:
        if broken and len(written) == 2:
            raise TransientError("away")
        written.append(key.removeprefix("news-1/"))
        real(self, key, path)

    monkeypatch.setattr(LocalStorage, "upload", upload)
    with pytest.raises(TransientError, match="away"):
        to(root, f"file://{tmp_path}/pub")
    assert (len(files(tmp_path / "pub")), written[0]) == (2, "data/train-00000-of-00001.parquet")
    broken = False
    assert to(root, f"file://{tmp_path}/pub")["written"] == 6
    assert (sorted(written), written[-2:]) == (sorted(OWN), ["README.md", "version.json"])


@pytest.mark.parametrize(
    "path", ["data/train-00000-of-00001.parquet", "data/train-00001.parquet", "notes.md"]
)
def test_a_version_that_is_there_with_other_content_is_left_alone(
    root: Path, tmp_path: Path, path: str
) -> None:
    there = tmp_path / "pub/news-1" / path
    there.parent.mkdir(parents=True)
    # As long as the real one, where there is one.
    real = root / "datasets/aitp/news-1" / path
    there.write_bytes(bytes(real.stat().st_size) if real.exists() else b"mine")
    before = files(tmp_path / "pub")
    with pytest.raises(InputError, match="is there and is not of news-1: nothing was written"):
        to(root, f"file://{tmp_path}/pub")
    assert files(tmp_path / "pub") == before


@pytest.mark.parametrize("below", ["", "/corpus", "/sft/x", "/datasets"])
def test_nothing_is_published_into_the_pipelines_own_root(root: Path, below: str) -> None:
    before = files(root)
    with pytest.raises(InputError, match="give a prefix of its own"):
        to(root, f"file://{root}{below}")
    assert files(root) == before
    # A name that only begins alike is another place.
    to(root, f"file://{root}-published")


@pytest.mark.parametrize(
    "place",
    [
        *card_cases.given("s3-odd-scheme")["targets"],
        "file://pub",
        "s3://a:secret@x/y",
        "hf://a:secret@x/y",
        "http://a:secret@x/y",
    ],
)
def test_what_is_no_place_is_refused(root: Path, place: str) -> None:
    with pytest.raises(InputError) as raised:
        to(root, place)
    assert "secret" not in str(raised.value)


def test_a_prefix_has_no_public(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--public says nothing of"):
        to(root, f"file://{tmp_path}/pub", public=True)


@pytest.mark.parametrize("version", ["news-9", "none", "../aitp/news-1"])
def test_a_version_that_is_not_there_is_refused(root: Path, tmp_path: Path, version: str) -> None:
    with pytest.raises(InputError):
        to(root, f"file://{tmp_path}/pub", version)
    assert not (tmp_path / "pub").exists()


def test_a_version_that_is_not_whole_or_not_as_it_was_is_refused(root: Path, tmp_path: Path) -> None:
    folder = root / "datasets/aitp/news-1"
    rows = folder / "data/train-00000-of-00001.parquet"
    data = rows.read_bytes()
    changes = {
        rows: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        folder / "README.md": (folder / "README.md").read_bytes().replace(b"pairs", b"PAIRS"),
        folder / "sharegpt.json": b"[]",
    }
    for path, changed in changes.items():
        before = path.read_bytes()
        path.write_bytes(changed)
        with pytest.raises(InputError, match="is not as version.json says it was made"):
            to(root, f"file://{tmp_path}/pub")
        path.write_bytes(before)
        # What is damaged is not there, and neither is what would say that all is.
        assert (
            not {f"news-1/{path.relative_to(folder)}", "news-1/version.json"} & files(tmp_path / "pub").keys()
        )


@pytest.mark.parametrize("lacks", ["contents", "files"])
def test_a_version_of_an_earlier_release_is_refused_with_the_remedy(
    root: Path, tmp_path: Path, lacks: str
) -> None:
    path = root / "datasets/aitp/news-1/version.json"
    told = json.loads(path.read_text())
    del (told if lacks in told else told["contents"])[lacks]
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="made by an earlier release.*hand on a later version"):
        to(root, f"file://{tmp_path}/pub")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[stores.Store]:
    with stores.serving() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "s3cr3t")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield running


def test_to_an_s3_prefix_the_same_objects_are_written(root: Path, store: stores.Store) -> None:
    assert to(root, "s3://other/pub/")["published"] == "s3://other/pub/news-1"
    folder = root / "datasets/aitp/news-1"
    assert store.objects == {f"/other/pub/news-1/{path}": (folder / path).read_bytes() for path in OWN}
    written = [path for method, path in store.requests if method == "PUT"]
    assert written[-1].startswith("/other/pub/news-1/version.json")


@pytest.mark.parametrize(
    ("answer", "said"),
    [((403, "AccessDenied"), "refuses the credentials"), ((404, "NoSuchBucket"), "does not exist")],
)
def test_a_store_that_refuses_is_told(
    root: Path, store: stores.Store, answer: tuple[int, str], said: str
) -> None:
    store.refuses_all = answer
    with pytest.raises(InputError, match=said) as raised:
        to(root, "s3://other/pub")
    assert ("s3cr3t" in str(raised.value), store.objects) == (False, {})


def test_the_real_storage_lists_what_was_published(root: Path, tmp_path: Path) -> None:
    to(root, f"file://{tmp_path}/pub", "latest")
    found = {info.key for info in open_storage(f"file://{tmp_path}/pub").list("")}
    assert found == {f"news-1/{path}" for path in OWN}
