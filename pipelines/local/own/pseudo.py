"""`python -m pipelines pseudo`: pictures without labels that a recogniser reads surely, and one round of training.

What is kept is a data set with a catalogue's file of its own; half of every batch is of it, half what the recipe trains
on, and the gate measures what the round has gained, on the recipe's benchmarks and on others that are asked for.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from pipelines.building import build_pipeline, new_run_tag, recipe_path
from pipelines.local.evaluating import named_model
from pipelines.local.own.tuning import (
    add_training_options,
    added_symbols,
    charset_file,
    floors_key,
    known_symbols,
    mixing_keys,
    run_options,
    starting_weights,
)
from wordmill.recipe.catalogue import LEAST
from wordmill.recipe.frameworks import leave_room_for_mindspore
from wordmill.recipe.loading import load_recipe
from wordmill.store.progress import Progress
from wordmill.text.charset import charset_of

MOST_WRONG = 0.02  # expected share of wrong labels
NOT_VALIDATED = ("confidences are calibrated on the words that the recogniser was validated on: of words of another "
                 "kind more labels may be wrong")  # fmt: skip


def pseudo_label(options: argparse.Namespace) -> int:
    """Read pictures, keep what is sure as a data set, and train on with it."""
    leave_room_for_mindspore()
    from pipelines.local import services
    from wordmill.inference.pseudo_labels import CATALOGUE, HIGHER, SHEET, keep_surest, write_pseudo_set
    from wordmill.inference.reading import find_images, left_out_text, open_recogniser

    if not 0 < options.most_wrong < 1:
        raise ValueError(f"--most-wrong: found {options.most_wrong:g}, expected a share between 0 and 1")
    (images, others), parent = find_images(Path(options.images)), services.STATE / "pseudo"
    if others:
        print(left_out_text(others), file=sys.stderr)
    recogniser = open_recogniser(named_model(options.model, options.recipe))
    results = read_all_images(recogniser, images)
    kept = keep_surest(results, options.most_wrong)
    if len(kept.results) < LEAST:
        raise ValueError(f"{options.images}: of {len(images)} pictures {len(kept.results)} are read surely enough, "
                         f"expected at least {LEAST} to learn from: more pictures, or {HIGHER}")  # fmt: skip
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(options.images).resolve().stem)
    unread = sum(bool(one.error) for one in results)
    facts = {"images": options.images, "model": options.model, "recipe": options.recipe, "read": len(images) - unread,
             "most_wrong": options.most_wrong, "temperature": recogniser.codec.temperature}  # fmt: skip
    folder, called, entry = write_pseudo_set(parent, name, kept, recogniser, facts)
    print(f"{called}: {entry.samples:,} of {len(images):,} pictures kept, read with a confidence of at least "
          f"{kept.threshold:.3f}: about {kept.wrong * entry.samples:.0f} of the labels are wrong, "
          f"{100 * kept.wrong:.2f} %; {unread} cannot be read\n{NOT_VALIDATED}: look at {folder / SHEET}\n"
          f"{folder / CATALOGUE}")  # fmt: skip
    return 0 if options.no_train else train_round(options, folder / CATALOGUE, called, entry.samples)


def read_all_images(recogniser: Any, images: list[Path]) -> list[Any]:
    """Read pictures and show the progress."""
    from wordmill.inference.reading import native_errors_hidden, read_images

    progress, results = Progress("read", len(images), "images"), []
    with native_errors_hidden():
        for number, result in enumerate(read_images(recogniser, images), start=1):
            results.append(result)
            progress.update(number)
    return results


def train_round(options: argparse.Namespace, catalogue: Path, own: str, samples: int) -> int:
    """Train on with a set of pseudo-labels, and say how much better and how much worse the recogniser has become."""
    from pipelines.local import services

    recipe, store, folder = load_recipe(recipe_path(options.recipe)), services.open_store(), services.STATE / "tune"
    start, tests = starting_weights(store, recipe.name, own, options.set, folder), options.benchmarks.lstrip("+")
    added = added_symbols(own, [], charset_of(recipe.data), known_symbols(start))
    changes = [f"data.charset={recipe.data.charset}{charset_file(folder / own, added.replace(' ', ''))}",
               *mixing_keys(recipe, own, samples, start),
               floors_key(recipe, [name for name in tests.split(",") if name])]  # fmt: skip
    changes += ["data.space=true"] if " " in added else []
    told, pipeline = build_pipeline(run_options(options, catalogue, tests, changes))
    run_tag = new_run_tag(f"{recipe.name}-pseudo")
    from pipelines.local.run import run_locally

    code = run_locally(pipeline, recipe.name, run_tag=run_tag)
    if not code:
        from pipelines.local.own.outcome import told_outcome

        print(told_outcome(store, told, own, tests.split(",")[0], start, run_tag, None))
    return code


def add_pseudo_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("pseudo", help="train a champion on with pictures that it reads surely")
    parser.add_argument("images", help="as for read")
    parser.add_argument("--model", default="champion", help="as for read: whose readings become labels")
    parser.add_argument("--recipe", default="quickstart", help="whose champion is trained on")
    parser.add_argument("--most-wrong", type=float, default=MOST_WRONG, help="expected share of wrong labels, at most")
    parser.add_argument("--no-train", action="store_true", help="write the data set alone")
    parser.add_argument("--benchmarks", default="", help="comma-separated sets to measure on beside the recipe's own")
    parser.add_argument("--catalogue", default="", help="comma-separated catalogue files beside the built-in one")
    parser.add_argument("--from", action="append", default=[], metavar="NAME=PLACE", dest="places",
                        help="take a data set, or an archive of several, from a path or URI")  # fmt: skip
    add_training_options(parser)
    parser.set_defaults(verb=pseudo_label)
