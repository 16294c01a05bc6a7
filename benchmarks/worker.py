"""A process with one contender, which takes part in a round whenever it is told to.

python benchmarks/worker.py SOCKET THREADS CONTENDER RECIPE.yaml training|inference|reading BATCH DEVICE
"""

import json
import os
import resource
import socket
import sys
import time
from pathlib import Path

if not __package__:  # msrun starts a file, not a module
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import ours
from benchmarks.contender import Contender
from wordmill.recipe.loading import load_recipe


def build(name: str, path: Path, mode: str, batch: int, device: str) -> Contender:
    """Return the contender of a name; each comes with its own framework, so nothing is imported for another."""
    recipe = load_recipe(path)
    if mode == "reading":
        from benchmarks import readers

        return readers.contender(recipe, name, batch, len(os.sched_getaffinity(0)))
    if name == "dtrb":
        from benchmarks.peers import dtrb

        return dtrb.contender(recipe, mode, batch, device)
    if name == "doctr":
        from benchmarks.peers import doctr_crnn

        return doctr_crnn.contender(recipe, mode, batch, device)
    if name == "mindocr":
        from benchmarks.peers import mindocr_recognisers

        return mindocr_recognisers.contender(recipe, mode, batch, device)
    return ours.contender(recipe, mode, batch, device, name)


def spent_s() -> float:
    """Return the processor time of this process so far, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(contender: Contender, batch: int, seconds: float) -> tuple[float, float]:
    """Run for so long, at least once; return milliseconds per picture: of processor time, and by the clock."""
    cpu, start, runs = spent_s(), time.monotonic(), 0
    while not runs or time.monotonic() - start < seconds:
        contender.run()
        runs += 1
    per_picture = 1000.0 / (runs * batch)
    return (spent_s() - cpu) * per_picture, (time.monotonic() - start) * per_picture


def main(address: str, threads: str, name: str, recipe: str, mode: str, batch: str, device: str) -> None:
    """Build the contender and run it once, connect, then measure one round for each line that comes."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    contender = build(name, Path(recipe), mode, int(batch), device)
    contender.run()  # compiles, allocates
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(address)
        with link.makefile("rw") as lines:
            print(json.dumps({"flops": contender.flops}), file=lines, flush=True)
            for seconds in lines:
                print(json.dumps(measure(contender, int(batch), float(seconds))), file=lines, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
