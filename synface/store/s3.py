"""Whole objects in S3 and S3-compatible stores, by boto3.

boto3 rather than Arrow's S3 filesystem: its retries, time-outs and error codes can be told to a user, and
whole-object reads were measured to be several times faster (docs/storage.md). The endpoint comes from
``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, credentials and region from the standard chain.
"""

import functools
import io
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from synface.core.errors import InputError, SynfaceError

#: seconds that a read or write goes on trying when the store is down or answers 5xx
PATIENCE_SECONDS = 180.0
CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
MULTIPART_BYTES = 64 << 20

T = TypeVar("T")

#: error codes that no retry mends -> what the user is told
REFUSALS = {
    "NoSuchBucket": "the bucket does not exist; create it first",
    "AccessDenied": "access denied; check the credentials' rights on this prefix",
    "AllAccessDisabled": "access denied; check the credentials' rights on this prefix",
    "403": "access denied; check the credentials and their rights on this prefix",
    "InvalidAccessKeyId": "unknown access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "wrong secret key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's; set the clock",
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidBucketName": "not a valid bucket name",
    "MethodNotAllowed": "the store does not allow this operation here (read-only?)",
}
MISSING = ("404", "NoSuchKey", "NotFound")


@functools.cache
def client(endpoint: str | None, pid: int) -> Any:
    """One boto3 client per process and endpoint (clients may be shared by threads)."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"max_attempts": 3, "mode": "standard"},
        max_pool_connections=32,
        # every file's sha256 is ours to check; many S3-compatible stores refuse the newer trailers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else None,
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
    return Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)


def endpoint() -> str | None:
    """The custom endpoint of the environment, with its scheme."""
    value = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return value if not value or "://" in value else f"https://{value}"


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError(f"{uri}: no bucket; expected s3://bucket/path")
    return bucket, key.strip("/")


def _call(uri: str, work: Callable[[Any], T], patience: float) -> T:
    """Run `work(client)`, again with back-off while the store is down, until `patience` seconds are over."""
    deadline = time.monotonic() + patience
    pause = 0.5
    while True:
        try:
            return work(client(endpoint(), os.getpid()))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if code in MISSING and code != "NoSuchBucket":
                raise
            if code in REFUSALS:
                raise InputError(f"{uri}: {REFUSALS[code]} ({code})") from error
            failure: Exception = error
            if status < 500 and status != 429:
                raise InputError(f"{uri}: the store refused ({error})") from error
        except (BotoCoreError, OSError) as error:
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
                raise InputError(f"{uri}: no credentials found ({error}); see docs/storage.md") from error
            if type(error).__name__ in ("ParamValidationError", "InvalidEndpointURLError", "InvalidRegionError"):
                raise InputError(f"{uri}: {error}") from error
            failure = error
        except ValueError as error:  # botocore's answer to an endpoint that is no URL
            raise InputError(f"{uri}: cannot open the store ({error})") from error
        if time.monotonic() + pause > deadline:
            raise SynfaceError(
                f"{uri}: the store cannot be reached ({failure}); what is finished is kept, run the same command again"
            ) from failure
        time.sleep(pause * (0.5 + random.random()))
        pause = min(2 * pause, 15.0)


def _missing(error: ClientError) -> bool:
    return str(error.response.get("Error", {}).get("Code", "")) in MISSING


def exists(uri: str, patience: float = 0.0) -> bool:
    """Whether an object, or anything below the prefix, stands at the URI."""
    bucket, key = split(uri)
    if not key:
        _call(uri, lambda c: c.head_bucket(Bucket=bucket), patience)
        return True
    try:
        _call(uri, lambda c: c.head_object(Bucket=bucket, Key=key), patience)
        return True
    except ClientError as error:
        if not _missing(error):
            raise
    page = _call(uri, lambda c: c.list_objects_v2(Bucket=bucket, Prefix=key + "/", MaxKeys=1), patience)
    return bool(page.get("KeyCount") or page.get("Contents"))


def is_object(uri: str) -> bool:
    """Whether an object of exactly this key exists."""
    bucket, key = split(uri)
    try:
        _call(uri, lambda c: c.head_object(Bucket=bucket, Key=key), 0.0)
        return True
    except ClientError as error:
        if _missing(error):
            return False
        raise


def read_bytes(uri: str, patience: float = PATIENCE_SECONDS) -> bytes:
    """A whole object. InputError if there is none."""
    bucket, key = split(uri)
    try:
        return _call(uri, lambda c: c.get_object(Bucket=bucket, Key=key)["Body"].read(), patience)
    except ClientError as error:
        raise InputError(f"{uri}: cannot be read (no such object)") from error


def write_bytes(uri: str, data: bytes, patience: float = PATIENCE_SECONDS) -> None:
    """Put a whole object; large ones in parts, which appear only when complete."""
    bucket, key = split(uri)
    if len(data) < MULTIPART_BYTES:
        _call(uri, lambda c: c.put_object(Bucket=bucket, Key=key, Body=data), patience)
        return
    transfer = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES // 4)
    _call(uri, lambda c: c.upload_fileobj(io.BytesIO(data), bucket, key, Config=transfer), patience)


class Upload:
    """A stream into one object, in parts; the object appears at `close` and not at all after `abort`."""

    def __init__(self, uri: str):
        self._uri = uri
        self._bucket, self._key = split(uri)
        started = _call(uri, lambda c: c.create_multipart_upload(Bucket=self._bucket, Key=self._key), PATIENCE_SECONDS)
        self._place = {"Bucket": self._bucket, "Key": self._key, "UploadId": started["UploadId"]}
        self._parts: list[dict[str, Any]] = []
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Append; a part goes out whenever `MULTIPART_BYTES` are there."""
        self._buffer += data
        if len(self._buffer) >= MULTIPART_BYTES:
            self._send()
        return len(data)

    def _send(self) -> None:
        number, body = len(self._parts) + 1, bytes(self._buffer)
        sent = _call(self._uri, lambda c: c.upload_part(PartNumber=number, Body=body, **self._place), PATIENCE_SECONDS)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._buffer.clear()

    def close(self) -> None:
        """Send the rest and put the object together."""
        if not self._parts:
            self.abort()
            write_bytes(self._uri, bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        parts = {"Parts": self._parts}
        _call(self._uri, lambda c: c.complete_multipart_upload(MultipartUpload=parts, **self._place), PATIENCE_SECONDS)

    def abort(self) -> None:
        """Drop what was sent."""
        _call(self._uri, lambda c: c.abort_multipart_upload(**self._place), 0.0)


def list_infos(uri: str, recursive: bool = True) -> list[tuple[str, int, float]]:
    """(key relative to `uri`, bytes, modified in seconds since the epoch) of the objects below it."""
    bucket, key = split(uri)
    prefix = f"{key}/" if key else ""

    def pages(c: Any) -> list[dict[str, Any]]:
        options = {} if recursive else {"Delimiter": "/"}
        pager = c.get_paginator("list_objects_v2")
        return [
            o for page in pager.paginate(Bucket=bucket, Prefix=prefix, **options) for o in page.get("Contents", [])
        ]

    found = _call(uri, pages, PATIENCE_SECONDS)
    return [
        (o["Key"].removeprefix(prefix), o["Size"], o["LastModified"].timestamp()) for o in found if o["Key"] != prefix
    ]


def delete_file(uri: str) -> None:
    """Remove one object; nothing happens where there is none."""
    bucket, key = split(uri)
    try:
        _call(uri, lambda c: c.delete_object(Bucket=bucket, Key=key), PATIENCE_SECONDS)
    except ClientError as error:
        if not _missing(error):
            raise
