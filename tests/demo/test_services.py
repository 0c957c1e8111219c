"""The services themselves: a real SeaweedFS and, once, a real Airflow."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from demo.services import DAG, POOLS, ServiceError, Services, bucket_client


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(tmp_path_factory.mktemp("services"))
    services.start_store()
    yield services
    services.stop()
    assert not services.running()


@pytest.fixture(scope="module")
def bucket(services: Services) -> Any:
    client = services.bucket_client()
    client.create_bucket(Bucket="aitp-test")
    client.put_object(Bucket="aitp-test", Key="a/there", Body=b"kept")
    return client


def stranger(services: Services) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=services.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED),
    )


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("list_buckets", {}),
        ("list_objects_v2", {"Bucket": "aitp-test"}),
        ("get_object", {"Bucket": "aitp-test", "Key": "a/there"}),
        ("put_object", {"Bucket": "aitp-test", "Key": "a/new", "Body": b""}),
        ("delete_object", {"Bucket": "aitp-test", "Key": "a/there"}),
    ],
)
def test_a_stranger_is_refused(
    services: Services, bucket: Any, operation: str, arguments: dict[str, Any]
) -> None:
    wrong_key = bucket_client(services.endpoint, services.credentials.access_key, "wrong")
    for client in (stranger(services), wrong_key):
        with pytest.raises(ClientError) as raised:
            getattr(client, operation)(**arguments)
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert bucket.get_object(Bucket="aitp-test", Key="a/there")["Body"].read() == b"kept"


def test_the_filer_behind_s3_refuses_strangers_too(services: Services, bucket: Any) -> None:
    there = f"http://127.0.0.1:{services.ports.filer}/buckets/aitp-test/a/there"
    assert httpx.get(there).status_code == 401
    assert httpx.put(there, content=b"other").status_code == 401
    assert httpx.delete(there).status_code == 401
    assert bucket.get_object(Bucket="aitp-test", Key="a/there")["Body"].read() == b"kept"


def test_a_put_on_condition_keeps_the_first(bucket: Any) -> None:
    bucket.put_object(Bucket="aitp-test", Key="manifest", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as raised:
        bucket.put_object(Bucket="aitp-test", Key="manifest", Body=b"second", IfNoneMatch="*")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert bucket.get_object(Bucket="aitp-test", Key="manifest")["Body"].read() == b"first"


def test_secrets_are_for_their_owner_only(services: Services) -> None:
    for path in services.state_dir.rglob("*"):
        if path.is_file() and services.credentials.secret_key in path.read_text(errors="replace"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(services.state_dir.stat().st_mode) == 0o700
    for process in services.processes():
        assert services.credentials.secret_key not in " ".join(process.cmdline())


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    services = Services(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", services.ports.s3))
        taken.listen()
        with pytest.raises(
            ServiceError, match=f"port {services.ports.s3} of 127.0.0.1, kept for s3, is in use"
        ):
            services.start_store()
    assert not services.running()


def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"/nowhere/weed cannot be started .*run `make setup`"):
        Services(tmp_path, weed=Path("/nowhere/weed")).start_store()


def test_a_service_that_ends_at_once_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="store ended with exit code 1: see the logs in"):
        Services(tmp_path, weed=Path("/bin/false")).start_store()


def test_objects_ports_and_keys_outlive_a_restart(tmp_path: Path) -> None:
    first = Services(tmp_path)
    first.start_store()
    try:
        first.bucket_client().create_bucket(Bucket="kept")
        first.bucket_client().put_object(Bucket="kept", Key="k", Body=b"v" * 100_000)
        first.stop()
        assert not first.running()
        second = Services(tmp_path)
        assert (second.ports, second.credentials) == (first.ports, first.credentials)
        second.start_store()
        assert second.bucket_client().get_object(Bucket="kept", Key="k")["Body"].read() == b"v" * 100_000
    finally:
        first.stop()


def test_everything_listens_on_loopback_only_and_ends_without_a_trace(tmp_path: Path) -> None:
    services = Services(tmp_path)
    try:
        services.start()
        client = services.client()
        for _ in range(2):
            client.put_pools(POOLS)
            client.put_s3_connection(services)
        client.wait_for_dag()
        listening = {
            (process.name(), connection.laddr.ip)
            for process in services.processes()
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address for _, address in listening} == {"127.0.0.1"}
        assert len({name for name, _ in listening}) >= 2

        pid_before = {process.pid for process in services.processes()}
        services.start()
        assert pid_before & {process.pid for process in services.processes()}, (
            "a second start restarts nothing"
        )

        for path in ("/api/v2/dags", f"/api/v2/dags/{DAG}", "/api/v2/connections/aitp_s3"):
            assert httpx.get(services.ui + path).status_code == 401
        with pytest.raises(ServiceError, match="does not match"):
            client.trigger({"dump": "../elsewhere"})
    finally:
        services.stop()
    assert not services.running()
