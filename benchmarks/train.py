"""Speed of whole training runs from local shards, in both frameworks, beside a DTRB-style loop: one table, one run.

python -m benchmarks.train [--rounds 3] [--steps 12] [--quick] [--json]

crnn_vgg7 learns the same rendered JPEGs of MJSynth's size everywhere: from shards of RGB here, from an LMDB environment
of JPEGs, in gray, in the loop written anew from what deep-text-recognition-benchmark publishes. Workers are started as
the train stage starts them; each process has one thread, and a run as many processors as processes. Runs take turns,
round after round, and medians count. Pictures a second are by the clock, from the third step to the last; what a
picture costs in processor time, user and system, is disturbed less by other work on the machine. Two processes share
the global batch, the recipe's, that one has alone. MindSpore's bare step is its compiled graphs called on one batch
again and again, in the process that runs the loop, in turn with it.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from benchmarks.data_rows import against, alone
from benchmarks.models import Row, table
from benchmarks.train_runs import Ran, Samples, Turn, make_job, make_samples, run_job, run_peer, run_turns
from wordmill.recipe.arguments import from_one
from wordmill.recipe.frameworks import Framework
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe

Result = TypeVar("Result")

FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)
RECIPE = Path(__file__).resolve().parents[1] / "pipelines" / "recipes" / "crnn_vgg7.yaml"
STEPS, ROUNDS = 12, 3
QUICK_BATCH = 8
PEER = "DTRB-style loop"
SCALING, PEER_RATIO, BARE_RATIO = 1.8, 2.0, 0.95  # goals, the least
START_S, WAIT_PERCENT = 15.0, 2.0  # goals, the most
RATE, CPU, STEP = "pictures/s", "ms CPU/picture", "ms/step"


def name_of(framework: str, processes: int) -> str:
    """Return the name of a run."""
    return f"{framework}, {processes} process{'es' if processes > 1 else ''}"


def contenders(recipe: Recipe, samples: Samples, batch: int, steps: int, folder: Path) -> dict[str, Callable[[], Ran]]:
    """Return the runs by name: each framework in one process and in two, and the peer."""
    work: dict[str, Callable[[], Ran]] = {PEER: partial(run_peer, samples, batch, steps, folder)}
    for framework in FRAMEWORKS:
        for processes in (1, 2):
            job = make_job(recipe, framework, processes, batch, samples, folder)
            work[name_of(framework, processes)] = partial(run_job, job)
    return work


def measure(recipe: Recipe, rounds: int, steps: int, batch: int, folder: Path) -> tuple[dict[str, Ran], Turn]:
    """Let all runs take turns; the medians of each, and of the turns of MindSpore's loop and its bare step."""
    samples = make_samples(recipe, steps * batch, folder)
    work = contenders(recipe, samples, batch, steps, folder / "run")
    bare = make_job(recipe, "mindspore", 1, batch, samples, folder / "run")
    found: dict[str, list[Ran]] = {name: [] for name in work}
    turns = []
    for number in range(1, rounds + 1):
        for name, run in work.items():
            found[name].append(alone_in(folder / "run", f"round {number} of {rounds}: {name}", run))
        title = f"round {number} of {rounds}: mindspore, bare step"
        turns += alone_in(folder / "run", title, partial(run_turns, bare))
    return {name: median(runs) for name, runs in found.items()}, median(turns)


def alone_in(folder: Path, title: str, run: Callable[[], Result]) -> Result:
    """Do something that is given a folder of its own, said to whoever waits."""
    print(title, file=sys.stderr, flush=True)
    folder.mkdir()
    result = run()
    shutil.rmtree(folder)
    return result


def median(results: list[Result]) -> Result:
    """Return the median of each field."""
    rows = [dataclasses.asdict(result) for result in results]  # type: ignore[call-overload]
    return type(results[0])(**{key: statistics.median(row[key] for row in rows) for key in rows[0]})


def rows_of(found: dict[str, Ran], turn: Turn) -> list[Row]:
    """Make the table's lines."""
    rows = []
    for framework in FRAMEWORKS:
        first, second = name_of(framework, 1), name_of(framework, 2)
        one, two = found[first], found[second]
        rows += [
            alone(first, one.rate, RATE),
            against(second, two.rate, RATE, "1 process", one.rate, SCALING, rate=True),
            against(second, two.cpu_ms, CPU, "1 process", one.cpu_ms),
        ]
    peer, ours = found[PEER], name_of("pytorch", 1)
    rows += [
        alone(PEER, peer.rate, RATE),
        against(ours, found[ours].rate, RATE, PEER, peer.rate, PEER_RATIO, rate=True),
        against(ours, found[ours].cpu_ms, CPU, PEER, peer.cpu_ms),
        against("mindspore, step of the loop", turn.loop_ms, STEP, "bare step", turn.bare_ms, BARE_RATIO),
        against("mindspore, step of the loop", turn.loop_cpu_ms, "ms CPU/step", "bare step", turn.bare_cpu_ms),
    ]
    runs = {name: run for name, run in found.items() if name != PEER}
    rows += [alone(f"{name}, start to first step", run.start_s, "s", START_S) for name, run in runs.items()]
    return rows + [
        alone(f"{name}, waiting for data", 100 * run.wait, "% of the time", WAIT_PERCENT) for name, run in runs.items()
    ]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--rounds", type=from_one, default=ROUNDS)
    parser.add_argument("--steps", type=from_one, default=STEPS, help=f"of each run, {STEPS} or more")
    parser.add_argument("--quick", action="store_true", help="one round of little, to see that everything works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.steps < STEPS:
        parser.error(f"--steps {options.steps}: expected at least {STEPS}")
    return options


def main() -> None:
    """Measure, and print the table or its rows as JSON."""
    options, recipe = parse(), load_recipe(RECIPE)
    rounds, batch = (1, QUICK_BATCH) if options.quick else (options.rounds, recipe.train.global_batch)
    with tempfile.TemporaryDirectory(prefix="wordmill-benchmark-") as folder:
        rows = rows_of(*measure(recipe, rounds, options.steps, batch, Path(folder)))
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
