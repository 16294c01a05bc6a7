"""The worker that trains by a job file, one process per device: `torchrun -m components.recognition.pt.train FILE`."""

import copy
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from components.recognition.checkpoint import load as load_checkpoint
from components.recognition.decoding import codec_of
from components.recognition.pt.losses import ctc_losses, sequence_losses
from components.recognition.pt.model import EncoderDecoder, build, count_steps
from components.recognition.pt.optimisers import Average
from components.recognition.pt.optimisers import build as build_optimiser
from components.recognition.pt.precision import choose_precision
from components.recognition.pt.predict import Predictor, open_device
from components.recognition.pt.weights import dump, load
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

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
LOSS_SCALE = 1024.0  # where gradients are float16; MindOCR's start too


class Trainer:
    """One process's share of a training run."""

    def __init__(self, job: Job, device: torch.device, rank: int) -> None:
        self.job, self.device, self.rank = job, device, rank
        self.codec = codec_of(job.model, job.data)
        torch.manual_seed(job.train.seed)
        self.net = build(job.model, job.data, self.codec.classes).to(device)
        if job.start:
            where = f"train.start_from {job.train.start_from}, file {job.start}"
            load(self.net, load_checkpoint(job.start).tensors, where)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lacks this form of `to`
        self.steps, self.writes = count_steps(self.net, job.data), isinstance(self.net, EncoderDecoder)
        self.train_set, self.unfit = training_set(job, self.codec, self.steps)
        self.val_set = open_sets(job.val_sets)
        self.plan = make_plan(job.train, self.train_set.samples, job.processes)
        self.dtype, self.precision = choose_precision(job.train.amp, job.device)
        # BatchNorm's statistics are those of each process's own batch, as in the published runs.
        self.parallel = DistributedDataParallel(self.net, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = build_optimiser(self.net, job.train)
        self.average = Average(self.net, job.train.ema_decay) if job.train.ema_decay else None
        self.scored = copy.deepcopy(self.net) if self.average else self.net
        # With any type it is what leaves out a step whose gradients are not finite, on the device, without waiting.
        scales = (LOSS_SCALE, 2000) if self.dtype == torch.float16 else (1.0, sys.maxsize)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=scales[0], growth_interval=scales[1])
        self.guard, self.recorder = NonfiniteGuard(), Recorder(job, self.plan)
        self.pending: list[torch.Tensor] = []  # (loss, gradient norm) of each step not looked at yet

    def run(self) -> None:
        """Train all steps, with validation where the plan has it, and leave the records of rank 0."""
        flushed = time.monotonic()
        stream = training_stream(self.job, self.plan, self.train_set, self.codec, self.steps, self.rank)
        for step, parts in enumerate(stream, start=1):
            self.step(parts, float(self.plan.rates[step - 1]))
            if self.average:
                self.average(step)
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
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with self.parallel.no_sync():  # processes add their gradients up once, with the last part's
            losses = [self.backward(part, len(parts)) for part in parts[:-1]]
        loss = torch.stack([*losses, self.backward(parts[-1], len(parts))]).sum()
        self.scaler.unscale_(self.optimizer)
        # The gradients are the mean over all processes by now, so every process leaves out the same steps.
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.job.train.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.pending.append(torch.stack([loss, norm]))

    def backward(self, part: Part, parts: int) -> torch.Tensor:
        """Add one part's share to the gradients and return its share of the loss."""
        loss = self.losses(self.parallel, part)[0].sum() / parts
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach()

    def losses(self, net: nn.Module, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted losses (N,) and the logits (N, T, classes), both float32."""
        pictures, classes, lengths, weights, forced = tensors_of(part, self.device)
        middle = self.job.data.middle
        images = (pictures.permute(0, 3, 1, 2).float() - middle) / middle
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            logits = net(images, classes, forced) if self.writes and net.training else net(images)
        losses = sequence_losses if self.writes else ctc_losses
        return losses(logits, classes, lengths) * weights, logits

    def flush(self, step: int) -> None:
        """Look at the steps since the last time: stop where training diverged, record the mean loss."""
        results = torch.stack(self.pending).tolist()
        self.pending.clear()
        for number, (_, norm) in enumerate(results, start=step - len(results) + 1):
            self.guard.add(number, math.isfinite(norm))
        if self.rank == 0:  # its own share of the batches stands for all
            self.recorder.training(step, float(np.mean([loss for loss, _ in results])))

    def validate(self, step: int) -> None:
        """Score the validation set, split over the processes, and keep the weights."""
        self.average_statistics()
        if self.average:
            load(self.scored, dump(self.net) | self.average.tensors(), "averaged weights")
        self.scored.eval()
        tally = torch.zeros(3, dtype=torch.float64)  # correct, total, sum of losses: exact as counts
        with torch.inference_mode():
            for batch in validation_batches(self.val_set, self.rank, self.job.processes):
                targets = pack(batch.labels, self.codec, self.steps, self.job.train.loss)
                losses, logits = self.losses(self.scored, (batch, targets))
                samples = len(batch.labels)
                correct = count_correct(logits.cpu().numpy(), batch.labels, self.codec)
                tally += torch.tensor([correct, samples, losses.sum().item() * samples], dtype=torch.float64)
        counts = tally.to(self.device)
        dist.all_reduce(counts)
        correct, total, loss_sum = counts.tolist()
        if self.rank == 0:
            self.recorder.validation(step, int(correct), int(total), loss_sum, dump(self.scored))

    def average_statistics(self) -> None:
        """Average BatchNorm's running statistics over the processes: each has seen other pictures, one set is saved."""
        for statistics in self.net.buffers():
            if statistics.is_floating_point():
                dist.all_reduce(statistics)
                statistics /= self.job.processes

    def finish(self) -> None:
        """Write the outcome and the best weights' logits of the reference images."""
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        parameters = sum(weight.numel() for weight in self.net.parameters())
        facts = {"precision": self.precision, "parameters": parameters, "versions": versions}
        self.recorder.finish(self.guard, self.unfit, facts)
        best = load_checkpoint(self.job.folder / "best.safetensors")
        write_reference(self.job, self.val_set, Predictor(best, self.job.device))


def tensors_of(part: Part, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return images uint8 (N, H, W, C), classes, lengths, weights and forced on the device.

    A copy from pinned memory goes on while the processor prepares what follows; any other one waits for the device.
    """
    batch, targets = part
    arrays = (batch.images, targets.classes, targets.lengths, targets.weights, targets.forced)
    tensors = (torch.from_numpy(array) for array in arrays)
    if device.type == "cpu":
        return tuple(tensors)
    return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)


def main(path: Path) -> None:
    """Join the other processes and train."""
    die_with_parent()
    job, rank = read_job(path), int(os.environ["RANK"])
    with failure_told(job.folder, rank):
        device = open_device(job.device, int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(BACKENDS[job.device])
        Trainer(job, device, rank).run()
        # Only after success: a failed process ends at once, and the others with it.
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
