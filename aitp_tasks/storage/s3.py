"""Storage in an S3 bucket through boto3: Amazon's, SeaweedFS or any other server of the protocol.

Endpoint, region and credentials are boto3's own affair: AWS_ENDPOINT_URL,
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and so on, or an instance role.
"""

import http.client
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointResolutionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from aitp_tasks.errors import AitpError, InputError, TransientError
from aitp_tasks.storage.base import ObjectChangedError, ObjectInfo, Storage, Tagged
from aitp_tasks.storage.ranges import RangeReader

_T = TypeVar("_T")
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_ATTEMPTS = 6
_WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "InvalidToken"}
#: Of credentials that were right: the next try takes the new ones.
_EXPIRED_CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_WRONG_CLOCK = "RequestTimeTooSkewed"
#: Of answers to HEAD.
_TOLD_BY_NUMBER = {"400", "403"}
_MISSING = {"NoSuchKey", "404", "NotFound"}
#: What one request deletes, by the protocol.
_DELETED_AT_ONCE = 1000
_CONDITION_FAILED = {"PreconditionFailed", "412"}
#: What stores that know no conditional writes say of them, where they do not ignore them.
_NO_CONDITIONS = {"NotImplemented", "InvalidArgument"}
#: Seconds before a conditional write that ran into another one is tried again.
_CONFLICT_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)

#: What ``require_conditional_writes`` writes: new, and once it has been replaced by its tag.
_PROBE = "probes/conditional-writes"
_NEW = b"AITP has not replaced this object yet.\n"
_REPLACED = b"AITP tries to overwrite this object at each plan, and must not succeed.\n"
#: No object's.
_NO_TAG = f'"{"0" * 32}"'


