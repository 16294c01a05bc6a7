"""A training process without a framework, whose steps are sums: `... fake_worker JOB PLAN`.

The file PLAN holds one line for each attempt: what it does, and after which step (`kill 3`, `hang 3`, `ValueError 3`,
`wait 3` until it is asked to stop, `run 0`); the last line is for all that follow. Its weight after step n is
1 + 2 + .. + n, from wherever it goes on.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.training.job import Job, read_job
from wordmill.training.loop import STOP
from wordmill.training.records import METRICS, Pulse
from wordmill.training.state import RunProgress, Scored, State, best_path, read_state, write_state

STEPS, EVERY, IMAGES = 8, 2, 16
AGE_S = 5400.0  # since it has written a line: an hour, however long a test takes
SILENT_S = 70.0  # when it hangs, from the start


def main(job: Job, plan: Path) -> None:
    what, after = told(plan)
    state = read_state(job.resume) if job.resume else None
    weight, done = (float(state.tensors["model/w"][0]), state.progress.step) if state else (0.0, 0)
    attempts = (*(state.progress.attempts if state else ()), {"step": done, "code": job.code})
    folder, pulse = job.folder / "checkpoints", Pulse(job.folder, 0)
    folder.mkdir(exist_ok=True)
    note(job, done, {"train/unfit_labels": 3})
    for step in range(done + 1, STEPS + 1):
        pulse.beat(step)
        weight += step
        note(job, step, {"train/loss": 1 / step, "val/accuracy": step / 10})
        stopped = (job.folder / STOP).exists()
        if step % EVERY == 0 or stopped:
            keep(job, folder, step, weight, attempts)
        if stopped:
            return
        if step == after:
            misbehave(job, what)
    for name in ("best.safetensors", "last.safetensors", "reference.npz"):
        (job.folder / name).write_bytes(f"{name} {weight}".encode())
    outcome = {
        "val_accuracy": 0.8,
        "images_per_s": 5.0,
        "weight": weight,
        "attempts": attempts,
        "best": [],
        "stopped_early": False,
    }
    (job.folder / "outcome.json").write_text(json.dumps(outcome))


def told(plan: Path) -> tuple[str, int]:
    """Take this attempt's line off the plan, the last one stays."""
    first, *others = plan.read_text().splitlines()
    if others:
        plan.write_text("\n".join(others))
    what, after = first.split()
    return what, int(after)


def note(job: Job, step: int, metrics: dict[str, float]) -> None:
    line = {"step": step, "steps": STEPS, "images": IMAGES * step, "time": time.time() - AGE_S, "metrics": metrics}
    with (job.folder / METRICS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def keep(job: Job, folder: Path, step: int, weight: float, attempts: tuple[dict[str, Any], ...]) -> None:
    best_path(folder, step).write_bytes(f"best of {step}".encode())
    tensors = {"model/w": np.array([weight], np.float32)}
    progress = RunProgress(step=step, best=(Scored(step=step, accuracy=0.5, loss=1.0),), attempts=attempts)
    state = State(tensors=tensors, progress=progress, processes=job.processes)
    write_state(folder, state, (job.folder / METRICS).read_bytes(), (job.data, job.model, job.train))


def misbehave(job: Job, what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        began = time.time() - SILENT_S
        os.utime(job.folder / "pulse.0", (began, began))
        threading.Event().wait()
    if what == "wait":
        (job.folder / "waits").touch()
        while not (job.folder / STOP).exists():
            time.sleep(0.01)
    if what in ("ValueError", "RuntimeError"):
        (job.folder / "failure.0.txt").write_text(f"{what} in process 0: for a test")
        sys.exit(1)


if __name__ == "__main__":
    main(read_job(Path(sys.argv[1])), Path(sys.argv[2]))
