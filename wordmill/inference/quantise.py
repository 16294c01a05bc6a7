"""ONNX in 8-bit integers: static quantisation of an exported file by ONNX Runtime, and what it costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from wordmill.inference.onnx_runtime import onnxruntime  # isort: skip  # before any other part of it
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ports import INPUT, LOGITS
from wordmill.pictures.image import Picture, normalise
from wordmill.shards.loader import Batch
from wordmill.store.files import atomic_file
from wordmill.text.decoding import Logits, codec_of
from wordmill.text.protocols import is_correct

BATCH = 16  # pictures at a time: calibration keeps every layer's outputs of all of them


class _Pictures(CalibrationDataReader):
    """Pictures (N, H, W, C) as the file takes them, batch by batch."""

    def __init__(self, pictures: Picture, middle: float) -> None:
        self.batches = _batches(pictures, middle)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Return the next batch, None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def quantise(source: Path, path: Path, pictures: Picture, middle: float) -> None:
    """Write an ONNX file with its convolutions in integers; uint8 (N, H, W, C) pictures give the ranges.

    Weights have a scale per channel. What follows the convolutions stays in fp32: ONNX Runtime has no LSTM in
    integers, and with the last layer in them a CRNN's file became 1 % smaller and no faster.
    """
    prepared = path.with_name(f"{path.name}.prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    with atomic_file(path) as temporary:
        quantize_static(
            str(prepared), str(temporary), _Pictures(pictures, middle), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        onnx.checker.check_model(str(temporary), full_check=True)
    prepared.unlink()


def measure_quantised(whole: Path, quantised: Path, samples: Batch, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the word accuracy of both files on labelled samples, and on how many they read the same text.

    The accuracy is by the rules that the recipe reports by, of the samples that these count.
    """
    codec = codec_of(checkpoint.model, checkpoint.data)
    read = {name: codec.decode(_logits(path, samples.images, checkpoint.data.middle))[0]
            for name, path in (("fp32", whole), ("int8", quantised))}  # fmt: skip
    protocol, count = checkpoint.train.protocol, len(samples.labels)
    shares = {}
    for name, texts in read.items():
        found = [is_correct(protocol, *pair, codec.charset) for pair in zip(texts, samples.labels, strict=True)]
        shares[name] = found.count(True) / max(1, count - found.count(None))
    equal = sum(one == other for one, other in zip(*read.values(), strict=True))
    return {"samples": count, "texts_equal": equal, **shares}


def _logits(path: Path, pictures: Picture, middle: float) -> Logits:
    """Return a file's logits (N, T, classes) of pictures (N, H, W, C)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([LOGITS], {INPUT: batch})[0] for batch in _batches(pictures, middle)])


def _batches(pictures: Picture, middle: float) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(pictures), BATCH):
        yield normalise(pictures[start : start + BATCH], middle)
