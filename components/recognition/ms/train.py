"""The worker that trains by a job file, one process per device: `msrun ... components/recognition/ms/train.py FILE`."""

import math
import os
import platform
import sys
import time
from pathlib import Path

if not __package__:  # msrun starts a file, not a module
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_rank, init

from components.recognition.charset import load_charset
from components.recognition.checkpoint import Tensors
from components.recognition.checkpoint import load as load_checkpoint
from components.recognition.loader import Batch
from components.recognition.ms.model import CRNN, build, count_frames
from components.recognition.ms.predict import Predictor, open_device
from components.recognition.ms.step import LOSS_SCALE, AdamW, Objective, TrainStep
from components.recognition.ms.weights import dump, load
from components.recognition.schedule import make_plan
from components.recognition.shards import ShardSet
from components.recognition.training import (
    RECORD_EVERY_S,
    Job,
    NonfiniteGuard,
    Recorder,
    Targets,
    count_correct,
    die_with_parent,
    failure_told,
    fitting,
    pack,
    read_job,
    training_stream,
    validation_batches,
    write_reference,
)


def choose_precision(amp: str, device: str) -> tuple[bool, str]:
    """Return whether convolutions compute in float16, and the description of the precision for the record."""
    if amp == "O0":
        return False, "float32"
    if device == "cpu":
        return False, f"float32: MindSpore {ms.__version__} has no fast half precision on processors"
    normalisation = "float32" if amp == "O2" else "float16"
    return True, f"float16 backbone, batch normalisation in {normalisation}, loss scale {LOSS_SCALE:.0f}"


def halve(net: CRNN, amp: str) -> None:
    """Let the backbone compute in float16, with O2 all but its batch normalisation; parameters stay float32."""
    net.backbone.to_float(ms.float16)
    for _, cell in net.backbone.cells_and_names():
        if amp == "O2" and isinstance(cell, nn.BatchNorm2d):
            cell.to_float(ms.float32)


class Total(nn.Cell):
    """The sum over all processes of a float32 vector; MindSpore's sums on processors know no other type."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, vector: ms.Tensor) -> ms.Tensor:
        """Return the sum, of the vector's shape."""
        return self.reduce(vector)


