"""Training runs in workers of their own, started as the train stage starts them and timed from outside."""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.data_samples import words, write_folder
from benchmarks.peers.loaders import create_lmdb
from components.train.launch import free_port, launch
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import fit_picture
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Recipe
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.index import Index, measure_labels
from wordmill.store.storage import Object
from wordmill.text.charset import charset_of
from wordmill.training.job import Job, write_job
from wordmill.training.records import METRICS, read_pulse

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.02
WARM = 3  # steps that are not timed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """The same rendered words as shards and as the peer's LMDB environment."""

    train: Path
    val: Path
    lmdb: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run was like: pictures a second, ms of processor time a picture, s to the first step, share of waiting."""

    rate: float
    cpu_ms: float
    start_s: float = 0.0
    wait: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """What a step takes, ms by the clock and of the processor: of the training loop, and bare."""

    loop_ms: float
    loop_cpu_ms: float
    bare_ms: float
    bare_cpu_ms: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beat:
    """The time by the clock and of the processors, s, when so many steps were seen done."""

    step: int
    wall_s: float
    cpu_s: float


def make_samples(recipe: Recipe, count: int, folder: Path) -> Samples:
    """Render words and write them in both forms; a part of them is the validation set."""
    made = words(count)
    listed = write_folder(folder / "files", made)
    create_lmdb(listed, folder / "lmdb")
    few = made[: max(1, count // 16)]
    return Samples(
        train=write_shard(recipe, made, folder / "train.shard"), val=write_shard(recipe, few, folder / "val.shard"),
        lmdb=folder / "lmdb",
    )  # fmt: skip


def write_shard(recipe: Recipe, samples: list[tuple[bytes, str]], path: Path) -> Path:
    """Write pictures as the recipe's shards have them, and return the path of the index."""
    data, index = recipe.data, path.with_suffix(".npz")
    shape = (data.height, data.width, data.channels)
    with ShardWriter(path, shape, len(samples)) as writer:
        for content, label in samples:
            writer.add(fit_picture(decode(content, data.channels), data), label)
    entry = Object(name=path.name, sha256="", bytes=path.stat().st_size)
    measured = measure_labels([label for _, label in samples], charset_of(data))
    Index.of_shard(entry, shape, None, writer.table, measured, writer.content).save(index)
    return index


def make_job(
    recipe: Recipe, framework: frameworks.Framework, processes: int, batch: int, samples: Samples, folder: Path
) -> Job:
    """Return the recipe's training of one epoch."""
    train = dataclasses.replace(
        recipe.train, framework=framework, epochs=1, global_batch=batch, warmup_epochs=0.0, validations_per_epoch=1
    )
    return Job(
        data=recipe.data, model=recipe.model, train=train, train_sets=(samples.train,), val_sets=(samples.val,),
        start=None, device="cpu", processes=processes, folder=folder,
    )  # fmt: skip


def run_job(job: Job) -> Ran:
    """Train by a job, each process with one thread and as many processors as there are processes."""
    path = job.folder / "job.json"
    write_job(path, job)
    command = launch(job.train.framework, job.device, job.processes, path)
    variables = frameworks.environment(job.train.framework, job.device, job.processes)
    with started(command, variables, job.processes, job.folder) as process:
        beats = list(followed(process, job.folder))
    check(process, job.folder)
    outcome = json.loads((job.folder / "outcome.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (job.folder / METRICS).read_text(encoding="utf-8").splitlines()]
    waits = [line["metrics"]["train/data_wait"] for line in lines if "train/data_wait" in line["metrics"]]
    return dataclasses.replace(
        ran(beats, job.train.global_batch), start_s=outcome["start_s"], wait=statistics.mean(waits)
    )


def run_peer(samples: Samples, batch: int, steps: int, folder: Path) -> Ran:
    """Train as the peer does, in one process with one thread on one processor."""
    command = [sys.executable, "-m", "benchmarks.peers.dtrb_training", str(samples.lmdb), str(batch), str(steps),
               str(folder)]  # fmt: skip
    with started(command, {}, 1, folder) as process:
        beats = list(followed(process, folder))
    check(process, folder)
    return ran(beats, batch)


def run_turns(job: Job) -> list[Turn]:
    """Let MindSpore's loop and its bare step take turns in one worker, which train_bare.py is."""
    path, output = job.folder / "job.json", job.folder / "turns.json"
    write_job(path, job)
    msrun = [str(Path(sys.executable).with_name("msrun")), "--worker_num=1", "--local_worker_num=1", "--join=True",
             f"--master_port={free_port()}", f"--log_dir={job.folder / 'msrun'}"]  # fmt: skip
    command = [*msrun, str(ROOT / "benchmarks" / "train_bare.py"), str(path), str(output)]
    with started(command, frameworks.environment("mindspore", job.device), 1, job.folder) as process:
        process.wait()
    check(process, job.folder)
    return [Turn(**turn) for turn in json.loads(output.read_text(encoding="utf-8"))]


@contextmanager
def started(command: list[str], variables: dict[str, str], processors: int, folder: Path) -> Iterator[psutil.Popen]:
    """Start a program with one thread on so many processors, its output in the folder's `log`."""
    chosen = sorted(os.sched_getaffinity(0))[:processors]
    if len(chosen) < processors:
        raise RuntimeError(f"this machine has {len(chosen)} processors, {processors} processes need one each")
    environment = os.environ | variables | {"OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log,
                               preexec_fn=lambda: os.sched_setaffinity(0, chosen))  # fmt: skip
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):  # workers die with their launcher
            process.kill()
        process.wait()


def followed(process: psutil.Popen, folder: Path) -> Iterator[Beat]:
    """Give every step that is seen done, until the program ends."""
    last = 0
    while process.poll() is None:
        pulse = read_pulse(folder, 0)
        if pulse and pulse[0] > last:
            last = pulse[0]
            yield Beat(step=last, wall_s=time.monotonic(), cpu_s=spent_s(process))
        time.sleep(POLL_S)


def spent_s(process: psutil.Popen) -> float:
    """Return the processor time of a program and its descendants so far."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                total += times.user + times.system
    return total


def ran(beats: list[Beat], batch: int) -> Ran:
    """Work out the speed from the first step that counts to the last."""
    timed = [beat for beat in beats if beat.step >= WARM]
    if len(timed) < 2:
        raise RuntimeError(f"only the steps {[beat.step for beat in beats]} were seen: more are needed to time them")
    first, last = timed[0], timed[-1]
    pictures = batch * (last.step - first.step)
    return Ran(rate=pictures / (last.wall_s - first.wall_s), cpu_ms=1000 * (last.cpu_s - first.cpu_s) / pictures)


def check(process: psutil.Popen, folder: Path) -> None:
    """Raise RuntimeError with the worker's own error, or the end of the log, where a program has failed."""
    if process.returncode == 0:
        return
    told = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("failure.*.txt"))]
    printed = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    raise RuntimeError(f"training ended with code {process.returncode}: " + "\n".join(told[:1] or printed))
