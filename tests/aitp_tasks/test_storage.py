"""Storage in a folder; the same contract against a real S3 server is in tests/demo and tests/e2e."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.storage import ObjectChangedError, Storage, open_storage
from aitp_tasks.storage.s3 import S3Storage
from tests.aitp_tasks.conftest import REPOSITORY


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


def test_what_is_written_is_read_back(storage: Storage) -> None:
    storage.write("a/b.bin", b"0123456789")
    info = storage.stat("a/b.bin")
    assert (info.size, storage.read("a/b.bin")) == (10, b"0123456789")
    assert storage.read_range(info, 3, 4) == b"3456"
    with storage.open(info) as stream:
        stream.seek(-2, 2)
        assert stream.read() == b"89"
        stream.seek(0)
        assert stream.read(3) == b"012"


def test_only_one_of_many_racing_writers_wins(storage: Storage) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def race(number: int) -> None:
        barrier.wait()
        if storage.write_if_absent("manifest.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read("manifest.json") == str(won[0]).encode()
    assert [info.key for info in storage.list("")] == ["manifest.json"]


def test_an_object_is_replaced_only_as_it_was_read(storage: Storage) -> None:
    assert storage.read_tagged("line/pointer") is None
    assert not storage.write_if_matches("line/pointer", b"1", "0")
    assert storage.write_if_absent("line/pointer", b"1")
    read = storage.read_tagged("line/pointer")
    assert read is not None
    assert storage.write_if_matches("line/pointer", b"2", read.tag)
    assert not storage.write_if_matches("line/pointer", b"3", read.tag)
    assert storage.read("line/pointer") == b"2"
    assert [info.key for info in storage.list("")] == ["line/pointer"]


def test_what_is_replaced_within_one_tick_of_the_clock_is_another_object(
    storage: Storage, tmp_path: Path
) -> None:
    storage.write("pointer", b"one")
    before, read = storage.stat("pointer"), storage.read_tagged("pointer")
    assert read is not None
    times = (tmp_path / "pointer").stat()
    storage.write("pointer", b"two")
    os.utime(tmp_path / "pointer", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert storage.stat("pointer") == before
    assert not storage.write_if_matches("pointer", b"mine", read.tag)


#: Adds its number to the object, again and again, as long as it takes to do it so many times.
_COUNTING = """
import sys
from aitp_tasks.storage import open_storage
storage, wanted, tries = open_storage(sys.argv[1]), int(sys.argv[2]), 0
while wanted:
    tries += 1
    read = storage.read_tagged("count")
    if storage.write_if_matches("count", str(int(read.data) + 1).encode(), read.tag):
        wanted -= 1
