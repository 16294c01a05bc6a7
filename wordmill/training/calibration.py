"""How the temperature of confidences is fitted to the best weights of a training."""

from collections.abc import Callable

import numpy as np

from wordmill.pictures.image import Picture
from wordmill.shards.loader import chosen_batch
from wordmill.text.protocols import is_correct
from wordmill.text.temperature import fit_temperature
from wordmill.training.context import Context
from wordmill.training.trainer import Logits
from wordmill.training.validation import EVALUATION_BATCH

CALIBRATED = 4096  # validation samples at most: the temperature's standard error is then about 3 %


def calibrate(context: Context, predict: Callable[[Picture], Logits], beat: Callable[[], None]) -> float:
    """Return the temperature by what weights read of validation samples, which lie evenly over all of them.

    Of those that the recipe's protocol counts, by the likeliest class at each step; `beat` is called after every batch.
    """
    shards, codec, protocol = context.val_set, context.codec, context.job.train.protocol
    count = min(CALIBRATED, shards.samples)
    numbers = np.arange(count) * shards.samples // count
    sure: list[float] = []
    right: list[bool] = []
    for start in range(0, count, EVALUATION_BATCH):
        batch = chosen_batch(shards, numbers[start : start + EVALUATION_BATCH])
        texts, confidences = codec.decode(predict(batch.images))
        for text, label, confidence in zip(texts, batch.labels, confidences.tolist(), strict=True):
            found = is_correct(protocol, text, label, codec.charset)
            if found is not None:
                sure.append(confidence)
                right.append(found)
        beat()
    return fit_temperature(np.array(sure, dtype=np.float32), np.array(right, dtype=np.bool_))
