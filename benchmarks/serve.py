"""The HTTP service against ONNX Runtime alone, which runs the same file on batches of 64 that lie ready.

python -m benchmarks.serve [--recipes NAME...] [--json]

One client or 64 at a time post a PNG each and wait for its text. By processor time, user and system, only the service
counts: other work on the machine, the clients too, disturbs it less than it does the clock. A ratio is the peer's time
by ours: above 1, ours is faster.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.files import crops, write_file
from benchmarks.models import NO_PEER, RECIPES, Row, table
from components.train.launch import free_port
from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.pictures.image import fit_picture, normalise
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe

ROOT = Path(__file__).resolve().parents[1]
BATCH = 64
ROUNDS, ROUND_S = 3, 2.0
START_S = 60.0
GOAL = 0.85  # of the runtime's speed
PEER = "ONNX Runtime"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Start the service and yield its process and port once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "components.serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                yield psutil.Process(process.pid), port
                return
            time.sleep(0.1)
        raise RuntimeError("the service does not start")
    finally:
        process.terminate()
        process.wait()


async def client(port: int, posts: list[bytes], first: int, end: float, times: list[float]) -> None:
    """Post pictures over one connection until the end, and note how many seconds each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.monotonic() < end:
        started = time.perf_counter()
        writer.write(posts[number % len(posts)])
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
        number += 1
    writer.close()


async def clients(count: int, port: int, posts: list[bytes], seconds: float) -> list[float]:
    """Let so many clients post for so long; return the seconds that each answer took."""
    times: list[float] = []
    end = time.monotonic() + seconds
    await asyncio.gather(*(client(port, posts, first, end, times) for first in range(count)))
    return times


def post_of(png: bytes) -> bytes:
    """Return the request of one picture."""
    head = f"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(png)}\r\n\r\n"
    return head.encode() + png


def timed(run: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """Repeat for so long; return (processor, clock) seconds of each run."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        cpu, clock = time.process_time(), time.perf_counter()
        run()
        times.append((time.process_time() - cpu, time.perf_counter() - clock))
    return times


def measure(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Let runtime and service take turns; medians over the rounds, in milliseconds."""
    model = write_file(recipe, "onnx", folder)
    pictures = crops(BATCH)
    posts = [post_of(cv2.imencode(".png", picture)[1].tobytes()) for picture in pictures]
    batch = normalise(np.stack([fit_picture(picture, recipe.data) for picture in pictures]), recipe.data.middle)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as in the service: it is time, no work
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    rounds: list[dict[str, float]] = []
    with served(folder) as (process, port):
        for _ in range(ROUNDS + 1):  # the first warms up
            runs = timed(lambda: session.run(["logits"], {"images": batch}), ROUND_S)
            alone = timed(lambda: session.run(["logits"], {"images": batch[:1]}), ROUND_S / 2)
            before, started = sum(process.cpu_times()[:2]), time.monotonic()
            answers = asyncio.run(clients(BATCH, port, posts, ROUND_S))
            spent, passed = sum(process.cpu_times()[:2]) - before, time.monotonic() - started
            single = sorted(asyncio.run(clients(1, port, posts, ROUND_S / 2)))
            rounds.append({
                "bare cpu": 1000 * sum(cpu for cpu, _ in runs) / len(runs) / BATCH,
                "bare clock": 1000 * sum(clock for _, clock in runs) / len(runs) / BATCH,
                "bare one": 1000 * statistics.median(clock for _, clock in alone),
                "cpu": 1000 * spent / len(answers),
                "clock": 1000 * passed / len(answers),
                "one": 1000 * statistics.median(single),
                "one p99": 1000 * single[int(0.99 * (len(single) - 1))],
            })  # fmt: skip
    return {key: statistics.median(row[key] for row in rounds[1:]) for key in rounds[0]}


def rows_of(name: str, found: dict[str, float]) -> list[Row]:
    """Make the table's lines of one recogniser."""

    def row(what: str, key: str, unit: str, peer: str = "", goal: float | None = None) -> Row:
        line: Row = {"name": f"{name}, {what}", "value": round(found[key], 3), "unit": unit, **NO_PEER}
        if peer:
            ratio = found[peer] / found[key]
            line |= {"peer": PEER, "ratio": round(ratio, 2), "goal": goal, "met": ratio >= goal if goal else None}
        return line

    return [
        row(f"{PEER} x{BATCH}", "bare cpu", "ms CPU/picture"),
        row(f"service, {BATCH} clients", "cpu", "ms CPU/picture", "bare cpu", GOAL),
        row(f"service, {BATCH} clients", "clock", "ms/picture", "bare clock"),
        row(f"{PEER} x1", "bare one", "ms"),
        row("service, 1 client, median", "one", "ms", "bare one"),
        row("service, 1 client, p99", "one p99", "ms"),
    ]


def main() -> None:
    """Measure, and print the table or its rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["quickstart", "crnn_vgg7", "crnn_r34"], metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.recipes:
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(name, measure(load_recipe(RECIPES / f"{name}.yaml"), Path(folder)))
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
