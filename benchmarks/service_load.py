"""The HTTP service under clients that behave badly, too many of them, and for long.

python -m benchmarks.service_load [--seconds 3600] [--recipe NAME] [--curve FILE] [--json]

Memory is watched while clients send what clients send: pictures, forms, JSON, what is no picture, bombs, half requests,
requests that they do not wait for. Then answers are timed: of 64 clients, of 1,000 at once, and of one while 1,000
connections have sent one byte of a picture and stopped; those are still there when the service is told to end.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import random
import resource
import statistics
import struct
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import psutil

from benchmarks.files import crops, write_file
from benchmarks.models import NO_PEER, RECIPES, Row, table
from benchmarks.serve import post_of, served
from wordmill.recipe.arguments import seconds
from wordmill.recipe.loading import load_recipe

CLIENTS, CROWD = 16, 1000  # of the random load, of the overload
ROUND_S = 20.0
EVERY_S = RETRY_S = 1.0
FLAT, WAIT_S, END_S = 1.05, 2.0, 5.0  # goals: of memory, of an answer's 99th percentile, of the end
STALLED = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nx"


@dataclass
class Answers:
    """How many seconds answers took, by status."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, seconds: float) -> None:
        """Add an answer."""
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: int) -> int:
        """Return how many had this status."""
        return len(self.seconds.get(status, []))

    def percentile(self, status: int, share: float) -> float:
        """Return the seconds within which this share of the answers with a status came; 0 where there are none."""
        found = sorted(self.seconds.get(status, [0.0]))
        return found[int(share * (len(found) - 1))]


class Caller:
    """A client with one connection, made anew where it has been closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, float]:
        """Send a request; return status and seconds until the whole answer is there."""
        started = time.perf_counter()
        if self.streams is None or self.streams[0].at_eof():
            self.close()
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        return int(head[9:12]), time.perf_counter() - started

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.streams:
            self.streams[1].close()
        self.streams = None


def request_of(kind: str, body: bytes) -> bytes:
    """Return a request with a body of a content type."""
    head = f"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def bomb(width: int, height: int, size: int) -> bytes:
    """Return a PNG that says so large and unpacks to so many bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(size))), (b"IEND", b""))
    chunks = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
              for kind, body in parts]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class RandomClient:
    """Sends one thing or another, as drawn."""

    def __init__(self, port: int, pictures: list[bytes], bombs: list[bytes], seed: int) -> None:
        self.port, self.pictures, self.bombs, self.draw = port, pictures, bombs, random.Random(seed)

    def request(self) -> bytes:
        """Return a whole request, a good one or not."""
        some = self.draw.choices(self.pictures, k=self.draw.randint(1, 16))
        kind = self.draw.randrange(6)
        if kind == 0:
            parts = [b'--e\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + one for one in some]
            return request_of("multipart/form-data; boundary=e", b"\r\n".join([*parts, b"--e--\r\n"]))
        if kind == 1:
            packed = {"images": [base64.b64encode(one).decode() for one in some]}
            return request_of("application/json", json.dumps(packed).encode())
        if kind == 2:
            return request_of("image/png", self.draw.randbytes(self.draw.randint(0, 100_000)))
        if kind == 3:
            return request_of("image/png", self.draw.choice(self.bombs))
        return post_of(some[0])

    async def act(self) -> None:
        """Send a request and wait for its answer, or half of one and go, or one without waiting."""
        request, how = self.request(), self.draw.randrange(10)
        if how > 1:
            caller = Caller(self.port)
            try:
                await caller.ask(request)
            finally:
                caller.close()
            return
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request[: self.draw.randrange(len(request))] if how else request)
        await writer.drain()
        writer.close()

    async def run(self, end: float) -> None:
        """Go on until the end."""
        while time.monotonic() < end:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.act()


async def watch(process: psutil.Process, end: float) -> list[float]:
    """Return the service's memory in MiB, every second."""
    found = []
    while time.monotonic() < end:
        found.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(EVERY_S)
    return found


