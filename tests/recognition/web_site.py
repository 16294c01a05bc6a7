"""A web server for tests that breaks, refuses and changes its file as it is told."""

import contextlib
import os
from http.server import BaseHTTPRequestHandler
from typing import Any

BODY = os.urandom(3 << 20)


class Site:
    """What a web server does: its file, how it treats requests, and which requests it has seen."""

    def __init__(self) -> None:
        self.body = BODY
        self.tag = '"v1"'
        self.breaks_after: list[int] = []  # of the next replies' bodies, so many bytes are sent
        self.refuses: list[int] = []  # the next requests meet these codes
        self.ranges = True
        self.seen: list[tuple[str, str | None]] = []
        self.address = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self.answer(self.site.body, body=False)

    def do_GET(self) -> None:
        self.answer(self.site.body, body=True)

    def answer(self, data: bytes, body: bool) -> None:
        wanted = self.headers["Range"]
        self.site.seen.append((self.command, wanted))
        if self.site.refuses:
            self.send_error(self.site.refuses.pop(0))
            return
        start = 0
        if wanted and self.site.ranges and self.headers["If-Range"] in (None, self.site.tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if self.site.tag:
            self.send_header("ETag", self.site.tag)
        self.end_headers()
        if body:
            stop = start + self.site.breaks_after.pop(0) if self.site.breaks_after else len(data)
            with contextlib.suppress(ConnectionError):  # of a client that gives up
                self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: Any) -> None:
        pass
