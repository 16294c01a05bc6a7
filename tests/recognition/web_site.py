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
        self.slice_s = 0.0  # it waits so long after each slice
        self.seen: list[tuple[str, str | None]] = []
        self.served = 0  # bytes of bodies
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
        self.end_headers()
        if body:
            self.send_body(site.body[start:stop])

    def send_body(self, data: bytes) -> None:
        broken = self.site.next_of(self.site.breaks_after)
        self.close_connection = broken is not None or self.site.announces is not None
        with contextlib.suppress(ConnectionError):  # of a client that gives up
            for start in range(0, len(data) if broken is None else min(broken, len(data)), SLICE):
                part = data[start : start + SLICE] if broken is None else data[start : min(start + SLICE, broken)]
                self.wfile.write(part)
                with self.site.mutex:
                    self.site.served += len(part)
                time.sleep(self.site.slice_s)

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
