"""How the weights that `make tune` starts from read own words, before anything is learnt."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from wordmill.inference.packaged.pyfunc import BATCH, TextRecogniser
from wordmill.inference.reading import of_checkpoint
from wordmill.models.characters import RARER, start_from
from wordmill.models.checkpoint import load
from wordmill.pictures.image import Picture
from wordmill.readers.holdout import part_numbers
from wordmill.readers.sample import Reader
from wordmill.recipe.sections import Recipe
from wordmill.training.validation import count_correct

FEW = 2_000  # words to learn from; more have their letters in surroundings enough
LEAST_READ, MOST_READ = 30, 500  # words that tell how well they are read
LEAST_KEPT, WELL_READ = 0.15, 0.5  # of the weights is kept; the share of own words from which it is as much more

Word = tuple[bytes | Picture, str]  # a picture as its source has it, and its label


def learnt_words(reader: Reader) -> list[Word]:
    """Return the words of a data set that are learnt from, of more than FEW some all over it."""
    numbers = part_numbers(len(reader), "train")
    found = reader.read(numbers[:: -(-len(numbers) // FEW)])
    return [(sample.image, sample.label) for sample in found if not sample.problem]


def grown(start: Path, recipe: Recipe) -> TextRecogniser:
    """Return the recogniser of weights, fitted to a recipe's characters; ValueError where they do not fit.

    It finds letters of texts that are known: new ones are no rarer in them than what they start as.
    """
    saved, where = load(start), f"train.start_from {start}"
    fitted = start_from(saved, recipe.model, recipe.data, recipe.train.start_charset, where)
    rarer = {name: values + np.float32(RARER) * fitted.fresh[name] for name, values in fitted.tensors.items()
             if name in fitted.fresh and name.endswith(".bias")}  # fmt: skip
    saved = dataclasses.replace(saved, data=recipe.data, model=recipe.model, tensors=fitted.tensors | rarer)
    return of_checkpoint(saved, start)


def fitted_batches(
    words: Sequence[Word], recogniser: TextRecogniser
) -> Iterator[tuple[Picture, list[float], list[str]]]:
    """Yield of so many words at a time the pictures (N, H, W, C), N > 0, that a network takes, with labels.

    Between them stand the shares of the width that they fill. What cannot be read is left out: the shard stage counts
    and tells it.
    """
    for start in range(0, len(words), BATCH):
        pictures, shares, labels = list[Picture](), list[float](), list[str]()
        for image, label in words[start : start + BATCH]:
            with suppress(ValueError):
                picture, share = recogniser.fit_and_share(image)
                pictures.append(picture)
                shares.append(share)
                labels.append(label)
        if pictures:
            yield np.stack(pictures), shares, labels


def kept_share(
    words: Sequence[Word], recogniser: TextRecogniser, known: str, protocol: str, untold: float
) -> float:  # fmt: skip
    """Return which share of the first weights is kept, by the share of own words that they read.

    What is read already teaches little that is new, and costs as much of what else was known: little is kept, or what
    that share has above a half. Words of known characters count; `untold` is returned where they are too few.
    docs/results.md has what the shares leave of gains and losses.
    """
    charset = recogniser.codec.charset
    several = [word for word in words if set(charset.clean(word[1])) <= set(known)][:MOST_READ]
    right = counted = 0
    for pictures, _, labels in fitted_batches(several, recogniser):
        found, total = count_correct(recogniser.network(pictures), labels, recogniser.codec, protocol)
        right, counted = right + found, counted + total
    if counted < LEAST_READ:
        return untold
    share = right / counted
    kept = max(LEAST_KEPT, share - WELL_READ)
    print(f"of {counted} own words of known characters {100 * share:.1f} % are read before any training: "
          f"train.start_share is {kept:.2f} unless it is set")  # fmt: skip
    return kept