class Trainer:
    """One process's share of a training run."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job, self.rank = job, rank
        self.charset = load_charset(job.data.charset)
        ms.set_seed(job.train.seed)
        self.net = build(job.model, job.data, self.charset.classes)
        self.total = Total()
        self.frames = count_frames(self.net, job.data)
        # Every process starts from the weights of rank 0; in graph mode nothing else sees to that.
        load(self.net, self.summed(dump(self.net), float(rank == 0)), "weights of rank 0")
        given = ShardSet.open(job.train_shards)
        self.train_set = fitting(given, self.charset, self.frames)
        self.unfit = given.samples - self.train_set.samples
        self.val_set = ShardSet.open(job.val_shards)
        self.plan = make_plan(job.train, self.train_set.samples, job.processes)
        half, self.precision = choose_precision(job.train.amp, job.device)
        if half:
            halve(self.net, job.train.amp)
        adamw = AdamW(self.net, job.train.weight_decay)
        scale = LOSS_SCALE if half else 1.0
        objective = Objective(self.net, self.frames)
        self.compiled = TrainStep(objective, adamw, job.train.clip_norm, scale, job.processes).set_train()
        self.scored = self.build_scored()
        self.guard, self.recorder = NonfiniteGuard(), Recorder(job, self.plan)
        self.pending: list[ms.Tensor] = []  # (loss, gradient norm) of each step not looked at yet

    def build_scored(self) -> Objective:
        """Build the recogniser that is scored: fp32, evaluation mode, compiled once for batches of any size."""
        data, frames = self.job.data, self.frames
        scored = Objective(build(self.job.model, data, self.charset.classes), frames)
        scored.set_train(False)
        shape = [None, data.height, data.width, data.channels]
        scored.set_inputs(
            ms.Tensor(shape=shape, dtype=ms.uint8),
            ms.Tensor(shape=[None, frames], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.float32),
        )
        return scored

    def run(self) -> None:
        """Train all steps, with validation where the plan has it, and leave the records of rank 0."""
        flushed = time.monotonic()
        stream = training_stream(self.job, self.plan, self.train_set, self.charset, self.frames, self.rank)
        for step, (batch, targets) in enumerate(stream, start=1):
            self.step(batch, targets, float(self.plan.rates[step - 1]))
            validates = step in self.plan.validate_after
            # Looking at a result waits for the device, so it is done every few seconds and not at every step.
            if validates or time.monotonic() - flushed >= RECORD_EVERY_S:
                self.flush(step)
                flushed = time.monotonic()
            if validates:
                self.validate(step)
        if self.rank == 0:
            self.finish()

    def step(self, batch: Batch, targets: Targets, rate: float) -> None:
        """Make one step of the optimiser; the loss is the mean over the batch of CTC loss by label length."""
        self.pending.append(self.compiled(*tensors_of(batch, targets), ms.Tensor(rate, ms.float32)))

    def flush(self, step: int) -> None:
        """Look at the steps since the last time: stop where training diverged, record the mean loss."""
        results = [result.asnumpy().tolist() for result in self.pending]
        self.pending.clear()
        for number, (_, norm) in enumerate(results, start=step - len(results) + 1):
            self.guard.add(number, math.isfinite(norm))
        if self.rank == 0:
            self.recorder.training(step, float(np.mean([loss for loss, _ in results])))

    def validate(self, step: int) -> None:
        """Score the validation set, split over the processes, and keep the weights."""
        tensors = self.average_statistics(dump(self.net))
        load(self.scored.net, tensors, "trained weights")
        tally = np.zeros(3)  # correct, total, sum of losses
        for batch in validation_batches(self.val_set, self.rank, self.job.processes):
            targets = pack(batch.labels, self.charset, self.frames)
            loss, logits = self.scored(*tensors_of(batch, targets))
            correct = count_correct(logits.asnumpy(), batch.labels, self.charset)
            tally += (correct, len(batch.labels), float(loss.asnumpy()) * len(batch.labels))
        correct, total, loss_sum = self.total(ms.Tensor(tally, ms.float32)).asnumpy().tolist()
        if self.rank == 0:
            self.recorder.validation(step, int(correct), int(total), loss_sum, tensors)

    def average_statistics(self, tensors: Tensors) -> Tensors:
        """Average BatchNorm's running statistics over the processes: each has seen other pictures, one set is saved."""
        own = {name: tensor for name, tensor in tensors.items() if ".running_" in name}
        return tensors | self.summed(own, 1.0 / self.job.processes)

    def summed(self, tensors: Tensors, share: float) -> Tensors:
        """Return the sum over all processes of each one's tensors times its share."""
        vector = np.concatenate([tensor.ravel() for tensor in tensors.values()]) * np.float32(share)
        ends = np.cumsum([tensor.size for tensor in tensors.values()])
        parts = np.split(self.total(ms.Tensor(vector)).asnumpy(), ends[:-1])
        return {name: part.reshape(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}

    def finish(self) -> None:
        """Write the outcome and the best weights' logits of the reference images."""
        versions = {"mindspore": ms.__version__, "numpy": np.__version__, "python": platform.python_version()}
        parameters = sum(weight.size for weight in self.net.trainable_params())
        facts = {"precision": self.precision, "parameters": parameters, "versions": versions}
        self.recorder.finish(self.guard, self.unfit, facts)
        best = load_checkpoint(self.job.folder / "best.safetensors")
        write_reference(self.job, self.val_set, Predictor(best, self.job.device))


def tensors_of(batch: Batch, targets: Targets) -> tuple[ms.Tensor, ...]:
    """Return images uint8 (N, H, W, C), classes, lengths and weights on the device."""
    arrays = (batch.images, targets.classes, targets.lengths, targets.weights)
    return tuple(ms.Tensor.from_numpy(array) for array in arrays)


def main(path: Path) -> None:
    """Join the other processes and train."""
    die_with_parent()
    job = read_job(path)
    # msrun starts this file once more as its scheduler, without a number of its own; that process ends inside init.
    with failure_told(job.folder, int(os.environ.get("DEVICE_ID", job.processes))):
        open_device(job.device)
        init()
        Trainer(job, get_rank()).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
