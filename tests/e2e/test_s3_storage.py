"""The storage contract against a real S3 server."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aitp_tasks.config import Model
from aitp_tasks.errors import InputError
from aitp_tasks.machine import models
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
