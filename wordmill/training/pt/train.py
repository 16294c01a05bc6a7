"""Training by a job file, one process per device, which torchrun starts: `-m wordmill.training.worker pt FILE`.

On a CPU the same job gives the same bits. On CUDA it need not: by PyTorch's documentation the order of sums varies in
the gradients of gather (CTC) and of grid_sample (rectification), in nll_loss (of cross_entropy), in convolutions and,
with some versions of cuDNN, in LSTMs.
"""

import copy
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wordmill.models.architectures import GUIDE
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.models.pt.model import CRNN, EncoderDecoder, add_guide, build, count_steps
from wordmill.models.pt.precision import choose_precision
from wordmill.models.pt.predict import Predictor, open_device
from wordmill.models.pt.weights import load_weights
from wordmill.pictures.image import Picture
from wordmill.recipe.schedule import part_factor
from wordmill.shards.loader import Batch
from wordmill.text.decoding import codec_of
from wordmill.training.context import make_context
from wordmill.training.job import Job, read_job, start_of
from wordmill.training.loop import Loop
from wordmill.training.pt.device import fetch, memory_bytes, send, trace
from wordmill.training.pt.losses import as_written, ctc_losses, ctc_losses_on_cuda, frame_losses, sequence_losses
from wordmill.training.pt.optimisers import Average, build_optimiser
from wordmill.training.pt.processes import gather, join, share, synchronise
from wordmill.training.pt.scaler import Scaler
from wordmill.training.pt.state import TrainingState
from wordmill.training.stream import MicroBatch
from wordmill.training.targets import encode_labels
from wordmill.training.trainer import Logits, StepResult, Vector
from wordmill.training.worker import at_work

Handle = Callable[[], list[float]]  # waits for a step's loss, save, stop and norm of the gradients


