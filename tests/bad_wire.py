"""A bad wire in front of an HTTP server: it drops, delays, cuts off and repeats, as drawn from a seed."""

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DELAY_S = 0.2
PIECE = 1 << 16
FATES = ("lost request", "lost answer", "delayed", "cut off", "repeated answer", "repeated request", "bad gateway")


class BadWire(ThreadingHTTPServer):
    """Passes requests on to a server, each whose path contains `only` with the next fate, "" for none."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, url: str, fates: Iterator[str], only: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.fates, self.only = urlsplit(url), fates, only
        self.lock, self.met = threading.Lock(), Counter[str]()

    @property
    def url(self) -> str:
        """The address of this end of the wire."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fate(self, path: str) -> str:
        """Return what becomes of a request."""
        with self.lock:
            fate = next(self.fates, "") if self.only in path else ""
            self.met[fate] += 1
            return fate

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that have gone."""


def drawn(seed: int, every: int) -> Iterator[str]:
    """Draw fates without end, one in `every` requests."""
    draw = random.Random(seed)
    while True:
        yield draw.choice(FATES) if draw.randrange(every) == 0 else ""


@contextmanager
def bad_wire(url: str, fates: Iterator[str], only: str = "") -> Iterator[BadWire]:
    """Serve a bad wire to a server's address for as long as the context lasts."""
    with BadWire(url, fates, only) as wire:
        thread = threading.Thread(target=wire.serve_forever, daemon=True)
        thread.start()
        yield wire
        wire.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: BadWire
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(PIECE)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self._body()
        fate = self.server.fate(self.path)
        if fate == "lost request":
            self.close_connection = True
            return
        if fate == "delayed":
            threading.Event().wait(DELAY_S)
        if fate == "bad gateway":
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        if fate == "repeated request":
            self._ask(body)
        answer = self._ask(body)
        if fate in ("lost answer", "cut off"):
            self.close_connection = True
            answer = answer[: len(answer) // 2] if fate == "cut off" else b""
        with suppress(OSError):
            self.wfile.write(answer * (2 if fate == "repeated answer" else 1))

    def parse_request(self) -> bool:
        whole = super().parse_request()
        return whole and hasattr(self, "headers")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _ask(self, body: bytes) -> bytes:
        """Return the server's whole answer, as bytes on the wire."""
        target = self.server.target
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "expect"):
                    connection.putheader(name, value)
            if body or self.command in ("PUT", "POST", "PATCH"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            kept = [f"{name}: {value}" for name, value in answer.getheaders()
                    if name.lower() not in ("transfer-encoding", "content-length", "connection")]  # fmt: skip
            size = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            if answer.status not in (204, 304):
                kept.append(f"Content-Length: {size}")
            head = "\r\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *kept])
            return f"{head}\r\n\r\n".encode("latin-1") + content
        finally:
            connection.close()
