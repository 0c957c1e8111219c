"""Ranged reads of S3 objects straight over HTTP, for the stages that make very many of them.

boto3 spends 1.4 ms of processor time on a small request, of which a signature
and HTTP need a quarter. ``RangeReader`` does these two and no more: any other
answer than the bytes is left to boto3, which knows about retries, redirects,
proxies and how to explain an error.
"""

import http.client
import ssl
import threading
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.utils import get_environ_proxies

_CONNECT_SECONDS = 5
_READ_SECONDS = 60


class RangeReader:
    """Reads of one bucket; one connection a thread.

    Args:
        session: botocore's, for credentials and the CA bundle.
        client: boto3's S3 client, for the bucket's address and region.
        bucket: the bucket's name.
    """

    def __init__(self, session: Any, client: Any, bucket: str) -> None:
        self._session = session
        self._client = client
        self._bucket = bucket
        self._threads = threading.local()

    def read(self, key: str, window: str, etag: str) -> bytes | None:
        """The bytes of ``window`` (``bytes=0-9``) of the version with this tag; None for any other answer."""
        try:
            credentials = self._session.get_credentials()
            if credentials is None or self._proxied:
                return None
            target = self._base.path + quote(key)
            request = AWSRequest(
                "GET",
                f"{self._base.scheme}://{self._base.netloc}{target}",
                headers={"Range": window, "If-Match": etag},
            )
            region = self._client.meta.region_name
            S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(request)
        except BotoCoreError:
            return None
        return self._get(target, dict(request.headers))

    def _get(self, target: str, headers: dict[str, str]) -> bytes | None:
        connection = self._connection()
        try:
            if connection.sock is None:
                _connect(connection)
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return None
        return data if answer.status == http.client.PARTIAL_CONTENT else None

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._threads, "connection", None)
        if connection is None:
            if self._base.scheme == "https":
                connection = http.client.HTTPSConnection(
                    self._base.netloc, timeout=_CONNECT_SECONDS, context=self._tls
                )
            else:
                connection = http.client.HTTPConnection(self._base.netloc, timeout=_CONNECT_SECONDS)
            self._threads.connection = connection
        return connection

    @cached_property
    def _base(self) -> SplitResult:
        """Address of the bucket, in the form (path or host) that boto3 uses; its path ends with a slash."""
        url: str = self._client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": "-"}
        )
        return urlsplit(url.partition("-?")[0])

    @cached_property
    def _proxied(self) -> bool:
        return bool(get_environ_proxies(self._base.geturl()))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._session.get_config_variable("ca_bundle"))


def _connect(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    connection.sock.settimeout(_READ_SECONDS)
