"""Answers of S3 that are not whole: asked for again, or an error, never taken for what they are not."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ConnectionClosedError, IncompleteReadError, ResponseStreamingError

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 5
PAUSE_S = 0.2  # before the second attempt, twice as long before each further one
BROKEN_OFF = (IncompleteReadError, ResponseStreamingError)
# What Python's HTTP client does not miss in a head that is cut off, and boto3 does later.
NEEDED = {"HeadObject": "ContentLength", "PutObject": "ETag", "UploadPart": "ETag",
          "CreateMultipartUpload": "UploadId", "CompleteMultipartUpload": "ETag"}  # fmt: skip


def ask_again(client: "S3Client") -> None:
    """Have a client ask again where the head of an answer was cut off, which boto3 takes for an empty answer."""
    hush()
    client.meta.events.register("needs-retry.s3", _pause)  # type: ignore[arg-type]  # the stubs know no answer


def hush() -> None:
    """Keep urllib3 from telling of every such head, with a traceback."""
    logging.getLogger("urllib3.connection").addFilter(_is_of_something_else)


def _is_of_something_else(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to parse headers")


def _pause(response: Any, operation: Any, attempts: int, endpoint: Any, **_: Any) -> float | None:
    """Return how many seconds to wait before another attempt; None for an answer that is whole."""
    if response is None or _is_whole(operation, *response):
        return None
    if attempts >= ATTEMPTS:
        raise ConnectionClosedError(endpoint_url=endpoint.host)
    return pause_s(attempts)


def _is_whole(operation: Any, answer: Any, parsed: dict[str, Any]) -> bool:
    if not 200 <= answer.status_code < 300:
        return True
    if operation.name in NEEDED:
        return NEEDED[operation.name] in parsed
    # The others that matter are objects and lists; what has no body says nothing of its length.
    sized = "content-length" in answer.headers or "transfer-encoding" in answer.headers
    return sized or operation.http["method"] != "GET"


def pause_s(attempts: int) -> float:
    """Return how many seconds to wait after so many attempts."""
    return float(PAUSE_S * 2 ** (attempts - 1))


def read_whole(ask: Callable[[], Any]) -> tuple[bytes, dict[str, Any]]:
    """Return the body of an object that `ask` asks for, once more where it breaks off, and what is said of it."""
    attempt = 1
    while True:
        reply = ask()
        try:
            return bytes(reply["Body"].read()), reply
        except BROKEN_OFF:
            if attempt == ATTEMPTS:
                raise
        time.sleep(pause_s(attempt))
        attempt += 1


def upload_whole(client: "S3Client", path: Path, bucket: str, key: str, transfer: "TransferConfig") -> None:
    """Upload a file, in parts where it is large.

    Where the answer to the last request is lost, the next attempt is told that there is no such upload any more.
    """
    from boto3.exceptions import S3UploadFailedError

    try:
        client.upload_file(str(path), bucket, key, None, None, transfer)
    except S3UploadFailedError as error:
        if "(NoSuchUpload)" not in str(error):
            raise
        if _size(client, bucket, key) != path.stat().st_size:
            client.upload_file(str(path), bucket, key, None, None, transfer)


def _size(client: "S3Client", bucket: str, key: str) -> int | None:
    try:
        return client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError:
        return None
