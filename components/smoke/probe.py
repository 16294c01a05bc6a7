"""Runs one exported file in its own runtime: `python -m components.smoke.probe JOB ANSWER LOGITS`.

A process of its own, because a broken file may end its runtime with a signal, and two frameworks in one
process share thread pools and settings.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.recognition import frameworks
from components.recognition.artifacts import write_atomically
from components.recognition.image import normalise

Runtime = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

MEASURE_S = 1.0  # how long each of the two speeds is measured
WARM_UP = 3
THROUGHPUT_BATCH = 64


def open_onnx(path: Path) -> tuple[Runtime, str]:
    """Open an ONNX file in ONNX Runtime on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def call(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {"images": images})[0])

    return call, f"onnxruntime {onnxruntime.__version__}, {session.get_providers()[0]}"


def open_mindir(path: Path) -> tuple[Runtime, str]:
    """Open a MindIR file in MindSpore on the processor."""
    runtime = frameworks.twin("mindspore", "runtime").MindirRuntime(path)
    return runtime, runtime.name


RUNTIMES: dict[str, Callable[[Path], tuple[Runtime, str]]] = {"onnx": open_onnx, "mindir": open_mindir}


def median_s(call: Callable[[], object]) -> float:
    """Return the median duration of a call, repeated for `MEASURE_S` after a warm-up."""
    for _ in range(WARM_UP):
        call()
    durations: list[float] = []
    end = time.monotonic() + MEASURE_S
    while time.monotonic() < end:
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def probe(export_format: str, file: Path, reference: Path, middle: float, logits: Path) -> dict[str, Any]:
    """Predict the reference images, save their logits and measure latency and throughput."""
    with np.load(reference, allow_pickle=False) as arrays:
        images = normalise(arrays["images"], middle)
    runtime, name = RUNTIMES[export_format](file)
    np.save(logits, runtime(images), allow_pickle=False)
    many = np.resize(images, (THROUGHPUT_BATCH, *images.shape[1:]))
    return {
        "runtime": name,
        "latency_ms_batch1": 1e3 * median_s(lambda: runtime(images[:1])),
        "images_per_s_batch64": THROUGHPUT_BATCH / median_s(lambda: runtime(many)),
    }


def main(job: Path, answer: Path, logits: Path) -> None:
    """Probe the file that the job names; the answer holds the findings, or the runtime's error."""
    told = json.loads(job.read_text(encoding="utf-8"))
    try:
        found = probe(told["format"], Path(told["file"]), Path(told["reference"]), told["middle"], logits)
    except Exception as error:  # runtimes raise types of their own; whichever it is, the file does not run
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    write_atomically(answer, json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
