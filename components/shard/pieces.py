"""Shards of a data set, each made by one process per core and stored at once under a manifest of its own.

While one shard is stored the next are made, and work that was killed goes on behind the last shard that is stored.
"""

import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.shard.packing import Packed, Task, pack_shard
from wordmill.shards.index import INDEX, Index
from wordmill.store.artifacts import Manifest
from wordmill.store.keys import Ingredients
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store

PRINTS = "fingerprints.npy"  # by which pictures are known again, in their stored order
UPLOADS = 2  # shards per core that are being stored or wait for a core


def pieces(
    store: Store, name: str, inputs: dict[str, Any], ingredients: Ingredients, tasks: list[Task]
) -> Generator[Manifest]:
    """Yield the manifest of each task's shard, in order; `inputs` and `ingredients` are those of the whole data set.

    Closing it ends the work.
    """
    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    with _workers(workers) as run, ThreadPoolExecutor(UPLOADS * workers) as threads:
        try:
            yield from threads.map(partial(_piece, store, name, inputs, ingredients, run), tasks)
        except BrokenProcessPool:
            raise RuntimeError("a worker process of the shard stage was killed: most likely memory ran out") from None
        finally:
            threads.shutdown(cancel_futures=True)


def _piece(
    store: Store, name: str, inputs: dict[str, Any], ingredients: Ingredients, run: Callable[[Task], Packed], task: Task
) -> Manifest:
    own = {"dataset": inputs, "samples": [task.start, task.stop]}
    make = partial(_make, store, run, task)
    made, _ = find_or_make(store, "shard", f"{name} {task.path.stem}", own, make, ingredients)
    return made


def _make(store: Store, run: Callable[[Task], Packed], task: Task, folder: Path) -> StageResult:
    here = dataclasses.replace(task, path=folder / task.path.name)
    packed = run(here)
    facts = {"samples": packed.samples, "blocks": len(packed.table.samples), "read": task.stop - task.start,
             "dropped": dict(packed.dropped), "changed": dict(packed.changed),
             "quarantine": packed.quarantine, "tally": packed.tally.lists(),
             "outside": dict(packed.outside)}  # fmt: skip
    if not packed.samples:
        return StageResult(files={}, facts=facts)
    shard = store.put_file(here.path, here.path.name)
    index = Index.of_shard(shard, here.rules.shape, packed.picture, packed.table, packed.measured, packed.content)
    index.save(folder / INDEX)
    np.save(folder / PRINTS, packed.prints)
    return StageResult(files={name: folder / name for name in (INDEX, PRINTS)}, stored=(shard,), facts=facts)


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Task], Packed]]:
    """Give what packs a task in one of so many processes; with one alone, in this process."""
    if count < 2:
        turn = threading.Lock()  # a process cannot open an LMDB file twice

        def packed(task: Task) -> Packed:
            with turn:
                return pack_shard(task)

        yield packed
        return
    # Spawned, because a fork would carry over the locks of this process's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_end_with_parent) as pool:
        try:
            yield lambda task: pool.submit(pack_shard, task).result()
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the stage ends, however it ends; a killed parent tells its workers nothing."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
