"""publish to a hub: what is asked of it, in which order, and what is left when it refuses."""

import json
import logging
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import constants
from huggingface_hub.utils import _http

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import contents
from aitp_tasks.tools import publish
from tests.aitp_tasks import handed
from tests.aitp_tasks.dataset import card_cases
from tests.aitp_tasks.hub import TOKEN, Hub, Refusal, Repository, serving

REPOSITORY = "team/aitp"
#: Of a version without more rows than one shard has.
OWN = {
    *("README.md", "version.json", "croissant.json", "coverage.png", "dataset_info.json"),
    *("sharegpt.json", "alpaca.json", "data/train-00000-of-00001.parquet"),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Its other protocol needs another server.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(_http.time, "sleep", lambda _: None)
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    handed.stored(root, handed.rows())
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "storage"))


def to_hub(
    root: Path, version: str = "news-1", to: str = f"hf://{REPOSITORY}", public: bool = False, **assemble: Any
) -> dict[str, Any]:
    return publish.execute(handed.config(f"file://{root}", **assemble), version, to, public)


def held(hub: Hub) -> Repository:
    return hub.repositories[REPOSITORY]


def test_a_version_becomes_one_commit_with_its_tag(hub: Hub, root: Path, tmp_path: Path) -> None:
    done = to_hub(root)
    # The validation of the card comes before the first byte of a large file.
    assert hub.writes == ["create", "validate", "preupload", "batch", "upload", "upload", "commit", "tag"]
    assert held(hub).private
    head, tree = held(hub).commits[-1]
    assert (len(held(hub).commits), held(hub).tags) == (2, {"news-1": head})
    assert tree.keys() == OWN | {".gitattributes"}
    folder = root / "datasets/aitp/news-1"
    assert {path: tree[path] for path in OWN} == {path: (folder / path).read_bytes() for path in OWN}
    assert (done["written"], done["files"]) == (8, 8)
    assert done["published"] == f"{hub.address}/datasets/{REPOSITORY}/tree/news-1"
    # What is there loads as it does here.
    there = tmp_path / "there"
    for path, data in tree.items():
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        (there / path).write_bytes(data)
    found = load_dataset(str(there), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 5}


def test_a_second_time_changes_nothing(hub: Hub, root: Path) -> None:
    to_hub(root)
    asked = len(hub.writes)
    assert to_hub(root)["written"] == 0
    assert (len(hub.writes), len(held(hub).commits)) == (asked, 2)


def test_everybody_may_read_it_only_where_that_was_said(hub: Hub, root: Path) -> None:
    to_hub(root, public=True)
    assert not held(hub).private


@pytest.mark.parametrize(
    ("private", "public", "said"), [(False, False, "is public"), (True, True, "is private")]
)
def test_who_may_read_a_repository_that_is_there_is_not_changed(
    hub: Hub, root: Path, private: bool, public: bool, said: str
) -> None:
    hub.repositories[REPOSITORY] = Repository(private)
    held(hub).add({})
    with pytest.raises(InputError, match=said):
        to_hub(root, public=public)
    assert (held(hub).private, len(held(hub).commits)) == (private, 1)


def broken_at(wanted: str, status: int, number: int = 1) -> Any:
    """Refuses a request of a name from the so manieth on."""
    count = 0

    def refuses(name: str, about: str) -> Refusal:
        nonlocal count
        count += name == wanted
        return (status, {"error": "as it was told"}) if name == wanted and count >= number else None

    return refuses


@pytest.mark.parametrize(
    ("at", "status", "error", "said"),
    [
        ("info", 401, InputError, "HF_TOKEN"),
        ("create", 401, InputError, "HF_TOKEN"),
        ("create", 403, InputError, "HF_TOKEN"),
        ("preupload", 403, InputError, "HF_TOKEN"),
        ("preupload", 429, TransientError, "run the same command again"),
        ("batch", 500, TransientError, "run the same command again"),
        ("upload", 500, TransientError, r"data/train-00000-of-00001\.parquet|coverage\.png"),
        ("commit", 412, TransientError, "somebody else"),
        ("commit", 503, TransientError, "run the same command again"),
        ("commit", 413, InputError, "413"),
        ("tag", 500, TransientError, "run the same command again"),
    ],
)
def test_a_refusal_leaves_nothing_half_there_and_the_next_try_goes_on(
    hub: Hub, root: Path, at: str, status: int, error: type[Exception], said: str
) -> None:
    hub.refuses = broken_at(at, status)
    with pytest.raises(error, match=said) as raised:
        to_hub(root)
    assert TOKEN not in str(raised.value)
    commits = len(held(hub).commits) if hub.repositories else 1
    assert (commits, len(held(hub).tags) if hub.repositories else 0) == (2 if at == "tag" else 1, 0)
    hub.refuses = lambda *_: None
    uploaded = [oid for oid in hub.uploads() if oid in hub.large]
    before = len(hub.asked)
    to_hub(root)
    assert len(held(hub).commits) == 2
    assert held(hub).tags.keys() == {"news-1"}
    again = [about for name, about in hub.asked[before:] if name == "upload"]
    assert not set(again) & set(uploaded)


