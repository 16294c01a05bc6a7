"""Runs exported files in their own runtime: `python -m components.smoke.probe JOB ANSWER OUTPUTS`.

A process of its own, because a broken file may end its runtime with a signal or never end, and two frameworks in one
process share thread pools and settings.
"""

import functools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from components.smoke.job import ProbeJob
from wordmill.inference.batches import Array, Call, in_batches
from wordmill.inference.card import prepared
from wordmill.inference.runtimes import MissingRuntimeError, batches_of, open_file
from wordmill.store.files import write_atomically

THROUGHPUT_BATCHES = (16, 64)
TRIED = (1, *THROUGHPUT_BATCHES)  # sizes of batches that a file is tried with which takes any


def probe(job: ProbeJob, outputs: Path) -> dict[str, Any]:
    """Run the reference images through every file in each size of batch, save what comes out, and measure.

    Memory is what the process took at most above what it had before it loaded the runtime.
    """
    with np.load(job.reference, allow_pickle=False) as arrays:
        images = prepared(arrays["images"], job.card)
    before = psutil.Process().memory_info().rss
    calls, name = open_files(job)
    read = {size: in_batches(call, size, images) for size, call in calls.items()}
    save_outputs(read, job.outputs, outputs)
    found = {"runtime": name, **speeds(calls, images, job.measure_s), "memory_bytes": peak_bytes() - before}
    return found | ({"pair_texts": read_by_pair(job)} if "beam" in job.card else {})


def read_by_pair(job: ProbeJob) -> list[str]:
    """Return what the encoder and the decoder beside the files read of the reference images, step by step."""
    from wordmill.inference.packaged.pair import PairReader  # ONNX Runtime, which not every format's image has

    with np.load(job.reference, allow_pickle=False) as arrays:
        return PairReader(Path(job.files[0]).parent, job.card).read_greedily(arrays["images"])[0]


def open_files(job: ProbeJob) -> tuple[dict[int, Call], str]:
    """Open each file once; return what to call by size of batch, and the runtime's name."""
    calls: dict[int, Call] = {}
    name = ""
    for path in map(Path, job.files):
        call, name = open_file(job.format, path, job.card)
        calls |= dict.fromkeys(batches_of(job.card, path.name) or TRIED, call)
    return calls, name


def save_outputs(read: dict[int, list[Array]], names: list[str], path: Path) -> None:
    """Write the outputs of each size of batch as `<size>.<name>`."""
    found: dict[str, Array] = {}
    for size, arrays in read.items():
        if len(arrays) != len(names):
            raise ValueError(f"the file has {len(arrays)} outputs, its card names {len(names)}: {', '.join(names)}")
        found |= {f"{size}.{name}": array for name, array in zip(names, arrays, strict=True)}
    np.savez(path, **found)


def speeds(calls: dict[int, Call], images: Array, measure_s: float) -> dict[str, float]:
    """Return latency in ms at batch 1, median and 99th percentile, and images/s in larger batches."""
    one = durations(functools.partial(read_together, calls, images[:1]), measure_s)
    found = {"latency_ms_batch1": 1e3 * statistics.median(one),
             "latency_p99_ms_batch1": 1e3 * float(np.quantile(one, 0.99))}  # fmt: skip
    for batch in THROUGHPUT_BATCHES:
        many = np.resize(images, (batch, *images.shape[1:]))
        taken = durations(functools.partial(read_together, calls, many), measure_s)
        found[f"images_per_s_batch{batch}"] = batch / statistics.median(taken)
    return found


def read_together(calls: dict[int, Call], images: Array) -> list[Array]:
    """Read images by the file of the smallest batch that holds them all, or of the largest there is."""
    size = min((size for size in calls if size >= len(images)), default=max(calls))
    return in_batches(calls[size], size, images)


def durations(call: Callable[[], object], measure_s: float) -> list[float]:
    """Return the durations in s of a call, which is warm already, once at least and for so long."""
    measured: list[float] = []
    end = time.monotonic() + measure_s
    while not measured or time.monotonic() < end:
        started = time.perf_counter()
        call()
        measured.append(time.perf_counter() - started)
    return measured


def peak_bytes() -> int:
    """Return the most memory that this process has had at a time; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kilobytes] = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return 1024 * int(kilobytes)


def main(job: Path, answer: Path, outputs: Path) -> None:
    """Probe the files that the job names; the answer holds the findings, what is missing here, or the error."""
    try:
        found = probe(ProbeJob(**json.loads(job.read_text(encoding="utf-8"))), outputs)
    except MissingRuntimeError as error:
        found = {"missing": str(error)}
    except Exception as error:  # runtimes raise types of their own; whichever it is, the file does not run
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    write_atomically(answer, json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
