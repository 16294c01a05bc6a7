"""Training pictures that are rendered while training: nothing is stored, and no picture comes twice."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe

import numpy as np

from wordmill.pictures.image import fit_picture
from wordmill.recipe.frameworks import prepended
from wordmill.recipe.parsing import from_json, to_json
from wordmill.recipe.sections import Data
from wordmill.shards.loader import Batch
from wordmill.store.artifacts import ROOT
from wordmill.synth.renderer import Renderer, SynthSpec


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A rendered training set of which no picture is stored."""

    spec: SynthSpec
    data: Data

    @property
    def samples(self) -> int:
        """Pictures in an epoch."""
        return min(self.spec.count, self.data.limit or self.spec.count)


def rendered_batches(
    spec: SynthSpec, data: Data, *, batch: int, rank: int, ranks: int, steps: int, start_step: int = 0
) -> Iterator[Batch]:
    """Yield this rank's `batch` samples of the steps start_step <= s < steps, counted over all epochs.

    Global batch s holds the pictures s * batch * ranks and on of the set, whatever its count, in their order; rank r
    gets its rows r * batch to (r + 1) * batch. A process of its own renders them ahead; RuntimeError where it ends.
    """
    receiver, sender = Pipe(duplex=False)
    firsts = range((start_step * ranks + rank) * batch, steps * ranks * batch, ranks * batch)
    told = [dataclasses.asdict(spec), to_json(data), [firsts.start, firsts.stop, firsts.step, batch]]
    # Not multiprocessing's process: it would import the trainer's main module, and with it the framework.
    command = [sys.executable, "-m", __name__, str(sender.fileno()), json.dumps(told)]
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


def main(descriptor: str, told: str) -> None:
    """Render batches into a pipe, one ahead of the trainer; end when the trainer does, however it ends."""
    spec, section, (start, stop, stride, batch) = json.loads(told)
    renderer, data = Renderer(SynthSpec(**spec)), from_json(Data, section)
    with suppress(BrokenPipeError), Connection(int(descriptor), readable=False) as sender:
        for first in range(start, stop, stride):
            samples = [renderer.sample(index) for index in range(first, first + batch)]
            images = np.stack([fit_picture(image, data) for image, _ in samples])
            sender.send(Batch(images=images, labels=[label for _, label in samples]))


if __name__ == "__main__":
    main(*sys.argv[1:])