def test_what_was_uploaded_before_the_fault_is_not_uploaded_again(hub: Hub, root: Path) -> None:
    hub.refuses = broken_at("upload", 500, number=2)
    with pytest.raises(TransientError):
        to_hub(root)
    (there,) = hub.large
    hub.refuses = lambda *_: None
    before = len(hub.asked)
    to_hub(root)
    again = [about for name, about in hub.asked[before:] if name == "upload"]
    assert (len(again), there in again) == (1, False)


def test_a_commit_whose_answer_was_lost_is_found(hub: Hub, root: Path) -> None:
    hub.loses_answers = True
    with pytest.raises(TransientError):
        to_hub(root)
    assert (len(held(hub).commits), held(hub).tags) == (2, {})
    hub.loses_answers = False
    to_hub(root)
    assert (len(held(hub).commits), held(hub).tags.keys()) == (2, {"news-1"})


def test_another_commit_meanwhile_is_not_overwritten(hub: Hub, root: Path) -> None:
    hub.repositories[REPOSITORY] = Repository(private=True)
    held(hub).add({})

    def meanwhile(name: str, about: str) -> Refusal:
        if name == "preupload" and len(held(hub).commits) == 1:
            held(hub).add({"notes.md": b"mine"})
        return None

    hub.refuses = meanwhile
    with pytest.raises(TransientError, match="somebody else"):
        to_hub(root)
    assert held(hub).commits[-1][1] == {"notes.md": b"mine"}


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_uploaded(hub: Hub, root: Path) -> None:
    wrong = {"errors": [{"message": '"license" must be one of [...]'}], "warnings": []}
    hub.refuses = lambda name, _: (400, wrong) if name == "validate" else None
    with pytest.raises(InputError, match=r'"license" must be one of .* correct assemble.license'):
        to_hub(root)
    assert (hub.uploads(), len(held(hub).commits)) == ([], 1)


