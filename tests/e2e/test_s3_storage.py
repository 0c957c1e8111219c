"""The storage contract against a real S3 server."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import Model
from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.machine import models
from aitp_tasks.records import versions
from aitp_tasks.storage import ObjectChangedError, Storage, open_storage
from aitp_tasks.storage.s3 import S3Storage
from demo.services import Services

BUCKET = "storage-test"


@pytest.fixture
def storage(store: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    for name, value in store.storage_environment().items():
        monkeypatch.setenv(name, value)
    client = store.bucket_client()
    if BUCKET not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    yield open_storage(f"s3://{BUCKET}/some/prefix")
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])


def test_what_is_written_is_read_back(storage: Storage) -> None:
    storage.write("a/b.bin", b"0123456789")
    info = storage.stat("a/b.bin")
    assert (info.size, storage.read("a/b.bin"), storage.find("none")) == (10, b"0123456789", None)
    with storage.open(info) as stream:
        stream.seek(4)
        assert stream.read(3) == b"456"


def test_objects_with_any_name_are_listed_and_read_as_they_are(storage: Storage) -> None:
    names = [
        *("a b.jsonl", "a+b.jsonl", "a%2Fb.jsonl", "a%20b.jsonl", "x.parquet/a.csv", "lang=de/a&b=c.jsonl"),
        *(
            "\u00fc.jsonl",
            "u\u0308.jsonl",
            "a.JSONL",
            "a.jsonl",
            "a?b#c.jsonl",
            "a*[0].jsonl",
            "\U0001f4da.jsonl",
        ),
        *('it\'s "quoted".jsonl', "a.jsonl.", "~.jsonl", "a,b;c:d@e!(f).jsonl"),
    ]
    for number, name in enumerate(names):
        storage.write(f"corpus/news/{name}", bytes([65 + number]) * 3)
    listed = {info.key.removeprefix("corpus/news/"): info for info in storage.list("corpus/news/")}
    assert sorted(listed) == sorted(names)
    for number, name in enumerate(names):
        info = listed[name]
        assert storage.stat(info.key) == info
        assert storage.read_range(info, 1, 1) == storage.read(info.key)[:1] == bytes([65 + number])


def test_folders_are_told_without_what_lies_below_them(storage: Storage) -> None:
    names = ["a b", "a+b%2F", "de=1&x", "\u00fc", "\U0001f4da", "z"]
    for name in names:
        for key in ("1", "deeper/2"):
            storage.write(f"told/{name}/{key}", b"x")
    storage.write("told/no folder", b"x")
    storage.write("told-other/b/1", b"x")
    assert storage.folders("told/") == tuple(sorted(names))
    assert storage.folders("told/z/") == ("deeper",)
    assert storage.folders("none/") == ()
    counted = []
    storage._client.meta.events.register("before-send.s3", lambda **sent: counted.append(sent))  # type: ignore[attr-defined]
    storage.folders("told/")
    assert len(counted) == 1


@pytest.mark.parametrize("key", ["plain", "with space, ü+&=%41~.bin"])
def test_ranges_are_read_without_boto3(storage: Storage, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    storage.write(key, b"0123456789")
    info = storage.stat(key)
    assert isinstance(storage, S3Storage)
    monkeypatch.setattr(storage._client, "get_object", None)
    assert [storage.read_range(info, start, 3) for start in (0, 4, 7)] == [b"012", b"456", b"789"]


def test_boto3_reads_what_a_plain_request_cannot(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("key", b"0123456789")
    info = storage.stat("key")
    assert isinstance(storage, S3Storage)
    assert storage.read_range(info, 0, 2) == b"01"
    # The server has closed the connection that was kept.
    storage._ranges._threads.connection.sock.shutdown(socket.SHUT_RDWR)
    assert storage.read_range(info, 2, 2) == b"23"
    monkeypatch.setattr(storage._ranges, "_get", lambda *arguments: None)
    assert storage.read_range(info, 4, 2) == b"45"


def test_only_one_of_many_racing_writers_wins(storage: Storage) -> None:
    won: list[int] = []

    def race(number: int) -> None:
        if storage.write_if_absent("manifest.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read("manifest.json") == str(won[0]).encode()


def test_no_update_of_racing_writers_is_lost(storage: Storage) -> None:
    storage.write("count", b"0")
    tries: list[int] = []

    def count() -> None:
        mine = open_storage(storage.root)
        done = tried = 0
        while done < 20:
            read = mine.read_tagged("count")
            assert read is not None
            done += mine.write_if_matches("count", str(int(read.data) + 1).encode(), read.tag)
            tried += 1
        tries.append(tried)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read("count") == b"80"
    # They did get in each other's way.
    assert sum(tries) > 80


def test_of_two_versions_at_once_one_becomes_the_latest(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    geometry = versions.Geometry(key="g", identity="i", corpus_grid="c")
    base: tuple[str, ...] = ()
    for night in range(10):
        both = threading.Barrier(2)
        became: dict[str, bool] = {}

        def add(name: str, both: threading.Barrier, base: tuple[str, ...], became: dict[str, bool]) -> None:
            made = versions.Version(name=name, run="r", ancestors=base, geometry=geometry)
            mine = open_storage(storage.root)
            both.wait()
            became[name] = versions.add(mine, "line", made)

        names = [f"left-{night}", f"right-{night}"]
        threads = [threading.Thread(target=add, args=(name, both, base, became)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        newest = versions.latest(storage, "line")
        assert newest is not None
        assert became == {name: name == newest.name for name in names}
        assert newest.ancestors == base
        base = (*base, newest.name)
    assert caplog.text.count("is the latest version now and stays it") == 10


def test_the_store_keeps_conditional_writes(storage: Storage) -> None:
    threads = [threading.Thread(target=storage.require_conditional_writes) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.require_conditional_writes()
    (left,) = storage.list("probes/")
    storage.require_conditional_writes()
    assert list(storage.list("probes/")) == [left]
    assert b"must not succeed" in storage.read(left.key)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_store_that_does_not_see_the_header_is_refused(storage: Storage, header: str) -> None:
    assert isinstance(storage, S3Storage)

    # As a proxy does that lets only known headers through.
    def lose(request: Any, **_: Any) -> None:
        if request.method == "PUT":
            del request.headers[header]

    storage._client.meta.events.register("before-sign.s3.PutObject", lose)
    with pytest.raises(InputError, match=f"ignores {header} when an object is written"):
        storage.require_conditional_writes()


def test_a_large_object_is_copied_in_the_store(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(data)
    storage.upload("attempt/model, 1.safetensors", tmp_path / "large")
    for _ in range(2):
        storage.copy("attempt/model, 1.safetensors", "models/model, 1.safetensors")
        assert storage.read("models/model, 1.safetensors") == data
    with pytest.raises(InputError, match="attempt/none does not exist"):
        storage.copy("attempt/none", "models/none")


def test_listing_goes_over_many_pages(storage: Storage) -> None:
    for number in range(1005):
        storage.write(f"many/{number:05d}", b"")
    keys = [info.key for info in storage.list("many/")]
    assert keys == [f"many/{number:05d}" for number in range(1005)]


def test_an_object_replaced_while_it_is_read_is_noticed(storage: Storage) -> None:
    storage.write("shard", b"old!")
    info = storage.stat("shard")
    storage.write("shard", b"newer")
    with pytest.raises(ObjectChangedError, match="changed while it was read"):
        storage.read_range(info, 0, 4)


def test_a_missing_bucket_is_named(storage: Storage) -> None:
    other = open_storage("s3://no-such-bucket")
    for request in (lambda: other.find("key"), lambda: list(other.list("")), lambda: other.read("key")):
        with pytest.raises(InputError, match="bucket 'no-such-bucket' does not exist"):
            request()


@pytest.mark.operation("credential-withdrawn")
@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong-secret"), ("AWS_ACCESS_KEY_ID", "stranger")]
)
def test_wrong_credentials_are_named_and_not_repeated(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"refuses the credentials \(\w+\)") as caught:
        list(open_storage(f"s3://{BUCKET}").list(""))
    assert "wrong-secret" not in str(caught.value)


def test_a_model_under_a_prefix_is_copied_once(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    files = {"config.json": b"{}", "1_Pooling/config.json": b"[]"}
    for key, content in files.items():
        storage.write(f"model/{key}", content)
    storage.write("model-2/config.json", b"not of this model")
    model = Model(model=storage.uri("model"))
    folder = Path(models.local(model))
    assert folder == tmp_path / "models" / models.identity(model)
    assert {key: (folder / key).read_bytes() for key in files} == files
    assert sum(path.is_file() for path in folder.rglob("*")) == len(files)
    assert models.local(model) == str(folder)


def test_what_is_deleted_is_gone_and_nothing_else(storage: Storage) -> None:
    # More than one request deletes.
    many = [f"many/{number:04d} &<ü>" for number in range(1100)]
    for key in (*many, "a/b", "a/bc"):
        storage.write(key, b"1")
    storage.delete([*many, "a/b", "a/none"])
    assert [info.key for info in storage.list("")] == ["a/bc"]


def test_objects_are_listed_with_the_time_at_which_they_were_written(storage: Storage) -> None:
    before = time.time()
    storage.write("a/b", b"1")
    storage.copy("a/b", "a/c")
    dated = dict(storage.list_dated("a/"))
    assert list(dated) == list(storage.list("a/"))
    assert all(before - 2 <= written <= time.time() + 2 for written in dated.values())


@pytest.mark.operation("clock-jumps")
def test_the_stores_time_is_that_of_its_objects(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    now = storage.now()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    storage.write("a/b", b"1")
    ((_, written),) = storage.list_dated("a/")
    assert abs(storage.now() - written) < 5


@pytest.mark.operation("storage-away")
def test_a_store_that_is_away_is_a_passing_fault_and_has_lost_nothing(
    store: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("a/b", b"1")
    info = storage.stat("a/b")
    monkeypatch.setattr("aitp_tasks.storage.s3._ATTEMPTS", 2)
    mine = open_storage(storage.root)
    asked: list[tuple[Callable[[], object], object]] = [
        (lambda: mine.read("a/b"), b"1"),
        (lambda: mine.read_range(info, 0, 1), b"1"),
        (lambda: mine.find("a/b"), info),
        (lambda: list(mine.list("a/b")), [info]),
        (lambda: mine.write_if_absent("a/c", b"2"), True),
    ]
    store.stop()
    for ask, _ in asked:
        with pytest.raises(TransientError, match=f"^{mine.root} at {store.endpoint} failed with"):
            ask()
    store.start_store()
    assert [ask() for ask, _ in asked] == [answer for _, answer in asked]