print(tries)
"""


def test_no_update_of_racing_processes_is_lost(storage: Storage) -> None:
    storage.write("count", b"0")
    command = [sys.executable, "-c", _COUNTING, storage.root, "100"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) for _ in range(3)]
    tries = [int(racer.communicate(timeout=120)[0]) for racer in racers]
    assert storage.read("count") == b"300"
    assert sum(tries) >= 300


def test_a_file_in_the_way_is_no_object_that_exists(storage: Storage) -> None:
    storage.write("a", b"")
    with pytest.raises(OSError, match="a"):
        storage.write_if_absent("a/b", b"mine")
    assert storage.find("a/b") is None


def test_a_copy_is_equal_and_stays_so(storage: Storage) -> None:
    storage.write("source", b"0123")
    storage.write("to/target", b"old")
    for _ in range(2):
        storage.copy("source", "to/target")
        found = storage.stat("to/target")
        assert (found.etag, storage.read("to/target")) == (storage.stat("source").etag, b"0123")
    storage.write("source", b"changed")
    assert storage.read("to/target") == b"0123"
    with pytest.raises(InputError, match="none does not exist"):
        storage.copy("none", "to/target")
    assert storage.read("to/target") == b"0123"


def test_listing_is_by_prefix_and_sorted(storage: Storage) -> None:
    for key in ("x/2", "x/1", "x/10/a", "y/1"):
        storage.write(key, b"")
    assert [info.key for info in storage.list("x/1")] == ["x/1", "x/10/a"]
    assert list(storage.list("none/")) == []


@given(st.sets(st.lists(st.sampled_from(["a", "a.b", "b-", "ü"]), min_size=1, max_size=4).map("/".join)))
def test_listing_is_in_the_order_of_keys_and_matches_find(keys: set[str]) -> None:
    # Without keys that are a folder of others, which a file system cannot hold.
    keys = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(f"file://{folder}")
        for key in keys:
            storage.write(key, key.encode())
        for prefix in ("", "a", "a/", "a.b/a", "b-/ü"):
            expected = sorted(key for key in keys if key.startswith(prefix))
            assert list(storage.list(prefix)) == [storage.find(key) for key in expected]
        for prefix in ("a/", "b-/ü/", "none/"):
            below = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
            named = {key.partition("/")[0] for key in below if "/" in key}
            assert storage.folders(prefix) == tuple(sorted(named))


def test_listing_ends_at_links_to_folders_and_at_links_to_nothing(tmp_path: Path, storage: Storage) -> None:
    storage.write("a/file", b"1")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/nothing").symlink_to(tmp_path / "none")
    (tmp_path / "a/second").symlink_to(tmp_path / "a/file")
    assert [info.key for info in storage.list("")] == ["a/file", "a/second"]
    assert sorted(storage.unlisted("a/")) == ["a/loop", "a/nothing"]
    assert not list(storage.unlisted("a/file"))


def test_an_object_replaced_while_it_is_read_is_noticed(storage: Storage) -> None:
    storage.write("shard", b"old!")
    info = storage.stat("shard")
    storage.write("shard", b"newer")
    with pytest.raises(ObjectChangedError, match="changed while it was read"):
        storage.read_range(info, 0, 4)


def test_a_missing_object_is_named(storage: Storage) -> None:
    assert storage.find("none") is None
    for request in (lambda: storage.read("none"), lambda: storage.stat("none")):
        with pytest.raises(InputError, match=r"file:///.*/none does not exist"):
            request()


def test_keys_do_not_leave_the_root(storage: Storage) -> None:
    with pytest.raises(InputError, match="leaves the storage root"):
        storage.write("../outside", b"")


@pytest.mark.parametrize(
    "name", ["a#1", "a?b=c", "a b", "a%20b", "ü+é", "a\tb\nc", "a@b:c", "[a]", "a;b", "a\\b", "at@home", "#1"]
)
def test_a_root_is_taken_letter_by_letter(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / name, tmp_path / name[0]
    storage = open_storage(f"file://{folder}")
    storage.write("key", b"here")
    assert (folder / "key").read_bytes() == b"here"
    assert storage.uri("key") == f"file://{folder}/key"
    assert open_storage(storage.root).read("key") == b"here"
    assert not other.exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://key:secret@bucket", "holds credentials"),
        ("file://key:secret@/folder", "holds credentials"),
        ("http://host/bucket", "use s3://"),
        ("file://relative/folder", "use s3://"),
        ("s3://", "use s3://"),
        ("s3://key:sec/ret@bucket", "holds credentials"),
        ("s3:bucket", "use s3://"),
        ("", "use s3://"),
    ],
)
def test_a_wrong_root_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_storage(uri)
    assert "secret" not in str(caught.value)


def test_a_prefix_is_what_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert open_storage("s3://bucket/a#b?c/").root == "s3://bucket/a#b?c"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("AWS_ENDPOINT_URL", "garbage", "Invalid endpoint: garbage"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@[bad", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@", r"Invalid endpoint: http://…@\)"),
        ("AWS_ENDPOINT_URL", "ftp://me:hidden@host", "ftp://host"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@host:99999", "host:99999"),
        ("AWS_PROFILE", "none-such", "none-such"),
        ("AWS_DEFAULT_REGION", "x y/", "x y/"),
        ("bucket", "Bad_Bucket!", "Bad_Bucket!"),
        ("bucket", "[b", "Invalid bucket name"),
    ],
)
def test_what_no_client_takes_is_wrong_input(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    """None of it passes, so no retry helps."""
    for name, usual in (
        ("ACCESS_KEY_ID", "key"),
        ("SECRET_ACCESS_KEY", "hidden"),
        ("DEFAULT_REGION", "eu-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", usual)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    if variable != "bucket":
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=told) as caught:
        list(open_storage(f"s3://{value if variable == 'bucket' else 'bucket'}").list(""))
    assert "hidden" not in str(caught.value)


def test_a_full_disk_is_a_passing_fault_and_leaves_nothing(tmp_path: Path) -> None:
    # /dev/full fails every write with ENOSPC, as a full disk does.
    storage = open_storage(f"file://{tmp_path}")
    os.symlink("/dev/full", tmp_path / "full")

    def fill(path: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(b"x")

    with pytest.raises(TransientError, match="no space left to write .*/data: free space, then retry"):
        storage._publish("data", fill, os.replace)  # type: ignore[attr-defined]
    assert storage.find("data") is None


def test_an_unreachable_server_is_a_passing_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "known-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("aitp_tasks.storage.s3._ATTEMPTS", 2)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9") as caught:
        S3Storage("bucket").read("key")
    assert "hidden-secret" not in str(caught.value)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        S3Storage("bucket").read("key")


def test_what_is_deleted_is_gone_and_nothing_else(storage: Storage) -> None:
    for key in ("a/b", "a/bc", "a/d"):
        storage.write(key, b"1")
    storage.delete(["a/b", "a/none", "none/at/all"])
    assert [info.key for info in storage.list("")] == ["a/bc", "a/d"]
    storage.delete([])
    with pytest.raises(InputError, match="leaves the storage root"):
        storage.delete(["../a"])


def test_objects_are_listed_with_the_time_at_which_they_were_written(storage: Storage) -> None:
    before = time.time()
    storage.write("a/b", b"1")
    storage.copy("a/b", "a/c")
    dated = dict(storage.list_dated("a/"))
    assert list(dated) == list(storage.list("a/"))
    assert all(before - 1 <= written <= time.time() + 1 for written in dated.values())


@pytest.mark.operation("clock-jumps")
def test_the_storages_time_is_that_of_its_objects(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + 86_400)
    storage.write("a/b", b"1")
    ((info, written),) = storage.list_dated("")
    assert abs(storage.now() - written) < 5
    assert list(storage.list("")) == [info]