def test_a_warning_of_the_hub_is_told_and_stops_nothing(
    hub: Hub, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.warnings = ["empty language"]
    with caplog.at_level(logging.WARNING):
        to_hub(root)
    assert "empty language" in caplog.text
    assert held(hub).tags.keys() == {"news-1"}


def test_a_tag_with_other_content_is_left_alone(hub: Hub, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    handed.stored(other, handed.rows(pairs=1))
    to_hub(other)
    before = list(held(hub).commits)
    with pytest.raises(InputError, match="has a tag news-1 under which .* is another: nothing was written"):
        to_hub(root)
    assert (held(hub).commits, len(held(hub).tags)) == (before, 1)


def test_the_next_version_takes_the_place_of_the_one_before(hub: Hub, root: Path, tmp_path: Path) -> None:
    folder = root / "datasets/aitp/news-1"
    # As if the first had had two shards: of them the next one leaves nothing.
    told = json.loads((folder / "version.json").read_text())
    (folder / "data/train-00000-of-00001.parquet").rename(folder / "data/train-00001-of-00002.parquet")
    files = told["contents"]["files"]
    files["data/train-00001-of-00002.parquet"] = files.pop("data/train-00000-of-00001.parquet")
    (folder / "version.json").write_text(json.dumps(told))
    to_hub(root)
    first = held(hub).commits[-1]
    held(hub).add(first[1] | {"notes.md": b"mine"})
    handed.stored(root, handed.rows(pairs=4), "news-2")
    to_hub(root, "latest")
    head, tree = held(hub).commits[-1]
    assert tree.keys() == OWN | {".gitattributes", "notes.md"}
    # The former is still what it was under its tag.
    assert held(hub).tags == {"news-1": first[0], "news-2": head}


@pytest.mark.parametrize(
    "there",
    [
        {"README.md": b"# Another dataset", "data/train-00000-of-00002.parquet": b"rows"},
        {"version.json": b'{"name": "news-1", "contents": {"files": {}}}'},
        {"version.json": b"no JSON"},
    ],
)
def test_a_repository_of_somebody_else_is_left_alone(hub: Hub, root: Path, there: dict[str, bytes]) -> None:
    hub.repositories[REPOSITORY] = Repository(private=True)
    held(hub).add(there)
    with pytest.raises(InputError, match="and no version of this dataset: nothing was written"):
        to_hub(root)
    assert [tree for _, tree in held(hub).commits] == [there]


def test_files_among_the_rows_that_no_version_has_put_there_are_told(hub: Hub, root: Path) -> None:
    to_hub(root)
    held(hub).add(held(hub).commits[-1][1] | {"data/train-00007.parquet": b"rows"})
    handed.stored(root, handed.rows(pairs=4), "news-2")
    with pytest.raises(InputError, match=r"data/train-00007\.parquet, which would be taken for rows"):
        to_hub(root, "news-2")


def test_what_a_gitignore_leaves_out_has_no_tag(hub: Hub, root: Path) -> None:
    hub.ignores = {"alpaca.json"}
    with pytest.raises(InputError, match=r"has committed news-1 without alpaca\.json, so that it has no tag"):
        to_hub(root)
    assert held(hub).tags == {}


def test_only_the_versions_own_files_are_handed_on(hub: Hub, root: Path) -> None:
    folder = root / "datasets/aitp"
    beside = (
        "news-1/trained/x.json",
        "news-1/evaluation.json",
        "news-1/.DS_Store",
        "news-1/data/extra.parquet",
    )
    for name in (*beside, "news-1-old/README.md", "records/pairs-1.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"sets": {}, "steps": 1}')
    to_hub(root)
    assert held(hub).commits[-1][1].keys() == OWN | {".gitattributes"}


@pytest.mark.parametrize("name", [*card_cases.given("hub-names")["repos"], "alone"])
def test_names_of_no_repository_are_refused_before_anything_is_asked(hub: Hub, root: Path, name: str) -> None:
    with pytest.raises(InputError, match="--to hf://"):
        to_hub(root, to=f"hf://{name}")
    assert hub.asked == []


def test_what_cannot_be_published_is_refused_before_anything_is_asked(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="news-9"):
        to_hub(root, "news-9")
    with pytest.raises(InputError, match="the hub knows no licence 'proprietary'"):
        raise_as_input(root, license="proprietary")
    monkeypatch.setenv("HF_ENDPOINT", "http://ann:secret@127.0.0.1:1")
    with pytest.raises(InputError, match="HF_ENDPOINT holds credentials") as raised:
        to_hub(root)
    assert "secret" not in str(raised.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HF_ENDPOINT")
    with pytest.raises(InputError, match="HF_TOKEN is not set"):
        to_hub(root)
    (root / "datasets/aitp/news-1/data/train-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match="is not as version.json says it was made"):
        to_hub(root)
    assert hub.asked == []


def raise_as_input(root: Path, **assemble: Any) -> None:
    """As the command line does it with a configuration that is wrong."""
    path = root.parent / "config.yaml"
    values = handed.config(f"file://{root}").model_dump(mode="json", exclude_defaults=True)
    path.write_text(json.dumps(values | {"assemble": assemble}))
    RunConfig.load(path)


def test_a_name_that_git_allows_no_tag_of_is_refused(hub: Hub, root: Path) -> None:
    handed.stored(root, handed.rows(pairs=4), "a..b")
    with pytest.raises(InputError, match=r"git allows no tag a\.\.b"):
        to_hub(root, "a..b")
    assert hub.asked == []


def test_the_token_stands_in_no_message_and_no_result(
    hub: Hub, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A hub that repeats what it was told.
    hub.refuses = lambda name, _: (400, {"error": f"no {TOKEN}"}) if name == "commit" else None
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match=r"no \*\*\*") as raised:
        to_hub(root)
    hub.refuses = lambda *_: None
    with caplog.at_level(logging.INFO):
        done = to_hub(root)
    assert TOKEN not in f"{raised.value} {done}"
    assert not any(
        TOKEN in record.getMessage() for record in caplog.records if record.name.startswith("aitp")
    )


def test_a_hub_that_is_away_is_a_passing_fault(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="run the same command again"):
        to_hub(root)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        to_hub(root)


def test_a_large_file_is_never_in_memory_as_a_whole(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "datasets/aitp/news-1/data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes() + bytes(40_000_000))
    version = root / "datasets/aitp/news-1/version.json"
    told = json.loads(version.read_text())
    held_file = contents.of_file(path)
    told["contents"]["files"]["data/train-00000-of-00001.parquet"] = held_file.model_dump()
    version.write_text(json.dumps(told))
    read: list[int] = []
    real = Path.read_bytes

    def noted(self: Path) -> bytes:
        data = real(self)
        read.append(len(data))
        return data

    monkeypatch.setattr(Path, "read_bytes", noted)
    tracemalloc.start()
    to_hub(root)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The hub of this test is in the same process: it takes twice the file while it reads it, and no third is
    # publish's.
    assert peak < 2.5 * held_file.bytes
    assert max(read) < 1_000_000
    assert held_file.sha256 in hub.uploads()


def test_two_at_once_leave_one_content(hub: Hub, root: Path) -> None:
    ended: list[object] = []

    def once() -> None:
        try:
            ended.append(to_hub(root)["written"])
        except TransientError as error:
            ended.append(error)

    threads = [threading.Thread(target=once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Whoever came too late finds it done, at this try or at the next.
    assert any(isinstance(one, int) for one in ended)
    assert to_hub(root)["written"] == 0
    assert {frozenset(tree) for _, tree in held(hub).commits[1:]} == {frozenset(OWN | {".gitattributes"})}
    assert held(hub).tags.keys() == {"news-1"}


@pytest.mark.parametrize("at", ["info", "refs", "commit"])
def test_a_hub_that_does_not_answer_is_not_waited_for_for_ever(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(publish.hub, "_SECONDS", 0.5)
    released = threading.Event()

    def late(name: str, _: str) -> Refusal:
        if name == at:
            released.wait(60)
        return None

    hub.refuses = late
    try:
        with pytest.raises(TransientError, match="Timeout.*run the same command again"):
            to_hub(root)
    finally:
        released.set()
