"""Fetching: a web server on this machine that gives each connection so much and no more, and the fetch stage."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.data_rows import against, alone
from benchmarks.data_stages import Ran, fetched
from benchmarks.models import Row

CHUNK = 1 << 18  # bytes
CONNECTION_MB_S = 20.0  # what public archives give about one connection
GOAL_RATIO = 2.0  # of many connections' rate by one's


@dataclass(kw_only=True)
class Site:
    """One file on a web server: what it has given so far, and from when to when; times are time.monotonic's."""

    path: Path
    rate_mb_s: float  # of a connection; 0: no limit
    sent: int = 0  # bytes of the file
    first: float = 0.0
    last: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, count: int) -> None:
        """Count bytes that have been sent."""
        with self.lock:
            self.last = time.monotonic()
            self.first = self.first or self.last
            self.sent += count

    @property
    def seconds(self) -> float:
        """How long the file was under way."""
        return self.last - self.first


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET, whole or a range."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_HEAD(self) -> None:
        """Tell size and version."""
        self.head(200, self.site.path.stat().st_size)

    def do_GET(self) -> None:
        """Give the file, or a range of it."""
        size, wanted = self.site.path.stat().st_size, self.headers.get("Range")
        first, last = 0, size - 1
        if wanted:
            left, _, right = wanted.removeprefix("bytes=").partition("-")
            first, last = int(left), min(int(right or last), last)
        self.head(206 if wanted else 200, last + 1 - first, f"bytes {first}-{last}/{size}" if wanted else "")
        self.give(first, last + 1)

    def head(self, status: int, length: int, content_range: str = "") -> None:
        """Send the headers."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.site.path.name}"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def give(self, first: int, stop: int) -> None:
        """Send bytes first..stop-1 no faster than the site's rate."""
        begin, rate = time.monotonic(), self.site.rate_mb_s * 1e6
        with self.site.path.open("rb") as file:
            file.seek(first)
            for place in range(first, stop, CHUNK):
                chunk = file.read(min(CHUNK, stop - place))
                try:
                    self.wfile.write(chunk)
                except OSError:  # the reader has hung up
                    self.close_connection = True
                    return
                self.site.note(len(chunk))
                if rate:
                    time.sleep(max(0.0, begin + (place + len(chunk) - first) / rate - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(path: Path, rate_mb_s: float) -> Iterator[tuple[Site, str]]:
    """Serve a file and give the site and the file's address."""
    site = Site(path=path, rate_mb_s=rate_mb_s)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Serving", (Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site, f"http://127.0.0.1:{server.server_port}/{path.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch_rows(archive: Path, samples: int, folder: Path) -> tuple[list[Row], Ran]:
    """Fetch an archive from a slow server and from a fast one, and again; the lines, and the last of the fetches."""
    entry = {"reader": "lmdb", "samples": samples}
    megabytes = archive.stat().st_size / 1e6
    rows = []
    with serving(archive, CONNECTION_MB_S) as (site, address):
        fetched(folder, source=address, **entry)
        rate = megabytes / site.seconds
        name = f"fetch from a server of {CONNECTION_MB_S:g} MB/s per connection"
        rows.append(against(name, rate, "MB/s", "one connection", CONNECTION_MB_S, GOAL_RATIO, rate=True))
    with serving(archive, 0.0) as (site, address):
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        ran = fetched(folder, source=address, sha256=digest, **entry)
        rows.append(alone("fetch from a fast server", megabytes / site.seconds, "MB/s"))
        rows.append(alone("fetch, all of the stage", 1e3 * ran.cpu_s / megabytes, "ms CPU/MB"))
        site.sent = 0
        again = fetched(folder, source=address, sha256=digest, **entry)
        rows.append(alone("fetch again, moved", site.sent / 1e6, "MB", 0.0) | {"goal": 0.0, "met": site.sent == 0})
    return rows, again
