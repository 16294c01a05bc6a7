"""The training loop, the same in every framework: steps, validation, checkpoints, and when to stop."""

import json
import math
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Generic

import numpy as np

from wordmill.models.checkpoint import Checkpoint, Tensors, check_fit, load, save
from wordmill.store.artifacts import git_commit
from wordmill.store.files import write_atomically
from wordmill.training.calibration import calibrate
from wordmill.training.job import start_of
from wordmill.training.records import METRICS, NONFINITE_LIMIT, UNFIT, Metrics, Notice, Pulse, keep_nonfinite
from wordmill.training.reference import write_reference
from wordmill.training.state import RunProgress, Saver, Scored, State, best_path, read_state, undo, warn, with_room
from wordmill.training.stream import MicroBatch, training_stream
from wordmill.training.trainer import STATISTICS, Handle, Trainer, Vector
from wordmill.training.validation import score

LAG = 2  # steps that are begun before the result of one is taken, which waits for the device
TRACED_AFTER = 10  # steps: the first ones are not like the others
STOP = "stop"  # a file in the run's folder by which the stage asks for a checkpoint and the end
TRACE = "trace"  # the folder of a trace
# Among the tensors that processes share: steps done, left out, left out in a row, scored, validations without better.
PROGRESS = "progress"


class DivergedError(RuntimeError):
    """Training does not get on, and would not if it were started again."""


