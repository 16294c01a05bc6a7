"""The stages as a pipeline runs them, each in a process of its own, on an S3 server of this measurement's."""

import json
import os
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from wordmill.shards.sets import ShardSet, open_dataset
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.storage import Store

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.05
START_S = 30.0
NAME = "words"  # of the data set


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a stage left and took: its manifest, seconds by the clock and of processors, its processes' peak memory."""

    manifest: Path
    wall_s: float
    cpu_s: float
    memory_mb: float


@contextmanager
def storage(folder: Path) -> Iterator[Store]:
    """Start an S3 server and lead the stages to it by the environment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
                   "AWS_DEFAULT_REGION": "us-east-1", "WORDMILL_BUCKET": "benchmark",
                   "WORDMILL_CACHE": str(folder / "cache")}  # fmt: skip
    (folder / "s3" / "benchmark").mkdir(parents=True)
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", address, str(folder / "s3")]
    variables = {"RCLONE_AUTH_KEY": f'"{key},{secret}"', "RCLONE_CONFIG": os.devnull}
    with (folder / "rclone.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
    try:
        wait_for(address)
        yield Store.from_environment()
    finally:
        server.terminate()
        server.wait(10)


def wait_for(address: str) -> None:
    """Wait until a server takes connections; RuntimeError where it does not."""
    host, port = address.split(":")
    for _ in range(int(START_S / POLL_S)):
        with socket.socket() as client:
            if client.connect_ex((host, int(port))) == 0:
                return
        time.sleep(POLL_S)
    raise RuntimeError(f"the S3 server at {address} does not answer after {START_S:.0f} s")


def run_stage(stage: str, folder: Path, **arguments: str) -> Ran:
    """Run a stage by its command line; RuntimeError where it fails."""
    output = folder / f"{stage}-{secrets.token_hex(4)}.json"
    command = [sys.executable, "-m", f"components.{stage}", "--run-tag", "benchmark", "--output", str(output)]
    command += [part for key, value in arguments.items() for part in (f"--{key}", value)]
    start, before = time.monotonic(), children_s()
    process, peak = psutil.Popen(command, cwd=ROOT, stdout=sys.stderr), 0
    while process.poll() is None:
        peak = max(peak, memory_bytes(process))
        time.sleep(POLL_S)
    if process.returncode:
        raise RuntimeError(f"the stage {stage} ended with code {process.returncode}")
    wall_s, cpu_s = time.monotonic() - start, children_s() - before
    return Ran(manifest=output, wall_s=wall_s, cpu_s=cpu_s, memory_mb=peak / 2**20)


def children_s() -> float:
    """Return the processor time of the processes that this one has started and waited for, and of theirs, s."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_bytes(process: psutil.Process) -> int:
    """Return the memory of a process and its descendants; what they share counts for each."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    return total


def fetched(folder: Path, **entry: Any) -> Ran:
    """Run the fetch stage on one data set."""
    return run_stage("fetch", folder, sources=json.dumps({NAME: {"licence": "none", **entry}}))


def section(channels: int, **fields: Any) -> str:
    """Return a recipe's data section: MJSynth's words stretched to 32x100."""
    data = {"train": [NAME], "val": [], "charset": "lower36", "height": 32, "width": 100, "channels": channels}
    return json.dumps(data | fields)


def sharded(folder: Path, source: Path, data: str) -> Ran:
    """Run the shard stage on what was fetched."""
    return run_stage("shard", folder, data=data, sources=str(source))


def opened(store: Store, ran: Ran) -> ShardSet:
    """Open the data set that the shard stage made."""
    combined: Manifest = read_manifest(ran.manifest)
    return open_dataset(store, combined, NAME)
