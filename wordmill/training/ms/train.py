"""Training by a job file, one process per device, which msrun starts: `-m wordmill.training.worker ms FILE`."""

import copy
import gc
import os
import platform
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore.communication import get_rank, init

from wordmill.models.architectures import GUIDE
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.models.ms.model import Recogniser, add_guide, build, count_steps
from wordmill.models.ms.parameters import named, statistics
from wordmill.models.ms.precision import choose_precision, halve
from wordmill.models.ms.predict import Predictor, open_device
from wordmill.models.ms.weights import dump, load_weights
from wordmill.pictures.image import Picture
from wordmill.recipe.schedule import part_factor
from wordmill.text.decoding import codec_of
from wordmill.training.context import make_context
from wordmill.training.job import Job, read_job, start_of
from wordmill.training.loop import Loop
from wordmill.training.ms.optimisers import Average, build_optimiser
from wordmill.training.ms.processes import Processes
from wordmill.training.ms.state import TrainingState
from wordmill.training.ms.step import Frozen, Gradients, LossScale, Objective, Update
from wordmill.training.ms.sync import synchronise
from wordmill.training.ms.tracing import trace
from wordmill.training.stream import MicroBatch
from wordmill.training.trainer import Logits, StepResult, Vector
from wordmill.training.worker import at_work


