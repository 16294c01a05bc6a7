"""What the writers of all formats share, and those of MindIR and ONNX, which the frameworks write themselves."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from wordmill.inference.card import ANY
from wordmill.models.checkpoint import Checkpoint
from wordmill.pictures.image import Picture
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Export
from wordmill.shards.loader import Batch
from wordmill.store.storage import file_facts

ENCODER, STEP = "encoder.onnx", "decoder_step.onnx"


class NotMadeError(RuntimeError):
    """A format cannot be made here; the message says what is missing and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What a format is made of.

    pictures: of the reference, uint8 (N, H, W, C), from the validation set. validation: gives labelled samples of it.
    """

    settings: Export
    saved: Checkpoint
    pictures: Picture
    validation: Callable[[], Batch]
    folder: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A format's files: those of the model by batch size (or `any`), others beside them, and what is to be told.

    The three flags are what card.describe asks.
    """

    models: dict[str, Path]
    precision: str = "fp32"
    others: tuple[Path, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    card: dict[str, Any] = dataclasses.field(default_factory=dict)
    decoded: bool = False
    raw: bool = False
    any_width: bool = False


def exporter(framework: str, export_format: str) -> ModuleType:
    """Return the framework's module that exports; NotMadeError with the line that installs it."""
    requirements = {"pytorch": "torch", "mindspore": "mindspore"}[framework]
    try:
        return frameworks.twin(framework, "models.export")
    except ImportError as error:
        raise NotMadeError(f"format {export_format}: {error}: pip install -r requirements/{requirements}.txt "
                           "-c requirements/constraints.txt") from None  # fmt: skip


def model_path(folder: Path, suffix: str, batch: int | None) -> Path:
    """Return the path of a model's file: model.onnx, or model_b16.onnx for one batch size."""
    return folder / (f"model_b{batch}.{suffix}" if batch else f"model.{suffix}")


def write_mindir(source: Source) -> Written:
    """Write MindIR, whatever framework trained the weights."""
    settings, models = source.settings, {}
    for batch in settings.batches or (None,):
        path = model_path(source.folder, "mindir", batch)
        exporter("mindspore", "mindir").export_mindir(source.saved, path, batch, settings.any_width)
        models[str(batch or ANY)] = path
    return Written(models=models, any_width=settings.any_width)


def write_onnx(source: Source) -> Written:
    """Write ONNX that decodes by itself, whatever framework trained the weights; for a beam search in two parts too."""
    settings, models = source.settings, {}
    pytorch = exporter("pytorch", "onnx")
    for batch in settings.batches or (None,):
        path = model_path(source.folder, "onnx", batch)
        pytorch.export_onnx(source.saved, path, settings.opset, batch, settings.any_width)
        models[str(batch or ANY)] = path
    if not settings.beam:
        return Written(models=models, decoded=True, any_width=settings.any_width)
    paths = {"encoder": source.folder / ENCODER, "step": source.folder / STEP}
    ports = pytorch.export_pair(source.saved, paths["encoder"], paths["step"], settings.opset)
    parts = {name: {"file": file_facts(path), **ports[name]} for name, path in paths.items()}
    return Written(models=models, others=tuple(paths.values()), card={"beam": parts}, decoded=True)


def write_int8(export_format: str, source: Source) -> Written:
    """Write ONNX in 8-bit integers, calibrated on the reference's pictures; NotMadeError where that costs too much."""
    pytorch = exporter("pytorch", export_format)
    whole, path = source.folder / "fp32.onnx", source.folder / "model.onnx"
    pytorch.export_onnx(source.saved, whole, source.settings.opset)
    frameworks.prepare("pytorch")
    from wordmill.inference import quantise

    operators = export_format.endswith("_qoperator")
    quantise.quantise(whole, path, source.pictures, source.saved.data.middle, operators)
    cost = quantise.measure_quantised(whole, path, source.validation(), source.saved)
    if quantise.least_loss(cost) > source.settings.int8_loss:
        raise NotMadeError(f"format {export_format}: reads {cost['int8']:.2%} of {cost['samples']:,} validation words "
                           f"right where fp32 reads {cost['fp32']:.2%}: with 95 % certainty that is more than "
                           f"export.int8_loss, {source.settings.int8_loss:.2%}")  # fmt: skip
    whole.unlink()
    return Written(models={ANY: path}, precision="int8", facts={"accuracy": cost}, decoded=True)
