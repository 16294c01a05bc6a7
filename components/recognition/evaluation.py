"""Reading a whole data set with a recogniser: every prediction, and pictures of the worst mistakes."""

import base64
import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from components.recognition.charset import Charset
from components.recognition.image import Picture
from components.recognition.loader import Batch, ordered_batches
from components.recognition.metrics import is_correct
from components.recognition.progress import Progress
from components.recognition.shards import ShardSet

BATCH = 256
WORST = 48  # mistakes kept with their pictures

Recogniser = Callable[[Picture], npt.NDArray[np.float32]]  # uint8 (N, H, W, C) -> logits (N, T, K)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was read of one sample; `truth` is the label as it is stored, `confidence` lies in 0..1."""

    index: int
    truth: str
    prediction: str
    confidence: float
    correct: bool


Mistake = tuple[Prediction, Picture]


def read_all(
    recogniser: Recogniser, shards: ShardSet, charset: Charset, what: str
) -> tuple[list[Prediction], list[Mistake]]:
    """Read every sample in order; returns all predictions and the mistakes, most confident first, at most 48."""
    progress = Progress(what, shards.samples, "images")
    predictions: list[Prediction] = []
    worst: list[Mistake] = []
    for batch in ordered_batches(shards, BATCH):
        found = _read_batch(recogniser, batch, charset, len(predictions))
        predictions += found
        wrong = [(item, image) for item, image in zip(found, batch.images, strict=True) if not item.correct]
        worst = heapq.nsmallest(WORST, worst + wrong, key=_badness)
        correct = sum(item.correct for item in predictions)
        progress.update(len(predictions), f"{correct / len(predictions):.2%} right")
    return predictions, worst


def _read_batch(recogniser: Recogniser, batch: Batch, charset: Charset, first: int) -> list[Prediction]:
    texts, confidences = charset.decode_ctc(recogniser(batch.images))
    return [
        Prediction(
            index=first + row,
            truth=truth,
            prediction=text,
            confidence=round(float(confidence), 6),
            correct=is_correct(text, truth, charset),
        )
        for row, (truth, text, confidence) in enumerate(zip(batch.labels, texts, confidences, strict=True))
    ]


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
