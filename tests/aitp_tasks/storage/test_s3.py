"""What a store may answer to a conditional write; the real one is in tests/e2e."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import tables
from aitp_tasks.stages import plan
from aitp_tasks.storage import ObjectInfo, s3
from aitp_tasks.storage.s3 import S3Storage
from tests.aitp_tasks import stores
from tests.aitp_tasks.conftest import Configure
from tests.aitp_tasks.stores import Store

pytestmark = pytest.mark.slow

EXPIRED = (400, "ExpiredToken")
PROBE = "/bucket/some/probes/conditional-writes"
HEADERS = ["If-None-Match", "If-Match"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(s3, "_CONFLICT_PAUSES", (0.0, 0.0, 0.0))
    with stores.serving() as running:
        values = {"ENDPOINT_URL": running.address, "DEFAULT_REGION": "us-east-1"}
        values |= {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "opensesame"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield running


@pytest.fixture
def storage(store: Store) -> S3Storage:
    return S3Storage("bucket", "some")


def test_a_pointer_is_replaced_only_as_it_was_read(storage: S3Storage) -> None:
    assert storage.read_tagged("pointer") is None
    assert not storage.write_if_matches("pointer", b"1", '"0"')
    assert storage.write_if_absent("pointer", b"1")
    read = storage.read_tagged("pointer")
    assert read is not None
    assert read.data == b"1"
    assert storage.write_if_matches("pointer", b"2", read.tag)
    assert not storage.write_if_matches("pointer", b"3", read.tag)
    assert storage.read("pointer") == b"2"


def test_a_conflict_is_tried_again_until_the_object_is_there(store: Store, storage: S3Storage) -> None:
    store.conflicts = 3
    assert storage.write_if_absent("key", b"mine")
    assert store.objects["/bucket/some/key"] == b"mine"


def test_a_conflict_with_a_write_that_came_through_is_that_ones(store: Store, storage: S3Storage) -> None:
    store.conflicts, store.other = 1, b"theirs"
    assert not storage.write_if_absent("key", b"mine")
    assert storage.read("key") == b"theirs"


def test_a_pointer_that_another_write_has_moved_is_not_replaced(store: Store, storage: S3Storage) -> None:
    storage.write("key", b"old")
    read = storage.read_tagged("key")
    assert read is not None
    store.conflicts, store.other = 1, b"theirs"
    assert not storage.write_if_matches("key", b"mine", read.tag)
    store.conflicts, store.other = 1, None
    read = storage.read_tagged("key")
    assert read is not None
    assert storage.write_if_matches("key", b"mine", read.tag)


def test_no_key_is_returned_that_was_never_stored(store: Store, storage: S3Storage) -> None:
    store.conflicts = 1000
    table = tables.pa.table({"a": [1]})
    with pytest.raises(TransientError, match=r"in 4 tries: each met another write to it \(409\)"):
        tables.write(storage, "table", table)
    with pytest.raises(TransientError, match="409"):
        storage.write_if_matches("key", b"", '"0"')
    assert not store.objects
    store.conflicts = 0
    assert f"/bucket/some/{tables.write(storage, 'table', table)}" in store.objects


def test_a_store_that_says_conflict_of_an_object_that_is_there_is_believed(
    store: Store, storage: S3Storage
) -> None:
    storage.write("key", b"there")
    store.conflicts = 1000
    assert not storage.write_if_absent("key", b"mine")


def test_the_probe_writes_once_and_then_only_asks(store: Store, storage: S3Storage) -> None:
    storage.require_conditional_writes()
    left = dict(store.objects)
    assert list(left) == [PROBE]
    store.requests.clear()
    storage.require_conditional_writes()
    assert store.requests == [("PUT", PROBE), ("PUT", PROBE), ("GET", PROBE)]
    assert store.objects == left


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ignores", "ignores {} when an object is written"),
        ("unknown", "answers NotImplemented to {} when an object is written"),
    ],
)
def test_a_store_without_conditional_writes_is_refused_by_name(
    store: Store, storage: S3Storage, header: str, before: int, fault: str, message: str
) -> None:
    for _ in range(before):
        # It may have kept them at the plan before.
        storage.require_conditional_writes()
    setattr(store, fault, {header})
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            storage.require_conditional_writes()
        told = str(caught.value)
        assert told.startswith(f"s3://bucket/some at {store.address} {message.format(header)}")
        assert "use a store with conditional writes" in told
        assert "opensesame" not in told
    assert list(store.objects) in ([PROBE], [])


def test_a_store_that_never_replaces_is_refused(store: Store, storage: S3Storage) -> None:
    store.refuses = {"If-Match"}
    for _ in range(2):
        with pytest.raises(InputError, match="refuses the right If-Match when an object is written"):
            storage.require_conditional_writes()


def test_plans_at_once_do_not_disturb_each_other(
    store: Store, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another plan's whole probe, before each request of this one.
    made = s3.S3Storage._write_if
    other = S3Storage("bucket", "some")

    def interrupted(self: S3Storage, key: str, data: bytes, **condition: str) -> bool:
        if self is storage:
            other.require_conditional_writes()
        return made(self, key, data, **condition)

    monkeypatch.setattr(s3.S3Storage, "_write_if", interrupted)
    storage.require_conditional_writes()
    del store.objects[PROBE]
    monkeypatch.setattr(
        s3.S3Storage,
        "read_tagged",
        lambda self, key, read=S3Storage.read_tagged: (
            read(self, key),
            self is storage and other.require_conditional_writes(),
        )[0],
    )
    storage.require_conditional_writes()


def test_a_user_in_the_endpoints_address_is_not_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.address.replace("//", "//someone:opensesame@"))
    store.ignores = {"If-None-Match"}
    with pytest.raises(InputError, match="ignores If-None-Match") as caught:
        S3Storage("bucket").require_conditional_writes()
    assert "opensesame" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:opensesame@127.0.0.1:9")
    monkeypatch.setattr("aitp_tasks.storage.s3._ATTEMPTS", 1)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9") as failed:
        S3Storage("bucket").read("key")
    assert "opensesame" not in str(failed.value)


def asked(storage: S3Storage, path: Path) -> list[Callable[[], object]]:
    """All that is asked of a storage, by requests of every kind."""
    path.write_bytes(b"1")
    return [
        lambda: storage.find("key"),
        lambda: list(storage.list("")),
        lambda: storage.read("key"),
        lambda: storage.read_tagged("key"),
        lambda: storage.read_range(ObjectInfo("key", 1, "tag"), 0, 1),
        lambda: storage.write("key", b""),
        lambda: storage.write_if_absent("key", b""),
        lambda: storage.write_if_matches("key", b"", '"0"'),
        lambda: storage.upload("key", path),
        lambda: storage.download("key", path),
        lambda: storage.copy("key", "other"),
    ]


@pytest.mark.operation("credential-expired")
@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (
            EXPIRED,
            TransientError,
            r"credentials for s3://bucket/some at .* have expired \(ExpiredToken\): renew",
        ),
        ((403, "RequestTimeTooSkewed"), TransientError, "set the clock of this machine, or the server's"),
        ((403, "InvalidAccessKeyId"), InputError, r"refuses the credentials \(InvalidAccessKeyId\)"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_a_request_is_told_whatever_was_asked(
    store: Store, storage: S3Storage, tmp_path: Path, refusal: tuple[int, str], kind: type, message: str
) -> None:
    store.objects["/bucket/some/key"] = b"1"
    storage.find("key")
    store.refuses_all = refusal
    for ask in asked(storage, tmp_path / "file"):
        with pytest.raises(kind, match=message) as caught:
            ask()
        assert "opensesame" not in str(caught.value)


@pytest.mark.operation("credential-expired")
def test_the_next_try_takes_renewed_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.objects["/bucket/some/key"] = b"1"
    store.refuses_all = EXPIRED
    with pytest.raises(TransientError, match="expired"):
        S3Storage("bucket", "some").find("key")
    store.refuses_all = None
    assert S3Storage("bucket", "some").find("key") is not None


def test_plan_refuses_the_store_before_it_looks_at_anything(store: Store, configure: Configure) -> None:
    store.ignores = {"If-Match"}
    with pytest.raises(InputError, match="ignores If-Match"):
        plan.execute(configure(root="s3://bucket/some"))
    assert {path for _, path in store.requests} == {PROBE}


def test_a_local_storage_needs_no_probe(configure: Configure, root: Path) -> None:
    plan.execute(configure())
    assert not (root / "probes").exists()
