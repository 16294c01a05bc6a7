"""The program that renders training pictures beside a training process: `python -m wordmill.training.feeder`."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from wordmill.pictures.image import fit_picture
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.shards.loader import Batch
from wordmill.synth.renderer import Renderer, SynthSpec


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What is to be rendered: batches of so many pictures, from numbers start, start + stride ... before stop on."""

    spec: SynthSpec
    data: Data
    start: int
    stop: int
    stride: int
    batch: int


def main(descriptor: str, told: str) -> None:
    """Render batches into a pipe, one ahead of the trainer; end when the trainer does, however it ends."""
    wanted = from_json(Batches, told)
    renderer = Renderer(wanted.spec)
    with suppress(BrokenPipeError), Connection(int(descriptor), readable=False) as sender:
        for first in range(wanted.start, wanted.stop, wanted.stride):
            samples = [renderer.sample(index) for index in range(first, first + wanted.batch)]
            images = np.stack([fit_picture(image, wanted.data) for image, _ in samples])
            sender.send(Batch(images=images, labels=[label for _, label in samples]))


if __name__ == "__main__":
    main(*sys.argv[1:])
