"""The connection to S3; its answers that are not whole are asked for again, or are errors, never taken for others."""

import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, IncompleteReadError, ResponseStreamingError
from botocore.loaders import Loader, create_loader
from botocore.session import Session

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 5
PAUSE_S = 0.2  # before the second attempt, twice as long before each further one
BROKEN_OFF = (IncompleteReadError, ResponseStreamingError)
# What Python's HTTP client does not miss in a head that is cut off, and boto3 does later.
NEEDED = {"HeadObject": "ContentLength", "PutObject": "ETag", "UploadPart": "ETag",
          "CreateMultipartUpload": "UploadId", "CompleteMultipartUpload": "ETag"}  # fmt: skip


@cache
def descriptions() -> Loader:
    """Return what reads boto3's descriptions of services and keeps them: that is most of the time to make a client."""
    return create_loader()


@cache
def client_of(variables: frozenset[tuple[str, str]]) -> "S3Client":
    """Return the connection to the server that these variables tell of, which boto3 reads itself; made once for all."""
    import boto3

    config = Config(
        retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=5, s3={"addressing_style": "path"},
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
    )  # fmt: skip
    session = Session()
    session.register_component("data_loader", descriptions())
    client = boto3.Session(botocore_session=session).client("s3", config=config)
    ask_again(client)
    return client


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
