"""A smoke run, SMOKE=1: any recipe in minutes, on rendered pictures where its data is not at hand.

What it changes follows from the recipe by the rules here, and is recorded as other changes of a recipe are.
"""

import dataclasses
import re

from wordmill.recipe.catalogue import Entry
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import charset_of

WORD = 32 * 100  # pixels of most recipes' pictures: of larger ones there are as many fewer
# Pictures of 32x100 pixels, and the least of any size: trained on, in a step, and of each set that is measured on.
# Batch normalisation needs two at once.
TRAINED, STEP, MEASURED = (128, 24), (8, 2), (32, 16)
STEPS = 8  # at least, of many processes
CONSTANT = [f"train.{change}" for change in ("schedule=constant", "min_lr=0.0", "step_epochs=0.0", "step_factor=0.0",
                                             "piece_epochs=[]", "piece_lrs=[]")]  # fmt: skip


def scaled(recipe: Recipe, processes: int) -> tuple[str, ...]:
    """Return the changes that fit schedule and batch to little data: one epoch of few steps.

    Warm-up and flat start keep their shares of the steps. Weights of a champion, which there need not be, become fresh
    ones, and rates that fall at epochs which there are no more, or by few steps, a constant one. Formats that a run may
    do without are left out.
    """
    train, shares = recipe.train, processes * recipe.train.parts
    batch = shares * max(STEP[1], pictures(recipe, STEP) // shares)
    champion = train.start_from and not train.start_from.endswith(".safetensors")
    return (
        f"data.limit={max(pictures(recipe, TRAINED), STEPS * batch)}",
        f"train.global_batch={batch}",
        "train.epochs=1",
        f"train.warmup_epochs={train.warmup_epochs / train.epochs:.6f}",
        f"train.flat_start_epochs={train.flat_start_epochs / train.epochs:.6f}",
        "train.validations_per_epoch=2",
        "export.optional=[]",
        *(CONSTANT if train.schedule in ("step", "piecewise", "one_cycle") else []),
        *(["train.start_from=''", "train.start_charset=same", "train.start_share=0.0"] if champion else []),
    )


def pictures(recipe: Recipe, amount: tuple[int, int]) -> int:
    """Return how many of the recipe's pictures have the pixels of so many words, but the least number at least."""
    words, least = amount
    return max(least, words * WORD // (recipe.data.height * recipe.data.width))


def replaced(recipe: Recipe, catalogue: dict[str, Entry], built_in: dict[str, Entry]) -> tuple[str, ...]:
    """Return the changes that put rendered sets in the place of those that are not at hand, and bar a promotion.

    Not at hand are stored sets whose place nobody has given: the catalogue has them as they are built in.
    """
    lines = []
    for key, names, rendered in _uses(recipe):
        kept = [name for name in names if catalogue[name].reader == "synth" or catalogue[name] != built_in.get(name)]
        if len(kept) < len(names):
            lines.append(f"{key}=[{', '.join(dict.fromkeys((*kept, *rendered)))}]")
    if any(line.startswith("data.train=") for line in lines):
        lines += ["data.shares={}", "data.fractions={}", "data.epoch_samples=0"]  # of sets that it has no more
    return (*lines, "gate.promote=false")


def _uses(recipe: Recipe) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return the recipe's keys that name data sets, the names, and the rendered sets of the recipe's kind."""
    prefix = f"rendered_{kind}_" if (kind := rendered_kind(recipe)) else "rendered_"
    tests = (f"{prefix}test",) if kind else (f"{prefix}easy", f"{prefix}hard")
    return [("data.train", recipe.data.train, (f"{prefix}train",)), ("data.val", recipe.data.val, (f"{prefix}val",)),
            ("benchmarks", recipe.benchmarks, tests)]  # fmt: skip


def rendered_kind(recipe: Recipe) -> str:
    """Return which of the catalogue's rendered sets are like the recipe's pictures; "" for words in grey."""
    if recipe.model.backbone == "views_cnn":
        return "signs"
    if any("\u4e00" <= symbol <= "\u9fff" for symbol in charset_of(recipe.data).symbols):
        return "chinese"
    return "colour" if recipe.data.channels == 3 else ""


def shortened(recipe: Recipe, asked: Recipe, catalogue: dict[str, Entry]) -> dict[str, Entry]:
    """Return the recipe's data sets, of rendered ones so many pictures as are used, with the names they stand for.

    `asked` is the recipe with its own sets.
    """
    missing = {name: [old for old in before if old not in after] for before, after in _pairs(asked, recipe)
               for name in after if name not in before}  # fmt: skip
    return {
        name: dataclasses.replace(_first(entry, recipe, name), stands_for=tuple(missing.get(name, ())))
        for name, entry in catalogue.items()
    }


def _pairs(asked: Recipe, recipe: Recipe) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(before, after) for (_, before, _), (_, after, _) in zip(_uses(asked), _uses(recipe), strict=True)]


def _first(entry: Entry, recipe: Recipe, name: str) -> Entry:
    """Return the first pictures of a rendered set that is not trained on; training has its own limit."""
    if entry.reader != "synth" or name in recipe.data.train:
        return entry
    count = min(entry.samples, pictures(recipe, MEASURED))
    return dataclasses.replace(entry, source=re.sub(r"\bcount=\d+", f"count={count}", entry.source), samples=count)


def told(catalogue: dict[str, Entry]) -> list[str]:
    """Return a line for each set that stands for others."""
    names = {name: ", ".join(entry.stands_for) for name, entry in catalogue.items() if entry.stands_for}
    return [f"{name} stands for {others}" for name, others in names.items()]
