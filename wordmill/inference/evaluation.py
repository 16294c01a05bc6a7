"""Reading a whole data set with a recogniser: every prediction, and pictures of the worst mistakes."""

import base64
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import xxhash

from wordmill.pictures.image import Picture
from wordmill.recipe.sections import Evaluation
from wordmill.shards.loader import ordered_batches, pictures_at_once
from wordmill.shards.sets import ShardSet
from wordmill.store.artifacts import Manifest
from wordmill.store.files import write_atomically
from wordmill.store.progress import Progress
from wordmill.store.storage import Store
from wordmill.text import metrics
from wordmill.text.charset import Charset
from wordmill.text.decoding import Codec, Reading
from wordmill.text.metrics import Pair
from wordmill.text.protocols import apply_protocol

WORST = 48  # mistakes kept with their pictures


class Predictor(Protocol):
    """What reads pictures: the Predictor of either framework."""

    codec: Codec

    def read(self, images: Picture, beams: int) -> Reading:
        """Return texts and confidences of images (N, H, W, C) uint8."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was read of one sample: `truth` is the label as it is stored, `confidence` lies in 0..1.

    `correct` is None for a sample that the protocol leaves out; `picture` is the digest of the pixels that were read,
    "" where another program has read them.
    """

    index: int
    truth: str
    prediction: str
    confidence: float
    correct: bool | None
    picture: str = ""


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

    def add(
        self, truth: str, text: str, confidence: float, protocol: str, charset: Charset, picture: str = ""
    ) -> Prediction:
        """Compare the reading of the next sample with its label and keep both."""
        found = apply_protocol(protocol, text, truth, charset)
        if found.left_out:
            self.left_out[found.left_out] += 1
        else:
            self.changed.update(found.changed)
            self.pairs.append((found.prediction, found.label))
        right = None if found.left_out else found.prediction == found.label
        prediction = Prediction(index=len(self.predictions), truth=truth, prediction=text,
                                confidence=round(confidence, 6), correct=right, picture=picture)  # fmt: skip
        self.predictions.append(prediction)
        return prediction

    def write(self, path: Path) -> None:
        """Write every prediction as a line of JSON."""
        lines = (json.dumps(asdict(prediction), ensure_ascii=False) for prediction in self.predictions)
        write_atomically(path, "".join(f"{line}\n" for line in lines))


def predictions_of(store: Store, evaluation: Manifest) -> Iterator[dict[str, Any]]:
    """Give what a measurement has recorded of every sample, in the stored order."""
    with store.fetch(evaluation.object("predictions.jsonl")).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def read_all(recogniser: Predictor, shards: ShardSet, rules: Evaluation, what: str) -> Outcome:
    """Read every sample in the stored order; ValueError where the protocol leaves out all of them."""
    progress, charset = Progress(what, shards.samples, "images"), recogniser.codec.charset
    outcome, correct = Outcome(), 0
    for batch in ordered_batches(shards, pictures_at_once(shards.shape)):
        readings = zip(batch.labels, batch.images, *recogniser.read(batch.images, rules.beams), strict=True)
        found = [outcome.add(truth, text, float(sure), rules.protocol, charset, picture_digest(image))
                 for truth, image, text, sure in readings]  # fmt: skip
        wrong = outcome.worst + [one for one in zip(found, batch.images, strict=True) if one[0].correct is False]
        # The more confident the worse; equal ones as they are stored.
        outcome.worst = heapq.nsmallest(WORST, wrong, key=lambda one: (-one[0].confidence, one[0].index))
        correct += sum(item.correct is True for item in found)
        progress.update(len(outcome.predictions), f"{correct / max(1, len(outcome.pairs)):.2%} right")
    if not outcome.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.left_out.items())
        raise ValueError(f"protocol {rules.protocol} counts none of {shards.samples} samples: left out are {reasons}")
    return outcome


def picture_digest(picture: Picture) -> str:
    """Return 16 hexadecimal digits by which a picture (H, W, C) uint8 is known, in whatever set it stands."""
    return xxhash.xxh3_64_hexdigest(picture.data)


def facts_of(outcome: Outcome, protocol: str, temperature: float) -> dict[str, Any]:
    """Return the numbers of a measured benchmark; `uncalibrated` is what `calibration` is without the temperature."""
    result = metrics.score_pairs(outcome.pairs)
    low, high = metrics.wilson_interval(result.correct, result.total)
    counted = [(item.confidence, item.correct) for item in outcome.predictions if item.correct is not None]
    plain = [(sure**temperature, right) for sure, right in counted]
    return {
        **asdict(result), "accuracy": result.accuracy, "low": low, "high": high,
        "protocol": protocol, "left_out": dict(outcome.left_out), "changed": dict(outcome.changed),
        "by_length": [asdict(row) for row in metrics.by_length(outcome.pairs)],
        "confusion": [asdict(row) for row in metrics.confusion(outcome.pairs)],
        "calibration": asdict(metrics.calibration(counted)), "temperature": temperature,
        "uncalibrated": asdict(metrics.calibration(plain)),
    }  # fmt: skip


def picture_document(mistake: Mistake) -> dict[str, Any]:
    """Return a mistake as a JSON document with its picture as base64 text of a PNG file."""
    prediction, image = mistake
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise RuntimeError(f"sample {prediction.index}: OpenCV could not write its picture {image.shape} as PNG")
    return {**asdict(prediction), "png": base64.b64encode(data.tobytes()).decode("ascii")}
