"""How many parts a process's batch goes through the network in, so that memory does."""

import dataclasses

from components.train.checkpoints import Sections, kept_parts
from components.train.memory import GIB, Machine
from wordmill.recipe.memory import bytes_needed, parts_that_fit
from wordmill.recipe.sections import Train
from wordmill.store.storage import Store


def in_parts(store: Store, resume: str, sections: Sections, device: str, processes: int, by_job: bool) -> Train:
    """Return the section with its parts: the recipe's own, a half-done run's, or as many as this machine's memory asks.

    Other devices' need is not measured, and the memory of a job's nodes not known: there a batch is one part.
    """
    data, model, train = sections
    if train.accumulation:
        return train
    kept = kept_parts(store, resume, store.cache / "training" / resume / "checkpoints")
    if kept or device != "cpu" or by_job:
        return dataclasses.replace(train, accumulation=kept or 1)
    memory = Machine().memory_bytes()
    fitting = dataclasses.replace(train, accumulation=parts_that_fit(train, data, model, processes, memory))
    if fitting.parts > 1:
        needed = bytes_needed(fitting, data, model, processes)
        size = train.global_batch // processes // fitting.parts
        print(f"train: a process's batch goes in {fitting.parts} parts of {size} pictures, for which it needs about "
              f"{needed / GIB:.1f} GiB: there are {memory / GIB:.1f} GiB for {processes}", flush=True)  # fmt: skip
    return fitting
