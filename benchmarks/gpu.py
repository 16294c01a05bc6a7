"""What a GPU makes of the recognisers, in one script of at most 12 minutes.

python -m benchmarks.gpu [--peak-tflops 989] [--minutes 5] [--dry] [--json]

For each recogniser: training steps of its recipe on a batch that lies ready, pictures a second and the share of the
card's bfloat16 peak (989 TFLOP/s: an H100's or H200's by its data sheet), whether a step waits for the device, and how
far the same weights' logits on CUDA and on a CPU are apart. Then a small recogniser learns from streamed pictures by
the worker of the train stage, which is killed half-way and goes on. --dry does every line of it on a CPU, at tiny size.
It needs PyTorch for CUDA, NumPy, OpenCV, Pillow, lmdb, xxhash, safetensors and PyYAML: no kfp, MLflow or MindSpore.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.contender import made_pictures
from benchmarks.data_rows import alone, print_rows
from benchmarks.models import Row
from components.train.launch import launch
from pipelines.building import FOLDER, recipe_path
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.pictures.image import fit_picture
from wordmill.recipe.arguments import minutes
from wordmill.recipe.catalogue import load_catalogue
from wordmill.recipe.frameworks import environment, twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.synth.renderer import SynthSpec, render
from wordmill.text.decoding import codec_of
from wordmill.training.job import Job, write_job
from wordmill.training.loop import LAG, STOP
from wordmill.training.state import read_state, records
from wordmill.training.stream import training_stream
from wordmill.training.trainer import STATISTICS

BATCHES = {"crnn_r34": 512, "rare_r34": 512, "svtr_tiny": 512}  # pictures of a step
SMALL = "small"
SMALL_BATCH, EPOCHS, MEASURED = 256, 1000, 500
WARM, STEPS = 3, 30
LOGITS = 1e-3  # what exported files may differ by too
POLL_S, CHECKPOINT_S = 0.2, 10.0
FAILED = "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done, and on which device."""

    device: str
    peak_tflops: float
    steps: int
    most: int  # pictures of a step, at most
    seconds: float  # of training
    patience_s: float = 60.0  # a worker that takes longer to begin, or to end, hangs


def speed(name: str, size: Size) -> list[Row]:
    """Train on one batch again and again; return the speed, the share of the peak, and whether a step waits."""
    recipe, batch = bare(name), min(BATCHES[name], size.most)
    trainer = ours.pytorch_trainer(ours.make_job(recipe, batch, size.device, Path(tempfile.mkdtemp())))
    parts, rate, begun = next(training_stream(trainer.context)), recipe.train.lr, deque[Any]()
    for number in range(1, WARM + 1):
        trainer.result(trainer.step(number, parts, rate, (False, False)))
    began = time.monotonic()
    for number in range(WARM + 1, WARM + size.steps + 1):
        begun.append(trainer.step(number, parts, rate, (False, False)))
        if len(begun) > LAG:
            trainer.result(begun.popleft())
    losses = [trainer.result(handle).loss for handle in begun]
    pictures = size.steps * batch / (time.monotonic() - began)
    share = ours.BACKWARD * ours.count_flops(recipe) * pictures / (size.peak_tflops * 1e12)
    label = f"{name} x{batch}, training"
    return [
        alone(label, pictures, "pictures/s"),
        alone(label, 100 * share, "% of bf16 peak"),
        alone(f"{label}, step that waits", float(waits(trainer, parts, size.device)), "steps", 0.0),
        alone(f"{label}, last loss is finite", float(np.isfinite(losses).all()), "yes"),
    ]


def bare(name: str) -> Recipe:
    """Return a recipe in PyTorch whose pictures lie ready, unchanged."""
    changes = ("train.framework=pytorch", "train.augment=none", "data.stored=decoded", "train.start_from=''")
    return load_recipe(recipe_path(name), changes)


def waits(trainer: Any, parts: Any, device: str) -> bool:
    """Tell whether beginning a step waits for the device, which PyTorch says on CUDA alone."""
    try:
        with forbidden(device):
            handle = trainer.step(1, parts, 0.0, (False, False))
    except RuntimeError as error:
        print(f"a step waits: {error}")
        return True
    trainer.result(handle)
    return False


@contextmanager
def forbidden(device: str) -> Iterator[None]:
    """Let whatever waits for the device raise RuntimeError."""
    import torch

    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def logits(name: str, size: Size) -> list[Row]:
    """Return how far the logits of a recogniser with fresh weights are apart on the device and on a CPU."""
    recipe, images = bare(name), made_pictures(bare(name), 4)
    model, predict = twin("pytorch", "models.model"), twin("pytorch", "models.predict")
    net = model.build(recipe.model, recipe.data, codec_of(recipe.model, recipe.data).classes)
    tensors = twin("pytorch", "models.weights").dump(net)
    checkpoint = Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=0)
    one, other = (predict.Predictor(checkpoint, device)(images) for device in (size.device, "cpu"))
    return [alone(f"{name}, logits on {size.device} and cpu", float(np.abs(one - other).max()), "apart", LOGITS)]


