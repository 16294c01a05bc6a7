"""Files on web and S3 servers: their version and size, and the bytes of any range of them."""

import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from urllib.parse import urlsplit

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from wordmill.sources.patience import ChangedError, RefusedError
from wordmill.store.storage import Store

CHUNK = 1 << 20  # bytes
TIMEOUT_S = 30
REDIRECTS = 10
NO_HEAD = {403, 405, 501}  # how servers refuse to tell about a file that they do send
FIRST_BYTE = "bytes=0-0"
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on a server: what its content is known by, and its size in bytes where the server tells.

    `ranged` asks the server whether it sends parts of the file; `read` yields the bytes start <= i < stop, or with
    None as stop all from the start. Both raise ConnectionError and RefusedError for what another attempt may mend, and
    ChangedError.
    """

    address: str
    version: str
    size: int | None
    ranged: Callable[[], bool]
    read: Callable[[int, int | None], Iterator[bytes]]


def web_file(address: str) -> Remote:
    """Ask a web server about a file."""
    tag, size, _ = _ask(address)
    return Remote(address=address, version=tag, size=size, ranged=lambda: _ask(address, "GET")[2],
                  read=partial(_read_web, address, tag, size))  # fmt: skip


def s3_file(store: Store, bucket: str, key: str) -> Remote:
    """Ask an S3 server about an object."""
    with _s3_errors():
        head = store.client.head_object(Bucket=bucket, Key=key)
    return _s3_remote(store, bucket, key, head["ETag"], head["ContentLength"])


def s3_folder(store: Store, bucket: str, prefix: str) -> dict[str, Remote]:
    """List the objects whose keys begin with a prefix that ends in `/`, by the rest of their key."""
    with _s3_errors():
        pages = list(store.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    found = [item for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    return {item["Key"].removeprefix(prefix): _s3_remote(store, bucket, item["Key"], item["ETag"], item["Size"])
            for item in found}  # fmt: skip


def _s3_remote(store: Store, bucket: str, key: str, tag: str, size: int) -> Remote:
    version = tag.strip('"')  # which some servers leave out in lists
    return Remote(address=f"s3://{bucket}/{key}", version=version, size=size, ranged=lambda: True,
                  read=partial(_read_s3, store, bucket, key, version))  # fmt: skip


def _read_s3(store: Store, bucket: str, key: str, tag: str, start: int, stop: int | None) -> Iterator[bytes]:
    if start == stop:
        return
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"
    with _s3_errors():
        reply = store.client.get_object(Bucket=bucket, Key=key, Range=wanted)
        if (found := reply["ETag"].strip('"')) != tag:
            raise ChangedError(f"its version is {found} now, it was {tag}")
        yield from reply["Body"].iter_chunks(CHUNK)


@contextmanager
def _s3_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise RefusedError(status, str(error.response.get("Error", {}).get("Code", ""))) from None
    except BotoCoreError as error:
        raise ConnectionError(str(error)) from error


def _ask(address: str, method: str = "HEAD") -> tuple[str, int | None, bool]:
    """Return a file's version tag, its size where it is told, and whether a part of it was sent when asked for."""
    try:
        with _web(address, method, {} if method == "HEAD" else {"Range": FIRST_BYTE}) as reply:
            tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
            match = CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
            size = match[3] if match else reply.headers.get("Content-Length", "")
            return tag, int(size) if size.isdigit() else None, reply.status == 206
    except RefusedError as error:
        if method == "HEAD" and error.status in NO_HEAD:
            return _ask(address, "GET")
        if method == "GET" and error.status == 416:  # an empty file has no first byte
            return "", 0, False
        raise


def _read_web(address: str, tag: str, size: int | None, start: int, stop: int | None) -> Iterator[bytes]:
    part = stop is not None and (start, stop) != (0, size)
    if stop == 0:
        return
    with _web(address, "GET", {"Range": f"bytes={start}-{(stop or 0) - 1}"} if part else {}) as reply:
        found = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
        if found != tag:
            raise ChangedError(f"its version is {found or 'unknown'} now, it was {tag}")
        _check_range(reply, start, stop, size, part)
        yield from reply.stream(CHUNK, decode_content=False)


def _check_range(reply: urllib3.BaseHTTPResponse, start: int, stop: int | None, size: int | None, part: bool) -> None:
    if not part:
        length = reply.headers.get("Content-Length", "")
        if size is not None and length and int(length) != size:
            raise ChangedError(f"its size is {length} now, it was {size}")
        return
    text = reply.headers.get("Content-Range", "")
    match = CONTENT_RANGE.fullmatch(text)
    if match and match[3] not in ("*", str(size)):
        raise ChangedError(f"its size is {match[3]} now, it was {size}")
    if reply.status != 206 or not match or (int(match[1]), int(match[2]) + 1) != (start, stop):
        raise ConnectionError(f"asked for the bytes {start} to {stop}, it sent '{text or 'the whole file'}'")


@contextmanager
def _web(address: str, method: str, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
    """Make a request and give its reply, whose bytes are as they were sent, not unpacked on the way."""
    try:
        reply = _manager(_proxy(address)).request(
            method, address, headers={"Accept-Encoding": "identity", **headers}, preload_content=method == "HEAD"
        )
        try:
            if reply.status == 416 and headers.get("Range", FIRST_BYTE) != FIRST_BYTE:
                raise ChangedError(f"it ends before {headers['Range']} now")
            if reply.status >= 300:
                raise RefusedError(reply.status, reply.reason or "", _retry_after_s(reply))
            yield reply
        finally:
            reply.close()  # keeps the connection where all was read; elsewhere the rest of a file is not awaited
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError(str(getattr(error, "reason", None) or error.args[0])) from error


def _retry_after_s(reply: urllib3.BaseHTTPResponse) -> float:
    text = reply.headers.get("Retry-After", "")
    try:
        return urllib3.Retry().parse_retry_after(text) if text else 0.0
    except urllib3.exceptions.InvalidHeader:
        return 0.0


@cache
def _manager(proxy: str) -> urllib3.PoolManager:
    # Patience is patience.py's: nothing but redirections is followed here.
    retries = urllib3.Retry(REDIRECTS, connect=0, read=0, status=0, other=0, respect_retry_after_header=False)
    timeout = urllib3.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S)
    if proxy:
        return urllib3.ProxyManager(proxy, retries=retries, timeout=timeout, maxsize=16)
    return urllib3.PoolManager(retries=retries, timeout=timeout, maxsize=16)


def _proxy(address: str) -> str:
    """Return the proxy that the environment names for an address, "" for none."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")
