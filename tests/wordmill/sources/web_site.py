"""A web server for tests that breaks, refuses, lies and changes its file as it is told."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY = os.urandom(3 << 20)
SLICE = 1 << 16


class Site:
    """What a web server does: its file, how it treats requests, and which requests it has seen."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.tag = '"v1"'
        self.breaks_after: list[int] = []  # of the next replies' bodies, so many bytes are sent
        self.refuses: list[int] = []  # the next requests meet these codes
        self.retry_after = ""  # that refusals carry
        self.ranges = True
        self.heads = True
        self.announces: int | None = None  # this many bytes, whatever it sends
        self.shifts = 0  # so many bytes behind the range that was asked for it begins
        self.stalls_at: int | None = None  # the file's bytes from here on are never sent, and the connection stays open
        self.slice_s = 0.0  # it waits so long after each slice
        self.seen: list[tuple[str, str | None]] = []
        self.served = (
            0  # bytes of bodies, counted before their replies begin: a client that has its reply finds them here
        )
        self.address = ""
        self.mutex = threading.Lock()

    def next_of(self, plans: list[int]) -> int | None:
        with self.mutex:
            return plans.pop(0) if plans else None

    def gets(self) -> list[str | None]:
        """Return the ranges that were asked for, in order."""
        return sorted((wanted for method, wanted in self.seen if method == "GET"), key=str)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site
    stalls = False

    def do_HEAD(self) -> None:
        if not self.site.heads:
            self.site.seen.append(("HEAD", None))
            self.send_error(405)
            return
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        site, wanted = self.site, self.headers["Range"]
        site.seen.append((self.command, wanted))
        if self.path.startswith("/old/"):
            self.send_response(302)
            self.send_header("Location", site.address)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if code := site.next_of(site.refuses):
            self.send_response(code)
            if site.retry_after:
                self.send_header("Retry-After", site.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = 0, len(site.body)
        ranged = bool(wanted and site.ranges)
        if wanted and ranged:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first) + site.shifts, min(int(last) + 1, stop)
            if start >= len(site.body):
                self.send_error(416)
                return
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(site.body)}")
        self.send_header("Content-Length", str(stop - start if site.announces is None else site.announces))
        if site.tag:
            self.send_header("ETag", site.tag)
        sent = self.plan(start, stop) if body else b""
        self.end_headers()
        self.send_body(sent)

    def plan(self, start: int, stop: int) -> bytes:
        """Return what will be sent of a range. It is settled before the reply begins, whose end nobody may wait for."""
        site = self.site
        broken = site.next_of(site.breaks_after)
        self.close_connection = broken is not None or site.announces is not None
        self.stalls = site.stalls_at is not None and site.stalls_at < stop
        end = max(start, site.stalls_at or 0) if self.stalls else stop
        sent = site.body[start : end if broken is None else min(start + broken, end)]
        with site.mutex:
            site.served += len(sent)
        return sent

    def send_body(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # of a client that gives up
            for start in range(0, len(data), SLICE):
                self.wfile.write(data[start : start + SLICE])
                time.sleep(self.site.slice_s)
            if self.stalls:
                self.rfile.read(1)  # nothing comes but the end

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def open_site(site: Site) -> Iterator[Site]:
    """Serve a site on the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"site": site}))
    server.handle_error = lambda request, client: None  # type: ignore[method-assign]  # of a client that is killed
    site.address = f"http://127.0.0.1:{server.server_port}/folder/words.tar?mirror=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
