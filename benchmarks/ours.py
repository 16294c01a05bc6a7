"""This project's recognisers as contenders: the trainer's own step and the predictor, in either framework."""

import dataclasses
import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contender import Contender, made_pictures, made_words
from wordmill.models.checkpoint import Checkpoint
from wordmill.recipe.frameworks import twin
from wordmill.recipe.sections import Recipe
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.index import Index, measure_labels
from wordmill.store.storage import Object
from wordmill.text.charset import charset_of
from wordmill.text.decoding import codec_of
from wordmill.training.job import Job
from wordmill.training.stream import training_stream

BACKWARD = 3  # a training step is about three times the forward pass


def contender(recipe: Recipe, mode: str, batch: int, device: str, framework: str) -> Contender:
    """Return one training step on a batch that lies ready, or one batch's prediction from uint8 pictures to logits."""
    flops = count_flops(recipe) if device == "cuda" else 0.0
    if mode == "training":
        return Contender(training(recipe, batch, device, framework), BACKWARD * flops)
    predict, model = twin(framework, "models.predict"), twin(framework, "models.model")
    predict.open_device(device)
    net = model.build(recipe.model, recipe.data, codec_of(recipe.model, recipe.data).classes)
    tensors = twin(framework, "models.weights").dump(net)
    checkpoint = Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=0)
    return Contender(functools.partial(predict.Predictor(checkpoint, device), made_pictures(recipe, batch)), flops)


def training(recipe: Recipe, batch: int, device: str, framework: str) -> functools.partial[None]:
    """Return a function that makes one step of the recipe's trainer and reads its result."""
    job = make_job(recipe, batch, device, Path(tempfile.mkdtemp()))
    trainer = (pytorch_trainer if framework == "pytorch" else mindspore_trainer)(job)
    stream = training_stream(trainer.context)
    return functools.partial(step, trainer, next(stream), recipe.train.lr, itertools.count(1))


def step(trainer: Any, parts: Any, rate: float, numbers: Iterator[int]) -> None:
    """Make one step and wait for it."""
    trainer.result(trainer.step(next(numbers), parts, rate, (False, False)))


def make_job(recipe: Recipe, batch: int, device: str, folder: Path) -> Job:
    """Return a job of one epoch on shards of made-up samples, two batches of them, of pictures that lie ready."""
    data = dataclasses.replace(recipe.data, stored="decoded")
    augment = recipe.train.augment if recipe.train.augment == "views" else "none"  # others change pictures before that
    shape, shard, words = (data.height, data.width, data.channels), folder / "made.shard", made_words(recipe, 2 * batch)
    with ShardWriter(shard, shape, 2 * batch) as writer:
        for picture, word in zip(made_pictures(recipe, 2 * batch), words, strict=True):
            writer.add(picture, word)
    entry = Object(name=shard.name, sha256="", bytes=shard.stat().st_size)
    index = folder / "made.npz"
    measured = measure_labels(words, charset_of(data))
    Index.of_shard(entry, shape, None, writer.table, measured, writer.content).save(index)
    train = dataclasses.replace(
        recipe.train, epochs=1, global_batch=batch, warmup_epochs=0.0, validations_per_epoch=1, start_from="",
        augment=augment,
    )  # fmt: skip
    return Job(
        data=data, model=recipe.model, train=train, train_sets=(index,), val_sets=(index,), start=None,
        device=device, processes=1, folder=folder,
    )  # fmt: skip


def pytorch_trainer(job: Job) -> Any:
    """Return the trainer of a process by itself."""
    return twin("pytorch", "training.train").Trainer(job, twin("pytorch", "models.predict").open_device(job.device), 0)


def mindspore_trainer(job: Job) -> Any:
    """Return the trainer of a process alone, or of one that msrun started; its scheduler goes no further than init."""
    twin("mindspore", "models.predict").open_device(job.device)
    if "MS_ROLE" in os.environ:
        from mindspore.communication import init

        os.environ.setdefault("DEVICE_ID", "0")
        init()
    return twin("mindspore", "training.train").Trainer(job, 0)


def count_flops(recipe: Recipe) -> float:
    """Count the operations of the forward pass for one picture, a multiplication and an addition as two.

    Without oneDNN PyTorch takes an LSTM apart into the matrix products that its counter knows.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    classes = codec_of(recipe.model, recipe.data).classes
    net = twin("pytorch", "models.model").build(recipe.model, recipe.data, classes).eval()
    picture = torch.zeros(1, recipe.data.channels, recipe.data.height, recipe.data.width)
    with torch.backends.mkldnn.flags(enabled=False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(picture)
    return float(counter.get_total_flops())
