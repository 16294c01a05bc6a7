"""The worker that trains by a job file, one process per device: `torchrun -m components.recognition.pt.train FILE`."""

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
from torch.nn.functional import ctc_loss
from torch.nn.parallel import DistributedDataParallel

from components.recognition.charset import BLANK, load_charset
from components.recognition.checkpoint import load as load_checkpoint
from components.recognition.loader import Batch
from components.recognition.pt.model import build, count_frames
from components.recognition.pt.predict import Predictor, open_device
from components.recognition.pt.weights import dump
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

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
LOSS_SCALE = 1024.0  # where gradients are float16; MindOCR's start too


def choose_precision(amp: str, device: str) -> tuple[torch.dtype, str]:
    """Return the type that convolutions and the LSTM compute in, and its description for the record."""
    if amp == "O0":
        return torch.float32, "float32"
    if device == "cpu":
        # Without a unit for it, bfloat16 is emulated and slower than float32.
        units = [unit for unit in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(unit)]
        if units:
            return torch.bfloat16, f"bfloat16 autocast by {units[0]}, channels_last"
        return torch.float32, "float32: this processor has no bfloat16 unit"
    half = torch.bfloat16 if torch.get_device_module(device).is_bf16_supported() else torch.float16
    return half, f"{str(half).removeprefix('torch.')} autocast, channels_last"


class Trainer:
    """One process's share of a training run."""

    def __init__(self, job: Job, device: torch.device, rank: int) -> None:
        self.job, self.device, self.rank = job, device, rank
        self.charset = load_charset(job.data.charset)
        torch.manual_seed(job.train.seed)
        self.net = build(job.model, job.data, self.charset.classes).to(device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lacks this form of `to`
        self.frames = count_frames(self.net, job.data)
        given = ShardSet.open(job.train_shards)
        self.train_set = fitting(given, self.charset, self.frames)
        self.unfit = given.samples - self.train_set.samples
        self.val_set = ShardSet.open(job.val_shards)
        self.plan = make_plan(job.train, self.train_set.samples, job.processes)
        self.dtype, self.precision = choose_precision(job.train.amp, job.device)
        # BatchNorm's statistics are those of each process's own batch, as in the published runs.
        self.parallel = DistributedDataParallel(self.net, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=job.train.lr, weight_decay=job.train.weight_decay, fused=True
        )
        # With any type it is what leaves out a step whose gradients are not finite, on the device, without waiting.
        scales = (LOSS_SCALE, 2000) if self.dtype == torch.float16 else (1.0, sys.maxsize)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=scales[0], growth_interval=scales[1])
        self.guard, self.recorder = NonfiniteGuard(), Recorder(job, self.plan)
        self.pending: list[torch.Tensor] = []  # (loss, gradient norm) of each step not looked at yet

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
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.losses(self.parallel, batch, targets)[0].sum()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        # The gradients are the mean over all processes by now, so every process leaves out the same steps.
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.job.train.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.pending.append(torch.stack([loss.detach(), norm]))

    def losses(self, net: nn.Module, batch: Batch, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted losses (N,) and the logits (N, T, classes), both float32."""
        pictures = torch.from_numpy(batch.images).to(self.device, non_blocking=True)
        images = (pictures.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        classes, lengths, weights = (
            torch.from_numpy(array).to(self.device, non_blocking=True)
            for array in (targets.classes, targets.lengths, targets.weights)
        )
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            logits = net(images)
        frames = torch.full_like(lengths, self.frames)
        probabilities = logits.log_softmax(2).permute(1, 0, 2)
        return ctc_loss(probabilities, classes, frames, lengths, BLANK, reduction="none") * weights, logits

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
        self.net.eval()
        tally = torch.zeros(3, dtype=torch.float64)  # correct, total, sum of losses: exact as counts
        with torch.inference_mode():
            for batch in validation_batches(self.val_set, self.rank, self.job.processes):
                targets = pack(batch.labels, self.charset, self.frames)
                losses, logits = self.losses(self.net, batch, targets)
                samples = len(batch.labels)
                correct = count_correct(logits.cpu().numpy(), batch.labels, self.charset)
                tally += torch.tensor([correct, samples, losses.sum().item() * samples], dtype=torch.float64)
        counts = tally.to(self.device)
        dist.all_reduce(counts)
        correct, total, loss_sum = counts.tolist()
        if self.rank == 0:
            self.recorder.validation(step, int(correct), int(total), loss_sum, dump(self.net))

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
