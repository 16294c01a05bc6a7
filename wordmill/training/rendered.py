"""Training pictures that are rendered while training: nothing is stored, and no picture comes twice."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

from wordmill.recipe.frameworks import prepended
from wordmill.recipe.sections import Data, Train
from wordmill.shards.loader import Batch
from wordmill.store.artifacts import ROOT

if TYPE_CHECKING:  # a process that trains draws nothing itself
    from wordmill.synth.renderer import SynthSpec

FEEDER = "wordmill.training.feeder"


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A rendered training set of which no picture is stored."""

    spec: "SynthSpec"
    data: Data

    @property
    def samples(self) -> int:
        """Pictures in an epoch."""
        return min(self.spec.count, self.data.limit or self.spec.count)


def rendered_batches(
    spec: "SynthSpec", data: Data, train: Train, *, batch: int, rank: int, ranks: int, steps: int, start_step: int = 0
) -> Iterator[Batch]:
    """Yield this rank's `batch` samples of the steps start_step <= s < steps, counted over all epochs.

    Global batch s holds the pictures s * batch * ranks and on of the set, whatever its count, in their order, changed
    as the recipe's `train` says; rank r gets its rows r * batch to (r + 1) * batch. A process of its own renders them
    ahead; RuntimeError where it ends.
    """
    receiver, sender = Pipe(duplex=False)
    firsts = range((start_step * ranks + rank) * batch, steps * ranks * batch, ranks * batch)
    told = {"spec": dataclasses.asdict(spec), "data": dataclasses.asdict(data),
            "train": dataclasses.asdict(train), "start": firsts.start,
            "stop": firsts.stop, "stride": firsts.step, "batch": batch}  # fmt: skip
    # Not multiprocessing's process: it would import the trainer's main module, and with it the framework.
    command = [sys.executable, "-m", FEEDER, str(sender.fileno()), json.dumps(told)]
    search = {"PYTHONPATH": prepended("PYTHONPATH", ROOT)}
    with receiver, subprocess.Popen(command, pass_fds=[sender.fileno()], env=os.environ | search) as feeder:
        sender.close()  # so that the pipe ends with the feeder
        try:
            for _ in firsts:
                yield receiver.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(
                f"the process that renders training pictures ended with status {feeder.wait()}: its error stands "
                "above; without one, most likely memory ran out"
            ) from error
        finally:
            feeder.kill()