class Trainer:
    """One process's share of the work in MindSpore: trainer.Trainer, whose methods say what they do."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job, self.rank, self.processes = job, rank, Processes(job.processes)
        self.codec = codec_of(job.model, job.data)
        ms.set_seed(job.train.seed)
        self.net = build(job.model, job.data, self.codec.classes)
        self.steps = count_steps(self.net, job.data)
        if start := start_of(job):
            load_weights(self.net, start.tensors, start.where)
        scored = copy.deepcopy(self.net)  # to draw fresh weights once more would take a second of the start
        if job.train.guide:
            add_guide(self.net, self.codec.classes, self.steps)
        if job.train.sync_batch_norm and job.processes > 1:
            synchronise(self.net, job.device, job.processes)
        self.context = make_context(job, rank, self.codec, self.steps)
        self.compile()
        self.scored = self.build_scored(scored)

    def compile(self) -> None:
        """Build the graphs of a step."""
        train, processes = self.job.train, self.job.processes
        half, self.precision = choose_precision(train.amp, self.job.device)
        if half:
            halve(self.net, train.amp)
            self.precision += f", {train.loss_scaling} loss scale {train.loss_scale:g}"
        scale = LossScale(train.loss_scale if half else 1.0, half and train.loss_scaling == "dynamic")
        objective = Objective(self.net, self.job.data.middle, train.flat_start_epochs > 0, train.guide)
        self.gradients = Gradients(objective, scale).set_train()
        optimiser = build_optimiser(self.net, train)
        by_part = bool(train.lr_factors or train.freeze)
        self.update = Update(self.net, optimiser, scale, train.clip_norm, train.parts, processes, by_part)
        normalised = {name.partition(".")[0] for name in statistics(self.net)}
        self.frozen = [Frozen(self.net, self.update, part) for part in train.freeze if part in normalised]
        self.average = Average(self.net, train.ema_decay) if train.ema_decay else None
        self.parameters = TrainingState(self.net, self.update, self.average, self.processes)

    def build_scored(self, net: Recogniser) -> Objective:
        """Build what scores: the recogniser in fp32 and evaluation mode, compiled once for batches of any size."""
        data = self.job.data
        scored = Objective(net, data.middle)
        scored.set_train(False)
        shape = [None, data.height, data.width, data.channels]
        scored.set_inputs(
            ms.Tensor(shape=shape, dtype=ms.uint8),
            ms.Tensor(shape=[None, self.steps], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.float32),
            ms.Tensor(shape=[None], dtype=ms.float32),
            ms.Tensor(shape=[None], dtype=ms.int32),
            ms.Tensor(shape=[None, self.steps], dtype=ms.int32),
            ms.Tensor(shape=[None], dtype=ms.float32),
        )
        return scored

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> ms.Tensor:
        """Begin a step."""
        first, *others = self.inputs(parts, asked)
        vector = self.gradients(*first)
        for part in others:
            vector = vector + self.gradients(*part)
        train = self.job.train
        rates = [rate * part_factor(train, part, number) for part in self.update.parts] or rate
        result: ms.Tensor = self.update(vector, ms.Tensor(rates, ms.float32))
        for frozen in self.frozen:
            if number <= train.freeze[frozen.part]:
                result = frozen(result)
        if self.average:
            self.average(ms.Tensor(number, ms.float32), result[1])
        return result

    def inputs(self, parts: list[MicroBatch], asked: tuple[bool, bool]) -> list[tuple[ms.Tensor, ...]]:
        """Return what Gradients takes for each of the parts; the first one bears what is asked."""
        mean = ms.Tensor([sum(targets.counted for _, targets in parts) / len(parts)], ms.float32)
        if self.job.train.loss == "cross_entropy":  # with any other all parts count the same
            mean = self.processes.mean(mean)
        wishes = [asked, *[(False, False)] * (len(parts) - 1)]
        return [
            (ms.Tensor([part[1].counted], ms.float32), mean, ms.Tensor(wish, ms.float32), *tensors_of(part))
            for part, wish in zip(parts, wishes, strict=True)
        ]

    def result(self, handle: ms.Tensor) -> StepResult:
        """Wait for a step's result."""
        loss, norm, save, stop = handle.asnumpy().tolist()
        return StepResult(loss=loss, norm=norm, save=save > 0, stop=stop > 0)

    def weights(self) -> Tensors:
        """Return what is scored and stored."""
        own = {name: parameter.asnumpy() for name, parameter in statistics(self.net).items()}
        rows = self.processes.gather(own)
        means = {name: row.mean(0, dtype=np.float64).astype(np.float32) for name, row in rows.items()}
        weights = dump(self.net) | means | (self.average.tensors() if self.average else {})
        return {name: tensor for name, tensor in weights.items() if not name.startswith(GUIDE)}

    def scorer(self, weights: Tensors) -> Callable[[MicroBatch], tuple[float, Logits]]:
        """Return what tells the loss and the logits that these weights have for a part."""
        load_weights(self.scored.net, weights, "scored weights")

        def read(part: MicroBatch) -> tuple[float, Logits]:
            loss, logits = self.scored(*tensors_of(part))
            return float(loss.asnumpy()), logits.asnumpy()

        return read

    def gather(self, vector: Vector) -> Vector:
        """Return every process's vector."""
        return self.processes.gather({"vector": vector})["vector"]

    def predictor(self, checkpoint: Checkpoint) -> Callable[[Picture], Logits]:
        """Return what turns images into logits."""
        return Predictor(checkpoint, self.job.device)

    def state(self) -> Tensors:
        """Return copies of all that training goes on from."""
        return self.parameters.read()

    def share(self, tensors: Tensors) -> Tensors:
        """Return the tensors of process 0."""
        return self.processes.first(tensors)

    def restore(self, tensors: Tensors) -> None:
        """Go on from what `state` has returned."""
        self.parameters.write(tensors, self.rank)
        for frozen in self.frozen:
            frozen.begin()

    def memory_bytes(self) -> int:
        """Return the most memory used: Linux counts a process's own in KiB."""
        if self.job.device == "cpu":
            return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(ms.runtime.max_memory_allocated())

    def trace(self, folder: Path) -> AbstractContextManager[None]:
        """Trace what is done within."""
        return trace(folder, self.job.device)

    def facts(self) -> dict[str, Any]:
        """Return what the outcome tells of the framework."""
        versions = {"mindspore": ms.__version__, "numpy": np.__version__, "python": platform.python_version()}
        sizes = {name: weight.size for name, weight in named(self.net).items() if weight.requires_grad}
        parameters = sum(size for name, size in sizes.items() if not name.startswith(GUIDE))
        return {"precision": self.precision, "parameters": parameters, "versions": versions}


def tensors_of(part: MicroBatch) -> tuple[ms.Tensor, ...]:
    """Return images uint8 (N, H, W, C) and the arrays of their targets on the device."""
    batch, targets = part
    arrays = (batch.images, targets.classes, targets.lengths, targets.weights, targets.forced, targets.seeds,
              targets.frames, targets.flat)  # fmt: skip
    return tuple(ms.Tensor.from_numpy(array) for array in arrays)


def main(path: Path) -> None:
    """Join the other processes and train."""
    job = read_job(path)
    alone = job.processes == 1
    gc.freeze()  # MindSpore has garbage collected at every graph that it builds: what is imported here is none
    # msrun starts this file once more as its scheduler, without a number of its own; that process ends inside init.
    with at_work(job.folder, 0 if alone else int(os.environ.get("DEVICE_ID", job.processes))):
        open_device(job.device)
        if not alone:
            init()
        Loop(Trainer(job, 0 if alone else get_rank())).run()
