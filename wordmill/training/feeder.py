"""The program that renders training pictures beside a training process: `python -m wordmill.training.feeder`."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from wordmill.pictures.image import fit_picture
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data, Train
from wordmill.shards.loader import Batch
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.training.targets import edits_of


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What is to be rendered: batches of so many pictures, from numbers start, start + stride ... before stop on.

    The stride is the global batch.
    """

    spec: SynthSpec
    data: Data
    train: Train
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
            pictures, labels = zip(*samples, strict=True)
            rows = slice(first % wanted.stride, first % wanted.stride + wanted.batch)
            if edits := edits_of(wanted.train, 1, rows, first // wanted.stride):
                pictures = tuple(edit(image) for edit, image in zip(edits, pictures, strict=True))
            images = np.stack([fit_picture(image, wanted.data) for image in pictures])
            sender.send(Batch(images=images, labels=list(labels)))


if __name__ == "__main__":
    main(*sys.argv[1:])