def train_small(size: Size, folder: Path) -> list[Row]:
    """Train on streamed pictures by the stage's worker, which is killed half-way; return what came of it."""
    job = small_job(size, folder)
    first = follow(job, size, kill=True)
    resumed = records(folder / "checkpoints")[0]
    second = follow(dataclasses.replace(job, resume=resumed), size, kill=False)
    state = read_state(records(folder / "checkpoints")[0])
    step, kept = state.progress.step, read_state(resumed).progress.step if resumed.is_file() else first
    label = f"{SMALL} x{job.train.global_batch}, streamed"
    return [
        alone(label, step * job.train.global_batch / state.progress.seconds, "pictures/s"),
        alone(f"{label}, killed at step", float(first), "steps"),
        alone(f"{label}, went on from step", float(state.progress.attempts[-1]["step"]), "steps"),
        alone(f"{label}, steps in all", float(max(second, step, kept)), "steps"),
        alone(f"{label}, reads of rendered_easy", 100 * accuracy(state.tensors, job, size.device), "%"),
    ]


def small_job(size: Size, folder: Path) -> Job:
    """Return a training that ends when it is told to."""
    changes = ("train.framework=pytorch", "data.streamed=true", "data.limit=0", "train.schedule=constant",
               "train.min_lr=0.0", "train.validations_per_epoch=1")  # fmt: skip
    recipe = load_recipe(recipe_path(SMALL), changes)
    batch = min(SMALL_BATCH, size.most)
    train = dataclasses.replace(
        recipe.train, epochs=EPOCHS, global_batch=batch, checkpoint_minutes=min(CHECKPOINT_S, size.seconds / 8) / 60
    )
    val = ours.make_job(recipe, 8, size.device, folder).val_sets
    return Job(data=recipe.data, model=recipe.model, train=train, train_sets=(), val_sets=val, start=None,
               device=size.device, processes=1, folder=folder,
               rendered=load_catalogue([FOLDER / "datasets.yaml"])[recipe.data.train[0]].source)  # fmt: skip


def follow(job: Job, size: Size, kill: bool) -> int:
    """Run a worker for half of the time and a checkpoint at least, then kill or stop it; return the last step kept."""
    path, checkpoints = job.folder / "job.json", job.folder / "checkpoints"
    write_job(path, job)
    (job.folder / STOP).unlink(missing_ok=True)
    before = records(checkpoints) if checkpoints.is_dir() else []
    command, variables = launch("pytorch", job.device, 1, path), environment("pytorch", job.device)
    end = time.monotonic() + size.seconds / 2
    with subprocess.Popen(command, env=os.environ | variables) as worker:
        while time.monotonic() < end or not (checkpoints.is_dir() and records(checkpoints) != before):
            if worker.poll() is not None or time.monotonic() > end + size.patience_s:
                worker.kill()
                raise RuntimeError(f"the worker ended with code {worker.wait()}, or wrote no checkpoint: see above")
            time.sleep(POLL_S)
        if kill:
            worker.send_signal(signal.SIGKILL)
        else:
            (job.folder / STOP).touch()
        worker.wait(size.patience_s)
    return int(records(checkpoints)[0].stem.partition("-")[2])


def accuracy(tensors: Tensors, job: Job, device: str) -> float:
    """Return the share of rendered words that a checkpoint's weights read."""
    weights = {name.removeprefix("model/"): array for name, array in tensors.items() if name.startswith("model/")}
    weights |= {name.removeprefix(STATISTICS): array.mean(0) for name, array in tensors.items()
                if name.startswith(STATISTICS)}  # fmt: skip
    checkpoint = Checkpoint(tensors=weights, data=job.data, model=job.model, train=job.train, step=0)
    predictor = twin("pytorch", "models.predict").Predictor(checkpoint, device)
    spec = SynthSpec.parse(load_catalogue([FOLDER / "datasets.yaml"])["rendered_easy"].source)
    drawn = list(render(spec, 0, MEASURED))
    images = np.stack([fit_picture(picture.reshape(*picture.shape[:2], -1), job.data) for picture, _ in drawn])
    read = predictor.read(images)[0]
    fold = predictor.codec.charset.clean
    return float(np.mean([text == fold(label) for text, (_, label) in zip(read, drawn, strict=True)]))


def attempt(name: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Measure and print at once; what fails is told, and is one row, so that the rest is measured all the same."""
    began = time.monotonic()
    try:
        rows = measure()
    except Exception:
        traceback.print_exc()
        rows = [alone(f"{name}, {FAILED}", 1.0, "failures")]
    print(f"{name}: {time.monotonic() - began:.0f} s {json.dumps(rows)}", flush=True)
    return rows


def main() -> None:
    """Measure, and print the figures; code 1 where a part of it failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="the card's bfloat16 rate, by its data sheet")
    parser.add_argument("--minutes", type=minutes, default=5.0, help="of training on streamed pictures")
    parser.add_argument(
        "--dry", action="store_true", help="every line on a CPU, at tiny size: the figures mean nothing"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = Size(device="cuda", peak_tflops=options.peak_tflops, steps=STEPS, most=1024, seconds=60 * options.minutes)
    if options.dry:
        size = dataclasses.replace(size, device="cpu", steps=1, most=2, seconds=8.0, patience_s=1200.0)
    rows = []
    for name in BATCHES:
        rows += attempt(f"{name}, logits", partial(logits, name, size))
        rows += attempt(f"{name}, training", partial(speed, name, size))
    with tempfile.TemporaryDirectory(prefix="wordmill-benchmark-") as folder:
        rows += attempt(SMALL, partial(train_small, size, Path(folder)))
    print_rows(rows, options.json)
    sys.exit(any(str(row["name"]).endswith(FAILED) for row in rows))


if __name__ == "__main__":
    main()