class S3Storage(Storage):
    """Objects of one bucket, under an optional prefix."""

    # A distant store answers in tens of milliseconds: fewer would wait for it.
    concurrency = 32

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        try:
            session, self._client = self._made()
        except (BotoCoreError, ValueError) as error:
            # An address in it may name a user.
            told = " ".join(str(error).split())
            told = f"{told.partition('://')[0]}://…@{told.rpartition('@')[2]}" if "@" in told else told
            raise InputError(
                f"no client of S3 can be made for {self.root} ({told}): correct AWS_ENDPOINT_URL, "
                "AWS_DEFAULT_REGION, AWS_PROFILE or the files of AWS, or the Airflow connection aitp_s3"
            ) from None
        self._ranges = RangeReader(session, self._client, bucket)

    def _made(self) -> tuple[botocore.session.Session, Any]:
        """A session and its client, as the environment says."""
        session = botocore.session.get_session()
        # Hardly anybody reads an object's date, and parsing it is half the time of a long listing.
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=lambda text: text
        )
        # "standard" retries with exponential back-off and jitter, throttling and 5xx included.
        client = boto3.session.Session(botocore_session=session).client(
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
        return session, client

    def find(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._client.head_object(**self._at(key))
        except ClientError as error:
            if _code(error) in _MISSING:
                self._require_bucket()
                return None
            raise self._explain(error, key) from error
        except BotoCoreError as error:
            raise self._explain(error, key) from error
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in self._items(prefix):
            yield self._info(item)

    def list_dated(self, prefix: str) -> Iterator[tuple[ObjectInfo, float]]:
        for item in self._items(prefix):
            yield self._info(item), datetime.fromisoformat(item["LastModified"]).timestamp()

    def folders(self, prefix: str) -> tuple[str, ...]:
        found = [
            one["Prefix"]
            for page in self._pages(prefix, Delimiter="/")
            for one in page.get("CommonPrefixes", [])
        ]
        return tuple(sorted(name.removeprefix(self._prefix + prefix).removesuffix("/") for name in found))

    def now(self) -> float:
        answer = self._call(lambda: self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1), "")
        told = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(told).timestamp()

    def _info(self, item: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(item["Key"].removeprefix(self._prefix), item["Size"], item["ETag"].strip('"'))

    def _items(self, prefix: str) -> Iterator[dict[str, Any]]:
        for page in self._pages(prefix):
            yield from page.get("Contents", [])

    def _pages(self, prefix: str, **asked: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, **asked
        )
        try:
            yield from pages
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
        return self._write_if(key, data, IfNoneMatch="*")

    def read_tagged(self, key: str) -> Tagged | None:
        try:
            answer = self._client.get_object(**self._at(key))
            return Tagged(_body(answer), answer["ETag"])
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _MISSING:
                return None
            raise self._explain(error, key) from error

    def write_if_matches(self, key: str, data: bytes, tag: str) -> bool:
        return self._write_if(key, data, IfMatch=tag)

    def _write_if(self, key: str, data: bytes, **condition: str) -> bool:
        """Whether the condition held.

        A conflict (409) says nothing of the object, only that another write to it was
        under way: what came of that is seen when it is tried again.
        """
        for pause in (*_CONFLICT_PAUSES, 0.0):
            try:
                self._client.put_object(**self._at(key), Body=data, **condition)
                return True
            except (ClientError, BotoCoreError) as error:
                code = _code(error)
                # What is to be replaced may be gone.
                if code in _CONDITION_FAILED or ("IfMatch" in condition and code in _MISSING):
                    return False
                if code in _NO_CONDITIONS:
                    raise self._unfit(condition, f"answers {code} to") from error
                if _status(error) != http.client.CONFLICT:
                    raise self._explain(error, key) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
        # Some stores say conflict of an object that has long been there.
        if "IfNoneMatch" in condition and self.find(key) is not None:
            return False
        raise TransientError(
            f"{self.uri(key)} could not be written in {len(_CONFLICT_PAUSES) + 1} tries: each met another "
            "write to it (409); see that no other run writes there, then retry"
        )

    def require_conditional_writes(self) -> None:
        """See ``Storage``: two writes that are to be refused, and one read; only the first time writes.

        Plans at the same time do not disturb each other. A store that keeps conditions
        for writes one after the other but not at once is not found out.
        """
        absent, matches = {"IfNoneMatch": "*"}, {"IfMatch": _NO_TAG}
        if self._write_if(_PROBE, _NEW, **absent) and self._write_if(_PROBE, _NEW, **absent):
            raise self._unfit(absent, "ignores")
        if self._write_if(_PROBE, _REPLACED, **matches):
            raise self._unfit(matches, "ignores")
        for _ in range(2):
            found = self.read_tagged(_PROBE)
            if found is None:
                raise TransientError(
                    f"{self.uri(_PROBE)} is not there after it was written: see that nobody deletes it, "
                    "then run plan again"
                )
            # Of plans at the same time only one replaces it.
            if found.data == _REPLACED or self.write_if_matches(_PROBE, _REPLACED, found.tag):
                return
        raise self._unfit(matches, "refuses the right")

    def _unfit(self, condition: dict[str, str], does: str) -> InputError:
        header = "If-None-Match" if "IfNoneMatch" in condition else "If-Match"
        return InputError(
            f"{self._where} {does} {header} when an object is written, so that tasks could overwrite each "
            "other's results: use a store with conditional writes (Amazon S3, SeaweedFS 4.48), or update it"
        )

    def upload(self, key: str, path: Path) -> None:
        self._call(lambda: self._client.upload_file(str(path), self._bucket, self._prefix + key), key)

    def download(self, key: str, path: Path) -> None:
        self._call(lambda: self._client.download_file(self._bucket, self._prefix + key, str(path)), key)

    def copy(self, source: str, target: str) -> None:
        place = self._at(source)
        self._call(lambda: self._client.copy(place, self._bucket, self._prefix + target), source)

    def delete(self, keys: Iterable[str]) -> None:
        left = iter(keys)
        while some := list(islice(left, _DELETED_AT_ONCE)):
            self._delete(some)

    def _delete(self, keys: Sequence[str]) -> None:
        named = {"Objects": [{"Key": self._prefix + key} for key in keys], "Quiet": True}
        answer = self._call(
            lambda: self._client.delete_objects(Bucket=self._bucket, Delete=named), f"{keys[0]} and others"
        )
        for failed in answer.get("Errors", []):
            raise TransientError(
                f"{self.uri(failed['Key'].removeprefix(self._prefix))} could not be deleted "
                f"({failed.get('Code', 'unknown')}): check the rights of the access key, then retry"
            )

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, request: Callable[[], _T], key: str) -> _T:
        try:
            return request()
        except (ClientError, BotoCoreError, Boto3Error) as error:
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
            f"bucket {self._bucket!r} does not exist at {self._endpoint}: "
            "create it, or correct the storage root"
        )

    def _explain(self, error: Exception, key: str = "") -> AitpError:
        """Turn boto3's error into one of ours; never repeats a credential."""
        where, error = self._where, self._reason(_cause(error), key)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return InputError(
                f"no credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or the Airflow connection aitp_s3"
            )
        code = _code(error)
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _MISSING:
            return self.missing(key)
        if code in _CONDITION_FAILED:
            return ObjectChangedError(f"{self.uri(key)} changed while it was read: run the task again")
        if code in _EXPIRED_CREDENTIALS:
            return TransientError(
                f"the credentials for {where} have expired ({code}): renew them (AWS_SESSION_TOKEN and its "
                "keys, or the Airflow connection aitp_s3); the next try takes the new ones"
            )
        if code == _WRONG_CLOCK:
            return TransientError(
                f"{where} refuses requests of another time ({code}): set the clock of this machine, or the "
                "server's; a try after that goes through"
            )
        if code in _WRONG_CREDENTIALS:
            return InputError(
                f"{where} refuses the credentials ({code}): check the access key and its rights"
            )
        told = " ".join(str(error).split()).replace(str(self._client.meta.endpoint_url), self._endpoint)
        if isinstance(error, ParamValidationError | EndpointResolutionError):
            return InputError(
                f"{where} cannot be asked ({told}): correct the storage root, or AWS_ENDPOINT_URL"
            )
        return TransientError(f"{where} failed with {code}: {told}")

    def _reason(self, error: Exception, key: str) -> Exception:
        """What says why: an answer to HEAD has no body, so the same is asked once more with GET."""
        if not key or _code(error) not in _TOLD_BY_NUMBER:
            return error
        try:
            self._client.get_object(**self._at(key), Range="bytes=0-0")
        except (ClientError, BotoCoreError) as told:
            error = told
        return error

    @property
    def _where(self) -> str:
        return f"{self.root} at {self._endpoint}"

    @cached_property
    def _endpoint(self) -> str:
        """The server's address, without what it may say of a user."""
        parts = urlsplit(str(self._client.meta.endpoint_url))
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _cause(error: Exception) -> Exception:
    """What an upload or a download of several requests has failed with."""
    inner = getattr(error, "last_exception", error.__context__) if isinstance(error, Boto3Error) else None
    return inner if isinstance(inner, Exception) else error


def _code(error: Exception) -> str:
    if not isinstance(error, ClientError):
        return type(error).__name__
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _body(answer: dict[str, Any]) -> bytes:
    data: bytes = answer["Body"].read()
    return data