class Loop(Generic[Handle]):
    """A run of one process from its start, or from a checkpoint, to its end, or to where it is stopped."""

    def __init__(self, trainer: Trainer[Handle]) -> None:
        self.trainer, self.context = trainer, trainer.context
        self.job, self.rank, self.plan = self.context.job, self.context.rank, self.context.plan
        job, plan, self.leads = self.job, self.plan, self.rank == 0
        self.started_from = start_of(job) if job.train.start_share else None
        self.progress = self.resume()
        done = self.progress.step
        self.began = time.monotonic() - self.progress.seconds
        self.stream = training_stream(self.context, done)
        first = max(done + 1, min(done + 1 + TRACED_AFTER, plan.steps + 1 - job.train.profile))
        self.traced = range(first, min(first + job.train.profile, plan.steps + 1)) if self.leads else range(0)
        self.checkpoints = job.folder / "checkpoints"
        self.tell: Callable[[str], None] = Notice(job.folder).tell if self.leads else warn
        every_s, sections = 60 * job.train.checkpoint_minutes, (job.data, job.model, job.train)
        self.saver = Saver(self.checkpoints, every_s, sections, self.tell, self.progress.missed)
        if self.leads:
            undo(self.checkpoints, done)
        self.metrics, self.pulse = Metrics(job, plan, done), Pulse(job.folder, self.rank)
        self.begun: deque[tuple[int, list[MicroBatch], Handle]] = deque()  # steps whose result was not taken yet
        self.taken, self.start_s = done, math.nan
        self.save = self.stop = False
        self.last = done  # the step that was begun last
        self.ended = self.lost_patience()

    def resume(self) -> RunProgress:
        """Return how far the run is, after all processes have taken over the checkpoint that process 0 reads."""
        progress, given = RunProgress(), self.trainer.state()
        if self.leads and self.job.resume:
            state = read_state(self.job.resume)
            tensors = respread(state.tensors, self.job.processes)
            check_fit({name: tensor.shape for name, tensor in given.items()}, tensors, str(self.job.resume))
            progress, given = state.progress, tensors
        counters = [progress.step, progress.nonfinite, progress.nonfinite_in_a_row, progress.scored, progress.worse]
        shared = self.trainer.share(given | {PROGRESS: np.array(counters, np.float32)})  # exact up to 2^24 steps
        step, nonfinite, in_a_row, scored, worse = shared.pop(PROGRESS).astype(int).tolist()
        self.trainer.restore(shared)
        attempt = {"step": step, "processes": self.job.processes, "code": self.job.code,
                   "git_commit": git_commit() if self.leads else ""}  # fmt: skip
        return replace(progress, step=step, nonfinite=nonfinite, nonfinite_in_a_row=in_a_row, scored=scored,
                       worse=worse, attempts=(*progress.attempts, attempt))  # fmt: skip

    def run(self) -> bool:
        """Train to the end and leave its records; False where it was stopped, with a checkpoint of where."""
        if self.leads:
            unfit = self.context.unfit
            self.metrics.write(self.progress.step, {} if unfit is None else {UNFIT: unfit})
        done = self.progress.step
        if done in self.plan.validate_after and self.progress.scored < done:
            self.validate(done)
        with ExitStack() as tracing:
            for step in range(done + 1, self.plan.steps + 1):
                if self.stop or self.ended:
                    break
                if step == self.traced.start and self.traced:
                    (self.job.folder / TRACE).mkdir(exist_ok=True)
                    tracing.enter_context(self.trainer.trace(self.job.folder / TRACE))
                self.step(step)
                if step == self.traced.stop - 1:
                    tracing.close()
                if self.save or self.stop:
                    self.keep(step)
        if self.stop:
            self.saver.wait()
            return False
        if self.progress.step < self.last:
            self.keep(self.last)
        self.finish()
        return True

    def step(self, step: int) -> None:
        """Do one step, and what is due after it."""
        waiting = time.monotonic()
        parts = next(self.stream)
        self.metrics.waited_s += time.monotonic() - waiting
        asked = self.leads and self.saver.due(), self.asked_to_stop()
        rate = float(self.plan.rates[step - 1])
        self.begun.append((step, parts, self.trainer.step(step, parts, rate, asked)))
        self.last = step
        self.pulse.beat(step)
        while len(self.begun) > (0 if math.isnan(self.start_s) else LAG):
            self.take_result()
        if step in self.plan.validate_after:
            self.validate(step)
        elif self.leads and self.metrics.due():
            self.metrics.training(self.taken, self.trainer.memory_bytes())

    def asked_to_stop(self) -> bool:
        """Tell whether the stage of this process's machine has asked for the end."""
        return (self.job.folder / STOP).exists()

    def take_result(self) -> None:
        """Take the result of the first step whose result was not taken yet; DivergedError after too many bad ones."""
        step, parts, handle = self.begun.popleft()
        result, done = self.trainer.result(handle), self.progress
        finite = math.isfinite(result.norm)
        if not finite:
            keep_nonfinite(self.job.folder, step, self.rank, parts)
        self.progress = replace(done, nonfinite=done.nonfinite + (not finite),
                                nonfinite_in_a_row=0 if finite else done.nonfinite_in_a_row + 1)  # fmt: skip
        if self.progress.nonfinite_in_a_row >= NONFINITE_LIMIT:
            raise DivergedError(
                f"training diverged: the gradients of {NONFINITE_LIMIT} steps in a row up to step {step} were not "
                f"finite ({self.progress.nonfinite} skipped in all): lower train.lr, set train.clip_norm or use "
                f"train.amp O0; the batches are in {self.job.folder / 'nonfinite'}"
            )
        if math.isnan(self.start_s):
            self.start_s = time.time() - (self.job.folder / "job.json").stat().st_mtime
        if self.leads:
            self.metrics.losses.append(result.loss)
        self.taken = step
        self.save, self.stop = self.save or result.save, self.stop or result.stop

    def settle(self) -> None:
        """Take all results that were not taken yet, and record them."""
        while self.begun:
            self.take_result()
        if self.metrics.losses:
            self.metrics.training(self.taken, self.trainer.memory_bytes())

    def validate(self, step: int) -> None:
        """Score the weights after a step, and keep them where they are the best so far.

        Who asks for the end does not wait for it: whatever goes on from this step then begins with it.
        """
        self.settle()
        weights = self.weights()
        found = None if self.stop else score(self.trainer, weights, lambda: self.pulse.beat(step), self.asked_to_stop)
        if found is None:
            self.stop = True
            return
        self.progress = replace(self.progress, scored=step)
        if self.leads:
            accuracy, loss = found.correct / max(found.total, 1), found.loss_sum / max(found.samples, 1)
            self.metrics.write(step, {"val/accuracy": accuracy, "val/loss": loss})
            finite = loss if math.isfinite(loss) else sys.float_info.max
            self.rank_weights(Scored(step=step, accuracy=accuracy, loss=finite), weights)
        if self.job.train.patience:  # all end with process 0
            worse = self.trainer.gather(np.array([self.progress.worse], np.float32))[0, 0]
            self.progress = replace(self.progress, worse=int(worse))
            self.ended = self.lost_patience()
        self.metrics.begin(step)

    def weights(self) -> Tensors:
        """Return what is scored and stored: the trainer's weights, mixed with those that it started from."""
        weights = self.trainer.weights()
        return weights if self.started_from is None else self.started_from.mixed(weights, self.job.train.start_share)

    def rank_weights(self, scored: Scored, weights: Tensors) -> None:
        """Keep weights that are among the best so far; of equal ones the earlier are better."""
        train, done = self.job.train, self.progress
        ranked = sorted([*done.best, scored], key=lambda one: one.merit(train.choose_by), reverse=True)
        best = tuple(ranked[: train.keep_best])
        if scored in best:
            kept = self.checkpoint(scored.step, weights)
            self.write(lambda: save(best_path(self.checkpoints, scored.step), kept))
        self.progress = replace(done, best=best, worse=0 if best[0] == scored else done.worse + 1)

    def lost_patience(self) -> bool:
        """Tell whether validation has found no better weights for so long that training ends."""
        return 0 < self.job.train.patience <= self.progress.worse

    def checkpoint(self, step: int, weights: Tensors) -> Checkpoint:
        """Return weights with the recipe that made them."""
        return Checkpoint(tensors=weights, data=self.job.data, model=self.job.model, train=self.job.train, step=step)

    def keep(self, step: int) -> None:
        """Keep a checkpoint of this step, written in the background."""
        self.settle()
        self.save = False
        seconds, missed = time.monotonic() - self.began, self.saver.missed
        self.progress = replace(self.progress, step=step, seconds=seconds, missed=missed)
        tensors = self.trainer.state()
        if self.leads:
            state = State(tensors=tensors, progress=self.progress, processes=self.job.processes)
            self.saver.save(state, (self.job.folder / METRICS).read_bytes())

    def finish(self) -> None:
        """Write last.safetensors, best.safetensors, best-2.safetensors and on, reference.npz, at last outcome.json."""
        weights, job, done = self.weights(), self.job, self.progress
        self.saver.wait()
        if not self.leads:
            return
        self.write(lambda: save(job.folder / "last.safetensors", self.checkpoint(done.step, weights)))
        for place, scored in enumerate(done.best[1:], start=2):
            kept, named = best_path(self.checkpoints, scored.step), job.folder / best_name(place)
            self.write(partial(shutil.copyfile, kept, named))
        best = load(best_path(self.checkpoints, done.best[0].step))
        predict = self.trainer.predictor(best)
        self.write(lambda: write_reference(job, predict))
        calibration = calibrate(self.context, predict, lambda: self.pulse.beat(done.step))
        final = replace(best, temperature=calibration.temperature)
        self.write(lambda: save(job.folder / best_name(1), final))
        images = done.step * job.train.global_batch
        outcome = {
            "framework": job.train.framework, "device": job.device, "processes": job.processes,
            "steps": done.step, "images": images, "images_per_s": images / done.seconds,
            "start_s": None if math.isnan(self.start_s) else self.start_s, "val_accuracy": done.best[0].accuracy,
            "best": [asdict(scored) for scored in done.best], "stopped_early": done.step < self.plan.steps,
            **asdict(calibration), "unfit_labels": self.context.unfit, "nonfinite_steps": done.nonfinite,
            "missed_checkpoints": self.saver.missed, "attempts": done.attempts,
        }  # fmt: skip
        text = json.dumps(outcome | self.trainer.facts(), indent=1)
        self.write(lambda: write_atomically(job.folder / "outcome.json", text))

    def write(self, file: Callable[[], object]) -> None:
        """Write a file that results need, on a full disk as soon as there is room."""

        def tell(text: str) -> None:
            self.pulse.beat(self.last)  # or it would be taken for a process that hangs
            self.tell(text)

        with_room(file, self.checkpoints, tell)


def best_name(place: int) -> str:
    """Return the file of a run's best weights, by their place, 1..."""
    return "best.safetensors" if place == 1 else f"best-{place}.safetensors"


def respread(tensors: Tensors, processes: int) -> Tensors:
    """Return a checkpoint's tensors for so many processes: each has its own statistics, or all have their mean."""

    def rows(statistics: Vector) -> Vector:
        if len(statistics) == processes:
            return statistics
        mean = statistics.mean(0, dtype=np.float64).astype(np.float32)
        return np.ascontiguousarray(np.broadcast_to(mean, (processes, *mean.shape)))

    return {name: rows(tensor) if name.startswith(STATISTICS) else tensor for name, tensor in tensors.items()}