async def wear(process: psutil.Process, port: int, pictures: list[bytes], seconds: float) -> list[float]:
    """Let random clients wear the service; return its memory in MiB, every second."""
    bombs, end = [bomb(20_000, 20_000, 1 << 20), bomb(100, 32, 256 << 20)], time.monotonic() + seconds
    clients = [RandomClient(port, pictures, bombs, seed).run(end) for seed in range(CLIENTS)]
    found, *_ = await asyncio.gather(watch(process, end), *clients)
    return list(found or [])


async def crowd(count: int, port: int, posts: list[bytes], seconds: float) -> Answers:
    """Let so many clients post picture after picture, who come again when they are told to; time all answers."""
    answers, end = Answers(), time.monotonic() + seconds

    async def post(number: int) -> None:
        caller = Caller(port)
        while time.monotonic() < end:
            try:
                status, took = await caller.ask(posts[number % len(posts)])
            except (OSError, asyncio.IncompleteReadError):
                caller.close()
                continue
            answers.add(status, took)
            await asyncio.sleep(RETRY_S if status == 503 else 0)
        caller.close()

    await asyncio.gather(*map(post, range(count)))
    return answers


async def stalled(count: int, port: int) -> list[asyncio.StreamWriter]:
    """Return connections that have sent one byte of a picture."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STALLED)
        writers.append(writer)
    return writers


async def measure(process: psutil.Process, port: int, seconds: float) -> tuple[list[float], dict[str, Answers], float]:
    """Return memory in MiB every second, answers by the clients' name, and how many seconds the end took."""
    pictures = [cv2.imencode(".png", picture)[1].tobytes() for picture in crops(64)]
    posts = [post_of(picture) for picture in pictures]
    answers = {"64 clients": await crowd(64, port, posts, ROUND_S)}
    memory = await wear(process, port, pictures, seconds)
    answers[f"{CROWD} clients"] = await crowd(CROWD, port, posts, ROUND_S)
    answers["1 client"] = await crowd(1, port, posts, ROUND_S / 2)
    held = await stalled(CROWD, port)
    answers[f"1 client beside {CROWD} stalled"] = await crowd(1, port, posts, ROUND_S / 2)
    started = time.monotonic()
    process.terminate()
    await asyncio.get_running_loop().run_in_executor(None, process.wait)
    ended = time.monotonic() - started
    for writer in held:
        writer.close()
    return memory, answers, ended


def rows_of(memory: list[float], answers: dict[str, Answers], ended: float) -> list[Row]:
    """Make the table's lines."""

    def row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
        met = None if goal is None else value <= goal
        return {"name": name, "value": round(value, 3), "unit": unit, **NO_PEER, "goal": goal, "met": met}

    fifth = max(1, len(memory) // 5)
    early, late = statistics.median(memory[fifth : 2 * fifth] or memory), statistics.median(memory[-fifth:])
    rows = [
        row("memory, the second fifth of the time", early, "MiB"),
        row("memory, its last fifth", late, "MiB"),
        row("the one by the other", late / early, "", FLAT),
        row("the most at any time", max(memory), "MiB"),
    ]
    for clients, found in answers.items():
        for status in (200, 503):
            if found.count(status) or status == 200:
                rows += [
                    row(f"{clients}, answers with {status}", found.count(status), ""),
                    row(f"{clients}, {status}, p50", found.percentile(status, 0.5), "s"),
                    row(f"{clients}, {status}, p99", found.percentile(status, 0.99), "s", WAIT_S),
                ]
    return [*rows, row(f"end by SIGTERM beside {CROWD} stalled", ended, "s", END_S)]


def main() -> None:
    """Measure, and print the table or its rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_load", description=__doc__)
    parser.add_argument("--seconds", type=seconds, default=3600.0, help="of random load")
    parser.add_argument("--recipe", default="quickstart", metavar="NAME")
    parser.add_argument("--curve", type=Path, help="file for the memory in MiB, a line a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    with tempfile.TemporaryDirectory() as folder:
        write_file(load_recipe(RECIPES / f"{options.recipe}.yaml"), "onnx", Path(folder))
        with served(Path(folder)) as (process, port):
            memory, answers, ended = asyncio.run(measure(process, port, options.seconds))
    if options.curve:
        options.curve.write_text("".join(f"{value:.1f}\n" for value in memory), encoding="utf-8")
    rows = rows_of(memory, answers, ended)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
