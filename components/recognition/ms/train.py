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

from components.recognition.checkpoint import Tensors
from components.recognition.checkpoint import load as load_checkpoint
from components.recognition.decoding import codec_of
from components.recognition.ms.model import build, count_steps
from components.recognition.ms.optimisers import Average
from components.recognition.ms.optimisers import build as build_optimiser
from components.recognition.ms.precision import choose_precision, halve
from components.recognition.ms.predict import Predictor, open_device
from components.recognition.ms.step import LOSS_SCALE, Gradients, Objective, Update
from components.recognition.ms.weights import dump, load
from components.recognition.schedule import make_plan
from components.recognition.shards import open_sets
from components.recognition.targets import pack
from components.recognition.training import (
    RECORD_EVERY_S,
    Job,
    NonfiniteGuard,
    Part,
    Recorder,
    count_correct,
    die_with_parent,
    failure_told,
    read_job,
    training_set,
    training_stream,
    validation_batches,
    write_reference,
)


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
        self.codec = codec_of(job.model, job.data)
        ms.set_seed(job.train.seed)
        self.net = build(job.model, job.data, self.codec.classes)
        self.total = Total()
        self.steps = count_steps(self.net, job.data)
        self.start()
        self.train_set, self.unfit = training_set(job, self.codec, self.steps)
        self.val_set = open_sets(job.val_sets)
        self.plan = make_plan(job.train, self.train_set.samples, job.processes)
        half, precision = choose_precision(job.train.amp, job.device)
        self.precision = f"{precision}, loss scale {LOSS_SCALE:.0f}" if half else precision
        if half:
            halve(self.net, job.train.amp)
        scale = LOSS_SCALE if half else 1.0
        self.gradients = Gradients(Objective(self.net, job.data.middle), scale).set_train()
        optimiser = build_optimiser(self.net, job.train)
        self.update = Update(optimiser, job.train.clip_norm, scale, job.processes)
        self.average = Average(self.net, job.train.ema_decay) if job.train.ema_decay else None
        self.scored = self.build_scored()
        self.guard, self.recorder = NonfiniteGuard(), Recorder(job, self.plan)
        self.pending: list[ms.Tensor] = []  # (loss, gradient norm) of each step not looked at yet

    def build_scored(self) -> Objective:
        """Build the recogniser that is scored: fp32, evaluation mode, compiled once for batches of any size."""
        data = self.job.data
        scored = Objective(build(self.job.model, data, self.codec.classes), data.middle)
        scored.set_train(False)
        shape = [None, data.height, data.width, data.channels]
        scored.set_inputs(
            ms.Tensor(shape=shape, dtype=ms.uint8),
            ms.Tensor(shape=[None, self.steps], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.float32),
            ms.Tensor(shape=[None], dtype=ms.float32),
        )
        return scored

    def start(self) -> None:
        """Start from the weights of job.start, or every process from the fresh ones of rank 0."""
        if self.job.start:
            where = f"train.start_from {self.job.train.start_from}, file {self.job.start}"
            load(self.net, load_checkpoint(self.job.start).tensors, where)
        else:  # in graph mode nothing else sees to that
            load(self.net, self.summed(dump(self.net), float(self.rank == 0)), "weights of rank 0")

    def run(self) -> None:
        """Train all steps, with validation where the plan has it, and leave the records of rank 0."""
        flushed = time.monotonic()
        stream = training_stream(self.job, self.plan, self.train_set, self.codec, self.steps, self.rank)
        for step, parts in enumerate(stream, start=1):
            self.step(parts, float(self.plan.rates[step - 1]))
            if self.average:
                self.average(ms.Tensor(step, ms.float32))
            validates = step in self.plan.validate_after
            # Looking at a result waits for the device, so it is done every few seconds and not at every step.
            if validates or time.monotonic() - flushed >= RECORD_EVERY_S:
                self.flush(step)
                flushed = time.monotonic()
            if validates:
                self.validate(step)
        if self.rank == 0:
            self.finish()

    def step(self, parts: list[Part], rate: float) -> None:
        """Make one step of the optimiser by the mean gradient and loss of the parts; each loss is the recipe's mean."""
        vector = self.gradients(*tensors_of(parts[0]))
        for part in parts[1:]:
            vector = vector + self.gradients(*tensors_of(part))
        self.pending.append(self.update(vector / len(parts), ms.Tensor(rate, ms.float32)))

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
        tensors = self.average_statistics(dump(self.net)) | (self.average.tensors() if self.average else {})
        load(self.scored.net, tensors, "trained weights")
        tally = np.zeros(3)  # correct, total, sum of losses
        for batch in validation_batches(self.val_set, self.rank, self.job.processes):
            targets = pack(batch.labels, self.codec, self.steps, self.job.train.loss)
            loss, logits = self.scored(*tensors_of((batch, targets)))
            correct = count_correct(logits.asnumpy(), batch.labels, self.codec)
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


def tensors_of(part: Part) -> tuple[ms.Tensor, ...]:
    """Return images uint8 (N, H, W, C), classes, lengths, weights and forced on the device."""
    batch, targets = part
    arrays = (batch.images, targets.classes, targets.lengths, targets.weights, targets.forced)
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
