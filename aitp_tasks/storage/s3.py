"""Storage in an S3 bucket through boto3: Amazon's, SeaweedFS or any other server of the protocol.

Endpoint, region and credentials are boto3's own affair: AWS_ENDPOINT_URL,
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and so on, or an instance role.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage
from aitp_tasks.storage.ranges import RangeReader

_T = TypeVar("_T")
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_ATTEMPTS = 6
_WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "InvalidToken"}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_CONDITION_FAILED = {"PreconditionFailed", "412", "ConditionalRequestConflict"}


class S3Storage(Storage):
    """Objects of one bucket, under an optional prefix."""

    # A distant store answers in tens of milliseconds: fewer would wait for it.
    concurrency = 32

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        session = botocore.session.get_session()
        # Nobody reads an object's date, and parsing it is half the time of a long listing.
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=lambda text: text
        )
        # "standard" retries with exponential back-off and jitter, throttling and 5xx included.
        self._client = boto3.session.Session(botocore_session=session).client(
            "s3",
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                max_pool_connections=self.concurrency,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._ranges = RangeReader(session, self._client, bucket)

    def find(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._client.head_object(**self._at(key))
        except ClientError as error:
            if _code(error) in _MISSING:
                self._require_bucket()
                return None
            raise self._explain(error) from error
        except BotoCoreError as error:
            raise self._explain(error) from error
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        try:
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key, item["Size"], item["ETag"].strip('"'))
        except (ClientError, BotoCoreError) as error:
            raise self._explain(error) from error

    def read_range(self, info: ObjectInfo, start: int, size: int) -> bytes:
        at = self._at(info.key)
        window = f"bytes={start}-{start + size - 1}"
        data = self._ranges.read(at["Key"], window, info.etag)
        if data is not None:
            return data
        return self._call(
            lambda: _body(self._client.get_object(**at, Range=window, IfMatch=info.etag)), info.key
        )

    def read(self, key: str) -> bytes:
        return self._call(lambda: _body(self._client.get_object(**self._at(key))), key)

    def write(self, key: str, data: bytes) -> None:
        self._call(lambda: self._client.put_object(**self._at(key), Body=data), key)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) in _CONDITION_FAILED:
                return False
            raise self._explain(error, key) from error
        except BotoCoreError as error:
            raise self._explain(error, key) from error
        return True

    def upload(self, key: str, path: Path) -> None:
        self._call(lambda: self._client.upload_file(str(path), self._bucket, self._prefix + key), key)

    def download(self, key: str, path: Path) -> None:
        self._call(lambda: self._client.download_file(self._bucket, self._prefix + key, str(path)), key)

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, request: Callable[[], _T], key: str) -> _T:
        try:
            return request()
        except (ClientError, BotoCoreError, S3UploadFailedError) as error:
            raise self._explain(error, key) from error

    def _require_bucket(self) -> None:
        # A HEAD answer has no body, so a missing bucket looks like a missing key.
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) in _MISSING:
                raise self._no_bucket() from error
            raise self._explain(error) from error

    def _no_bucket(self) -> InputError:
        return InputError(
            f"bucket {self._bucket!r} does not exist at {self._client.meta.endpoint_url}: "
            "create it, or correct the storage root"
        )

    def _explain(self, error: Exception, key: str = "") -> AitpError:
        """Turn boto3's error into one of ours; never repeats a credential."""
        where = f"{self.root} at {self._client.meta.endpoint_url}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return InputError(
                f"no credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or the Airflow connection aitp_s3"
            )
        code = _code(error) if isinstance(error, ClientError) else type(error).__name__
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _MISSING:
            return self.missing(key)
        if code in _CONDITION_FAILED:
            return ObjectChangedError(f"{self.uri(key)} changed while it was read: run the task again")
        if code in _WRONG_CREDENTIALS:
            return InputError(
                f"{where} refuses the credentials ({code}): check the access key and its rights"
            )
        return TransientError(f"{where} failed with {code}: {' '.join(str(error).split())}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _body(answer: dict[str, Any]) -> bytes:
    data: bytes = answer["Body"].read()
    return data
