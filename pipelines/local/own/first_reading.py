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
from wordmill.recipe.catalogue import LEAST
from wordmill.recipe.sections import Recipe
from wordmill.text.protocols import is_correct

FEW = 2_000  # words to learn from; more have their letters in surroundings enough
READ = 500  # words tell how well they are read
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


def fitted_words(words: Sequence[Word], recogniser: TextRecogniser) -> Iterator[tuple[Picture, float, str]]:
    """Yield pictures as a network takes them, the shares of the width that they fill, and their labels.

    What cannot be read is left out: the shard stage counts and tells it.
    """
    for image, label in words:
        with suppress(ValueError):
            yield *recogniser.fit_and_share(image), label


def kept_share(
    words: Sequence[Word], recogniser: TextRecogniser, known: str, protocol: str, untold: float
) -> float:  # fmt: skip
    """Return which share of the first weights is kept, by the share of own words that they read.

    What is read already teaches little that is new, and costs as much of what else was known: little is kept, or what
    that share has above a half. Words of known characters count; `untold` is returned where they are too few.
    docs/results.md has what the shares leave of gains and losses.
    """
    charset, right = recogniser.codec.charset, list[bool]()
    several = [word for word in words if set(charset.clean(word[1])) <= set(known)][:READ]
    for start in range(0, len(several), BATCH):
        batch = [*fitted_words(several[start : start + BATCH], recogniser)]
        texts, _ = recogniser.read(np.array([picture for picture, _, _ in batch]))
        found = (is_correct(protocol, text, label, charset) for text, (*_, label) in zip(texts, batch, strict=True))
        right += [one for one in found if one is not None]
    if len(right) < LEAST:
        return untold
    share = float(np.mean(right))
    kept = max(LEAST_KEPT, share - WELL_READ)
    print(f"of {len(right)} own words of known characters {100 * share:.1f} % are read before any training: "
          f"train.start_share is {kept:.2f} unless it is set")  # fmt: skip
    return kept
