"""How the temperature of confidences is fitted to the best weights of a training."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wordmill.pictures.image import Picture
from wordmill.shards.loader import pictures_at_once, spread_batches
from wordmill.text.protocols import is_correct
from wordmill.text.temperature import confidence_histogram, fit_temperature
from wordmill.training.context import Context
from wordmill.training.trainer import Logits

CALIBRATED = 4096  # validation samples at most: the temperature's standard error is then about 3 %


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The temperature of weights, and how sure they then are of validation: confidence_histogram."""

    temperature: float
    confidences: dict[str, int]


def calibrate(context: Context, predict: Callable[[Picture], Logits], beat: Callable[[], None]) -> Calibrated:
    """Return the temperature by what weights read of validation samples, which lie evenly over all of them.

    Of those that the recipe's protocol counts, by the likeliest class at each step; `beat` is called after every batch.
    """
    codec, protocol, samples = context.codec, context.job.train.protocol, context.val_set
    sure, right = [np.empty(0, dtype=np.float32)], list[bool | None]()
    for batch in spread_batches(samples, CALIBRATED, pictures_at_once(samples.shape)):
        texts, confidences = codec.decode(predict(batch.images))
        right += [is_correct(protocol, *pair, codec.charset) for pair in zip(texts, batch.labels, strict=True)]
        sure.append(confidences)
        beat()
    everything, counted = np.concatenate(sure), np.array([found is not None for found in right], dtype=np.bool_)
    temperature = fit_temperature(everything[counted], np.array(right, dtype=np.bool_)[counted])
    return Calibrated(temperature=temperature, confidences=confidence_histogram(everything ** (1 / temperature)))
