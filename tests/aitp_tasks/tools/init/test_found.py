"""Which of the folders are taken: cases with what is right, written before the code was read."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.storage import ObjectInfo, Storage, open_storage
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools.init import found
from tests.aitp_tasks.conftest import Configure, write_shard


class Dated(LocalStorage):
    """A folder whose objects are as old as it is said, in seconds since 1970; the others are of 1970."""

    def __init__(self, root: Path, times: Mapping[str, int]) -> None:
        super().__init__(str(root))
        self._times = times

    def list_dated(self, prefix: str) -> Iterator[tuple[ObjectInfo, float]]:
        return ((info, self._times.get(info.key, 0)) for info in self.list(prefix))


def filled(root: Path, objects: Mapping[str, int]) -> Storage:
    for key in objects:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Dated(root, objects)


@pytest.mark.parametrize(
    ("objects", "newest"),
    [
        ({"corpus/web/a.parquet": 1}, "web"),
        # By their dates, whenever they were copied.
        ({"corpus/2026-11-02/a.parquet": 9, "corpus/2026-11-10/a.parquet": 1}, "2026-11-10"),
        # By their objects' times: the newest object of each counts.
        ({"corpus/a/1.parquet": 8, "corpus/a/2.parquet": 1, "corpus/b/1.parquet": 7}, "a"),
        ({"corpus/b/1.parquet": 7, "corpus/a/1.parquet": 7}, "b"),
        # No shards: hidden, of no format, an object beside the folders.
        ({"corpus/a/1.parquet": 1, "corpus/z/_tmp/1.parquet": 9, "corpus/_y/1.parquet": 9}, "a"),
        ({"corpus/a/1.parquet": 1, "corpus/z/readme.txt": 9, "corpus/stray.parquet": 9}, "a"),
        # A name that no configuration can have.
        ({"corpus/a/1.parquet": 1, "corpus/two words/1.parquet": 9}, "a"),
        ({"corpus/deep/x/y/1.jsonl.gz": 1}, "deep"),
    ],
)
def test_the_newest_dump_is_taken(root: Path, objects: dict[str, int], newest: str) -> None:
    for shard in (root / "corpus/news").iterdir():
        shard.unlink()
    assert found.dump(filled(root, objects), None) == newest


def test_folders_that_cannot_be_named_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = filled(root, {"corpus/two words\x1b[2J/1.parquet": 9})
    assert found.dump(storage, None) == "news"
    assert "two words\\x1b[2J" in caplog.text


def test_what_is_wanted_has_to_be_there(root: Path) -> None:
    storage = filled(root, {"corpus/web/a.parquet": 1})
    assert found.dump(storage, "web") == "web"
    assert found.dump(storage, "news+web") == "news+web"
    with pytest.raises(InputError, match="corpus/two words/ has a name that no configuration can have"):
        found.dump(filled(root, {"corpus/two words/a.parquet": 1}), "two words")
    with pytest.raises(InputError, match="corpus/olds/ holds no shards: name one of news, web"):
        found.dump(storage, "news+olds")
    assert found.sft(storage, "sums") == "sums"
    with pytest.raises(InputError, match="sft/none/ holds no shards: name one of sums"):
        found.sft(storage, "none")


def test_a_storage_without_inputs_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("corpus").mkdir()
    storage = open_storage(f"file://{tmp_path}")
    with pytest.raises(InputError, match=r"corpus/ holds no dump: upload shards to .*/corpus/<name>/"):
        found.dump(storage, None)
    with pytest.raises(InputError, match=r"sft/ holds no SFT set: upload shards"):
        found.sft(storage, None)


def test_the_column_of_texts_is_looked_for(configure: Configure, root: Path) -> None:
    storage = open_storage(f"file://{root}")
    values = configure().model_dump(mode="json")
    assert found.text_columns(storage, values, ()) == ["text"]
    with pytest.raises(InputError, match=r"has no column 'body' \(it has text\).*--text-column names it"):
        found.text_columns(storage, values, ["body"])
    for shard in (root / "corpus/news").iterdir():
        write_shard(shard, [{"words": "Ports.", "id": 1}])
    with pytest.raises(InputError, match=r"no column 'text' \(it has words, id\).*--text-column names it"):
        found.text_columns(storage, values, ())
    assert found.text_columns(storage, values, ["words"]) == ["words"]
