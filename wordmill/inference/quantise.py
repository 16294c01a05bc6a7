"""ONNX in 8-bit integers: static quantisation of an exported file by ONNX Runtime, and what it costs."""

import math
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


def quantise(source: Path, path: Path, pictures: Picture, middle: float, operators: bool = False) -> None:
    """Write an ONNX file with its convolutions in integers; uint8 (N, H, W, C) pictures give the ranges.

    operators: in ONNX Runtime's operators for integers, else between QuantizeLinear and DequantizeLinear. Weights have
    a scale per channel and 7 bits: a processor without VNNI adds two products in 16 bits, and with 8 the quickstart's
    recogniser lost 14 of 48 points there. What follows the convolutions stays in fp32: ONNX Runtime has no LSTM in
    integers, and with the last layer in them a CRNN's file became 1 % smaller and no faster.
    """
    prepared = path.with_name(f"{path.name}.prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    with atomic_file(path) as temporary:
        quantize_static(
            str(prepared), str(temporary), _Pictures(pictures, middle), per_channel=True, reduce_range=True,
            quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
            op_types_to_quantize=["Conv"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        onnx.checker.check_model(str(temporary), full_check=True)
    prepared.unlink()


def measure_quantised(whole: Path, quantised: Path, samples: Batch, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the word accuracy of both files on labelled samples, and how many the second loses, wins and reads alike.

    The accuracy is by the rules that the recipe reports by, of the samples that these count.
    """
    codec = codec_of(checkpoint.model, checkpoint.data)
    read = {name: codec.decode(_logits(path, samples.images, checkpoint.data.middle))[0]
            for name, path in (("fp32", whole), ("int8", quantised))}  # fmt: skip
    protocol, count = checkpoint.train.protocol, len(samples.labels)
    right = {name: [is_correct(protocol, *pair, codec.charset) for pair in zip(texts, samples.labels, strict=True)]
             for name, texts in read.items()}  # fmt: skip
    shares = {name: found.count(True) / max(1, count - found.count(None)) for name, found in right.items()}
    pairs = list(zip(*right.values(), strict=True))
    return {
        "samples": count, "texts_equal": sum(one == other for one, other in zip(*read.values(), strict=True)),
        "lost": pairs.count((True, False)), "won": pairs.count((False, True)), **shares,
    }  # fmt: skip


def least_loss(cost: dict[str, Any]) -> float:
    """Return the least share of words lost that goes with what was measured: the one-sided 95 % bound of paired counts.

    Its standard error is that of McNemar's test (Agresti, Categorical Data Analysis, 2002, section 10.1).
    """
    count, lost, won = float(cost["samples"]), int(cost["lost"]), int(cost["won"])
    error = math.sqrt(max(0.0, lost + won - (lost - won) ** 2 / count)) / count
    return (lost - won) / count - 1.645 * error


def _logits(path: Path, pictures: Picture, middle: float) -> Logits:
    """Return a file's logits (N, T, classes) of pictures (N, H, W, C)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([LOGITS], {INPUT: batch})[0] for batch in _batches(pictures, middle)])


def _batches(pictures: Picture, middle: float) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(pictures), BATCH):
        yield normalise(pictures[start : start + BATCH], middle)
