"""Reading a whole data set with a recogniser: every prediction, and pictures of the worst mistakes."""

import base64
import heapq
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from components.recognition.decoding import Codec, Reading
from components.recognition.image import Picture
from components.recognition.loader import Batch, ordered_batches
from components.recognition.metrics import Pair
from components.recognition.progress import Progress
from components.recognition.protocols import compare
from components.recognition.recipe import Evaluation
from components.recognition.shards import ShardSet

BATCH = 256
WORST = 48  # mistakes kept with their pictures


class Recogniser(Protocol):
    """What reads pictures: the Predictor of either framework."""

    codec: Codec

    def read(self, images: npt.NDArray[np.uint8], beams: int) -> Reading:
        """Return texts and confidences of images (N, H, W, C) uint8."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was read of one sample: `truth` is the label as it is stored, `confidence` lies in 0..1.

    `correct` is None for a sample that the protocol leaves out.
    """

    index: int
    truth: str
    prediction: str
    confidence: float
    correct: bool | None


Mistake = tuple[Prediction, Picture]


@dataclass(kw_only=True)
class Outcome:
    """A data set as a recogniser reads it and a protocol counts it.

    predictions: of every sample, in the stored order
    pairs:       reading and label, as they are compared, of those that count
    worst:       the mistakes, most confident first, at most 48
    left_out:    samples that do not count, by reason
    changed:     labels of the others that are not compared as they are stored, by reason
    """

    predictions: list[Prediction] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    worst: list[Mistake] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


def read_all(recogniser: Recogniser, shards: ShardSet, rules: Evaluation, what: str) -> Outcome:
    """Read every sample in the stored order; ValueError where the protocol leaves out all of them."""
    progress = Progress(what, shards.samples, "images")
    outcome = Outcome()
    correct = 0
    for batch in ordered_batches(shards, BATCH):
        found = _read_batch(recogniser, batch, rules, outcome)
        wrong = [(item, image) for item, image in zip(found, batch.images, strict=True) if item.correct is False]
        outcome.worst = heapq.nsmallest(WORST, outcome.worst + wrong, key=_badness)
        correct += sum(item.correct is True for item in found)
        progress.update(len(outcome.predictions), f"{correct / max(1, len(outcome.pairs)):.2%} right")
    if not outcome.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.left_out.items())
        raise ValueError(f"protocol {rules.protocol} counts none of {shards.samples} samples: left out are {reasons}")
    return outcome


def _read_batch(recogniser: Recogniser, batch: Batch, rules: Evaluation, outcome: Outcome) -> list[Prediction]:
    """Read a batch, add it to the outcome and return its predictions."""
    texts, confidences = recogniser.read(batch.images, rules.beams)
    first = len(outcome.predictions)
    for row, (truth, text) in enumerate(zip(batch.labels, texts, strict=True)):
        compared = compare(rules.protocol, text, truth, recogniser.codec.charset)
        if compared.left_out:
            outcome.left_out[compared.left_out] += 1
        else:
            outcome.changed.update(compared.changed)
            outcome.pairs.append((compared.prediction, compared.label))
        prediction = Prediction(
            index=first + row,
            truth=truth,
            prediction=text,
            confidence=round(float(confidences[row]), 6),
            correct=None if compared.left_out else compared.prediction == compared.label,
        )
        outcome.predictions.append(prediction)
    return outcome.predictions[first:]


def _badness(mistake: Mistake) -> tuple[float, int]:
    """Order mistakes: the more confident the worse; equal ones as they are stored."""
    return -mistake[0].confidence, mistake[0].index


def picture_document(mistake: Mistake) -> dict[str, Any]:
    """Return a mistake as a JSON document with its picture as base64 text of a PNG file."""
    prediction, image = mistake
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise RuntimeError(f"sample {prediction.index}: OpenCV could not write its picture {image.shape} as PNG")
    return {**asdict(prediction), "png": base64.b64encode(data.tobytes()).decode("ascii")}