class Trainer:
    """One process's share of a training run."""

    def __init__(self, job: Job, device: torch.device, rank: int) -> None:
        self.job, self.device, self.rank, self.processes = job, device, rank, job.processes
        self.codec = codec_of(job.model, job.data)
        torch.manual_seed(job.train.seed)  # for the fresh weights: nothing is drawn from it afterwards
        self.net = build(job.model, job.data, self.codec.classes).to(device)
        if start := start_of(job):
            load_weights(self.net, start.tensors, start.where)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lacks this form of `to`
        self.steps, self.writes = count_steps(self.net, job.data), isinstance(self.net, EncoderDecoder)
        self.scored = copy.deepcopy(self.net).eval()
        if job.train.guide and isinstance(self.net, CRNN):
            add_guide(self.net, self.codec.classes, self.steps)
            self.net.to(device)
        self.context = make_context(job, rank, self.codec, self.steps)
        self.dtype, self.precision = choose_precision(job.train.amp, job.device)
        self.parallel = self.spread()
        self.optimizer = build_optimiser(self.net, job.train)
        self.average = Average(self.net, job.train.ema_decay) if job.train.ema_decay else None
        self.scaler = Scaler(job.train, self.dtype, device)
        self.held = TrainingState(self.net, self.optimizer, self.average, self.scaler, job.processes, rank)

    def spread(self) -> nn.Module:
        """Return the network as it trains: with other processes, where there are any."""
        if self.processes == 1:
            return self.net
        if self.job.train.sync_batch_norm:  # else statistics are those of each process, as in the published runs
            synchronise(self.net, self.device)
        return DistributedDataParallel(self.net, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> Handle:
        """Begin step `number`, 1.., of the optimiser, as trainer.Trainer has it; nothing here waits for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * part_factor(self.job.train, group["part"], number)
        self.optimizer.zero_grad(set_to_none=True)
        counts = np.array([targets.counted for _, targets in parts], np.float32)
        wishes, counted = send(self.device, np.array(asked, np.float32), counts)
        shares = self.shares(counted)
        with self.alone():  # processes add their gradients up once, with the last part's
            losses = [self.backward(part, shares[i]) for i, part in enumerate(parts[:-1])]
        losses.append(self.backward(parts[-1], shares[-1]))
        told = torch.cat([torch.stack(losses).sum().reshape(1) / self.processes, wishes])
        if self.processes > 1:
            dist.all_reduce(told)
        return fetch(torch.cat([told, self.descend(number).reshape(1)]))

    def shares(self, counted: torch.Tensor) -> torch.Tensor:
        """Return what each part's loss counts (parts,); over processes their mean makes the mean of all that counts."""
        total = counted.sum()
        if self.job.train.loss == "cross_entropy" and self.processes > 1:  # else all count the same
            dist.all_reduce(total)
            total /= self.processes
        return counted / total

    def alone(self) -> AbstractContextManager[None]:
        """Keep gradients to this process for a while."""
        parallel = self.parallel
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def backward(self, part: MicroBatch, share: torch.Tensor) -> torch.Tensor:
        """Add one part's share to the gradients and return its share of the loss."""
        loss = self.losses(self.parallel, part)[0].sum() * share
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach()

    def losses(self, net: nn.Module, part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted losses (N,) and the logits (N, T, classes), both float32."""
        batch, targets = part
        pictures, classes, lengths, weights, forced, seeds = send(
            self.device, batch.images, targets.classes, targets.lengths, targets.weights, targets.forced, targets.seeds
        )
        middle = self.job.data.middle
        images = (pictures.permute(0, 3, 1, 2).float() - middle) / middle
        told = as_written(classes, lengths) if self.job.train.guide and net.training else None
        given = () if not net.training else (classes, forced, seeds) if self.writes else (seeds, told)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            found = net(images, *given)
        logits = found if told is None else found[0]
        if self.writes:
            losses = sequence_losses(logits, classes, lengths)
        elif self.device.type == "cuda":
            losses = ctc_losses_on_cuda(logits, classes, lengths)
        else:
            losses = ctc_losses(logits, classes, torch.from_numpy(targets.lengths))
        if targets.flat.any():
            frames, flat = send(self.device, targets.frames, targets.flat)
            losses = torch.lerp(losses, frame_losses(logits, frames), flat)
        if told is not None:
            losses = losses + self.job.train.guide * sequence_losses(found[1], told, lengths + 1)
        return losses * weights, logits

    def descend(self, number: int) -> torch.Tensor:
        """Change the weights by their gradients, if these are finite, and return the norm that they had."""
        self.scaler.unscale_(self.optimizer)
        # The gradients are the mean over all processes by now, so every process leaves out the same steps.
        gradients = [weight.grad for weight in self.net.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = norm.isfinite()
        self.scaler.decide(self.optimizer, finite)
        if self.job.train.clip_norm:
            nn.utils.clip_grads_with_norm_(self.net.parameters(), self.job.train.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.renew()
        self.held.settle(finite, [part for part, steps in self.job.train.freeze.items() if number <= steps])
        if self.average:
            self.average(number, finite)
        return norm

    def result(self, handle: Handle) -> StepResult:
        """Wait for a step's result."""
        loss, save, stop, norm = handle()
        return StepResult(loss=loss, norm=norm, save=save > 0, stop=stop > 0)

    def weights(self) -> Tensors:
        """Return what is scored and stored: weights or their moving average, statistics averaged over processes."""
        return self.held.weights()

    def scorer(self, weights: Tensors) -> Callable[[MicroBatch], tuple[float, Logits]]:
        """Return what tells the loss and the logits (N, T, C) that these weights have for a part."""
        load_weights(self.scored, weights, "scored weights")

        @torch.inference_mode()
        def read(part: MicroBatch) -> tuple[float, Logits]:
            losses, logits = self.losses(self.scored, part)
            return losses.sum().item(), logits.cpu().numpy()

        return read

    def gather(self, vector: Vector) -> Vector:
        """Return every process's vector (n,) in every process: (processes, n)."""
        return gather(vector, self.processes, self.device)

    def predictor(self, checkpoint: Checkpoint) -> Callable[[Picture], Logits]:
        """Return what turns images (N, H, W, C) uint8 into logits (N, T, C)."""
        return Predictor(checkpoint, self.job.device)

    def state(self) -> Tensors:
        """Return copies of all that training goes on from: float32 arrays by name."""
        return self.held.tensors()

    def share(self, tensors: Tensors) -> Tensors:
        """Return the tensors of process 0 in every process; names and shapes are the same in all."""
        return share(tensors, self.processes, self.device)

    def restore(self, tensors: Tensors) -> None:
        """Go on from what `state` has returned.

        DistributedDataParallel lays its buckets out anew after the first backward pass, and three processes' sums are
        rounded by where in a bucket they lie: after a pass on blank pictures a run's first step is as any other one.
        """
        if self.processes > 1:
            data = self.job.data
            blank = Batch(images=np.zeros((2, data.height, data.width, data.channels), np.uint8), labels=["", ""])
            targets = encode_labels(blank.labels, self.codec, self.steps, self.job.train.loss)
            self.backward((blank, targets), torch.ones((), device=self.device))
        self.held.take(tensors)

    def memory_bytes(self) -> int:
        """Return the most memory that this process has used: of its device, on a processor its own."""
        return memory_bytes(self.device)

    def trace(self, folder: Path) -> AbstractContextManager[None]:
        """Trace what is done within for the framework's viewer."""
        return trace(self.device, folder, f"process-{self.rank}")

    def facts(self) -> dict[str, Any]:
        """Return what the outcome tells of the framework: precision, parameters, versions."""
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        own = [weight for name, weight in self.net.named_parameters() if not name.startswith(GUIDE)]
        parameters = sum(weight.numel() for weight in own)
        return {"precision": self.precision, "parameters": parameters, "versions": versions}


def main(path: Path) -> None:
    """Join the other processes and train."""
    job = read_job(path)
    rank, local = (int(os.environ[name]) if job.processes > 1 else 0 for name in ("RANK", "LOCAL_RANK"))
    with at_work(job.folder, rank):
        device = open_device(job.device, local)
        join(job)
        Loop(Trainer(job, device, rank)).run()
        # Only after success: a failed process ends at once, and the others with it.
        if dist.is_initialized():
            dist.destroy_process_group()
