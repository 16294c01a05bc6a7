"""A MindSpore worker whose training loop takes turns with its bare step: msrun ... benchmarks/train_bare.py JOB OUTPUT.

OUTPUT gets a list of train_runs.Turn as JSON.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # msrun starts a file, not a module
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from wordmill.recipe.frameworks import twin
from wordmill.store.children import die_with_parent
from wordmill.training.job import read_job
from wordmill.training.loop import Loop
from wordmill.training.stream import training_stream
from wordmill.training.worker import at_work

TURN = 4  # steps
WARM = 3  # steps that are not timed


def bare_step(trainer: Any, parts: Any) -> Callable[[], Any]:
    """Return what calls the compiled graphs of a step on one batch, which lies ready as tensors."""
    import mindspore as ms

    (tensors,), rate = trainer.inputs(parts, (False, False)), ms.Tensor(0.0, ms.float32)
    return lambda: trainer.update(trainer.gradients(*tensors), rate)


def main(path: Path, output: Path) -> None:
    """Train a few steps, then let loop and bare step take turns until the plan has no steps left."""
    die_with_parent()
    job = read_job(path)
    with at_work(job.folder, 0):
        twin("mindspore", "models.predict").open_device(job.device)
        from mindspore.communication import get_rank, init

        init()
        loop = Loop(twin("mindspore", "training.train").Trainer(job, get_rank()))
        output.write_text(json.dumps(take_turns(loop)), encoding="utf-8")


def take_turns(loop: Any) -> list[dict[str, float]]:
    """Return what each turn has taken: TURN steps of the loop, then as many bare ones."""
    bare = bare_step(loop.trainer, next(training_stream(loop.context)))
    steps = iter(range(1, loop.plan.steps))  # the last one would be followed by a validation

    def of_loop(number: int) -> None:
        for step in itertools.islice(steps, number):
            loop.step(step)
        loop.settle()

    def of_bare(number: int) -> None:
        results = [bare() for _ in range(number)]
        results[-1].asnumpy()

    of_loop(WARM)
    of_bare(WARM)
    return [timed("loop", of_loop) | timed("bare", of_bare) for _ in range((loop.plan.steps - 1 - WARM) // TURN)]


def timed(name: str, run: Callable[[int], None]) -> dict[str, float]:
    """Return the milliseconds that a step takes by the clock and of the processor, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(TURN)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    return {f"{name}_ms": 1000 * taken[0] / TURN, f"{name}_cpu_ms": 1000 * taken[1] / TURN}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
