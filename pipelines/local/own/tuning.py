"""`python -m pipelines tune`: a recipe's champion made better on words of one's own, and what that costs on others.

Some of the words are held out. Training goes on from the champion's weights, or from those that come with the project:
about half of every batch own words and others composed of their letters, and half what the recipe trains on. It takes
in the characters that its charset lacks, of which drawn words have many; the rest is a run as any other.
"""

import argparse
import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode

from pipelines.building import build_pipeline, load_inputs, new_run_tag, recipe_path
from pipelines.local.evaluating import add_data_options, data_set
from pipelines.local.scanning import fetched, labels_of, missing, write_symbols
from pipelines.output import is_command, to_type
from wordmill.models.characters import symbols_text
from wordmill.models.checkpoint import load
from wordmill.models.pretrained import pretrained
from wordmill.recipe.arguments import from_nought
from wordmill.recipe.catalogue import LEAST, Entry, Split
from wordmill.recipe.frameworks import leave_room_for_mindspore
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.schedule import parts_of_model
from wordmill.recipe.sections import Recipe
from wordmill.store.artifacts import digest
from wordmill.store.files import atomic_file, write_atomically
from wordmill.store.storage import hash_file
from wordmill.text.charset import Charset, charset_of

SAMPLES, PASSES, OTHERS = 90_000, 3, 4  # that training sees, or so often own words and so many times others of each set
# Shares of words composed of own letters, of words drawn with new ones, and of others, half where nothing is new; own
# words have what is left.
COMPOSED, DRAWN, REST = 0.35, 0.1, 0.45
WARMUP = 0.03  # of training
MOST_COMPOSED, MOST_DRAWN, SEED = round(SAMPLES * COMPOSED), round(SAMPLES * DRAWN), 91  # of the renderer
BATCH, SLOWER = 64, 2.5  # pictures of a step; the rate is the recipe's by that, and by the root of the smaller batch
KEPT = 0.3  # of the weights that it starts from, where it is not known how these read own words
# Factors of the rate: what letters look like is known; which one is which is learnt, the faster where some are new.
BACKBONE, HEAD = 0.5, 3.0
WORDS = ["data.stored=encoded", "train.augment=words", "train.augment_strength=0.5"]


def tune(options: argparse.Namespace) -> int:
    """Split the words, train on from the champion, and say how much better and how much worse it has become."""
    leave_room_for_mindspore()
    from pipelines.local import services
    from pipelines.local.own.composing import composed_entry, composed_words
    from pipelines.local.own.first_reading import FEW, grown, kept_share, learnt_words

    recipe, (name, entry) = load_recipe(recipe_path(options.recipe)), data_set(options)
    if entry.samples < LEAST:
        raise ValueError(f"data set '{name}': {entry.samples} words are too few to hold some out, expected at least "
                         f"{LEAST}")  # fmt: skip
    store, folder = services.open_store(), services.STATE / "tune"
    start = starting_weights(store, recipe.name, f"{name}_train", options.set, folder)
    with fetched(name, dataclasses.replace(entry, part="")) as reader:  # whose numbers those of its parts are
        labels, words = labels_of(reader), learnt_words(reader)
    known = known_symbols(start)
    added = added_symbols(name, labels, charset_of(recipe.data), known)
    catalogue, sets = folder / f"{name}.yaml", parts_of_entry(name, entry)
    charset = charset_file(folder / name, added.replace(" ", ""))

    def asked(composed: dict[str, Entry], kept: float) -> argparse.Namespace:
        write_catalogue(catalogue, sets | composed | drawn)
        changes = changed_keys(recipe, sets, charset, start, [*composed], [*drawn], kept)
        changes += ["data.space=true"] if " " in added else []
        return run_options(options, catalogue, f"{name}_test", changes)

    drawn = drawn_words(name, recipe, added)
    signs = recipe.model.name == "seq2seq"  # of several lines, in four views: nothing is cut out of those
    many = sets[f"{name}_train"].samples > FEW  # whose letters stand in surroundings enough
    archive = folder / f"{name}-composed.zip"
    to_come = {} if signs or many else composed_entry(name, archive, MOST_COMPOSED)
    first = load_inputs(asked(to_come, KEPT), 1)[0]
    finder = grown(start, first)  # weights that do not fit are refused before all else
    kept = KEPT if signs else kept_share(words, finder, known, first.evaluation.protocol, KEPT)
    learnt = to_come.keys() & set(first.data.train)
    composed = composed_words(name, words, finder, MOST_COMPOSED, archive) if learnt else {}
    told, pipeline = build_pipeline(asked(composed, kept))
    run_tag = new_run_tag(f"{recipe.name}-tune")
    from pipelines.local.run import run_locally

    code = run_locally(pipeline, recipe.name, run_tag=run_tag)
    if not code:
        from pipelines.local.own.outcome import told_outcome

        where = options.device or "cpu", options.processes or 2
        print(told_outcome(store, told, name, f"{name}_test", start, run_tag, None if options.no_curve else where))
    return code


def starting_weights(store: Any, recipe: str, own: str, changes: list[str], folder: Path) -> Path:
    """Return the weights to train on from, in a file of `folder` that their digest names.

    They are what train.start_from of the changes names, else the recipe's champion's, or those that it started from
    where it has learnt the data set `own`. The file is what keys and the learning curve go by: champions change.
    """
    from components.train.start import find_start, start_without

    given = [change.partition("=")[2] for change in changes if change.startswith("train.start_from=")]
    path = find_start(store, given[-1]) if given else start_without(store, recipe, own) or pretrained(recipe)
    if path is None:
        weights = "--set train.start_from=w.safetensors" if is_command() else "SET=train.start_from=w.safetensors"
        raise ValueError(f"recipe '{recipe}' has no champion to train on from: "
                         f"{to_type('run', f'RECIPE={recipe}', recipe)} first, or {weights}")  # fmt: skip
    kept = folder / f"{hash_file(path)[:16]}.safetensors"
    if not kept.exists():
        with atomic_file(kept) as temporary:
            shutil.copyfile(path, temporary)
    return kept


def run_options(options: argparse.Namespace, catalogue: Path, own: str, changes: list[str]) -> argparse.Namespace:
    """Return the options of a run that measures on `own` too; what the command line sets wins over `changes`."""
    files = ",".join(filter(None, [options.catalogue, str(catalogue)]))
    return argparse.Namespace(
        recipe=options.recipe, set=[*changes, *options.set], framework=options.framework,
        benchmarks=f"+{own}" if own else "",
        catalogue=files, places=options.places, smoke=False, profile=False, device=options.device,
        processes=options.processes, hardware="",
    )  # fmt: skip


def known_symbols(start: Path) -> str:
    """Return the characters that weights know."""
    saved = load(start)
    return saved.symbols or charset_of(saved.data).symbols


def added_symbols(name: str, labels: list[str], charset: Charset, known: str) -> str:
    """Return the characters that a recipe's charset lacks and the weights know or the labels have, in order.

    What the labels have and neither knows is told, with how many labels have it.
    """
    both = Charset(name=charset.name, symbols="".join(dict.fromkeys(charset.symbols + known)))
    found, _ = missing(labels, both)
    new = sorted(symbol for symbol in found if symbol not in ("", "\0", "\r", "\n"))
    if new:
        counts = ", ".join(f"{symbol!r} {found[symbol]:,}" for symbol in new)
        print(f"{name}: {found['']:,} of {len(labels):,} words have characters that are new, and added: {counts}")
    return "".join(symbol for symbol in (*both.symbols, *new) if symbol not in charset.symbols)


def parts_of_entry(name: str, entry: Entry) -> dict[str, Entry]:
    """Return a data set's parts as data sets of their own: `name`_train, _val and _test."""
    from wordmill.readers.holdout import part_numbers

    counts = {part: len(part_numbers(entry.samples, part)) for part in get_args(Split)}
    return {f"{name}_{part}": dataclasses.replace(entry, part=part, samples=count) for part, count in counts.items()}


def drawn_words(name: str, recipe: Recipe, added: str) -> dict[str, Entry]:
    """Return a set of drawn words with the characters that are added to a recipe's, none where no face has any.

    A charset with one case alone folds the other, so that letters are drawn in both.
    """
    from wordmill.synth.letters import drawable

    if recipe.model.name == "seq2seq":  # which reads signs in four views
        return {}
    charset = Charset(name=name, symbols=charset_of(recipe.data).symbols + added)
    cases = dict.fromkeys(case for symbol in added for case in (symbol, symbol.lower(), symbol.upper()))
    found = drawable("".join(case for case in cases if len(case) == 1 and charset.fold(case) in added))
    if left_out := "".join(symbol for symbol in added if symbol not in charset.fold(found)):
        print(f"{name}: no face that words are drawn in has {symbols_text(left_out)}: learnt from these words alone")
    if not found:
        return {}
    keys = {"seed": SEED, "count": MOST_DRAWN, "fonts": "train", "words": "train", "difficulty": "mixed",
            "colour": int(recipe.data.channels == 3), "characters": found}  # fmt: skip
    return {f"{name}_drawn": Entry(source=f"synth://words?{urlencode(keys)}", reader="synth", samples=MOST_DRAWN,
                                   licence="drawn by this project")}  # fmt: skip


def write_catalogue(path: Path, sets: dict[str, Entry]) -> None:
    """Write a catalogue's file."""
    write_atomically(path, json.dumps({name: dataclasses.asdict(entry) for name, entry in sets.items()}, indent=1))


def charset_file(stem: Path, symbols: str) -> str:
    """Write characters to a file for a charset's name to join; return what is added to that name, "" for none.

    Its own name has their digest: models that know them are held to their charset's file for good.
    """
    if not symbols:
        return ""
    path = stem.with_name(f"{stem.name}-{digest(symbols)[:8]}.txt")
    write_symbols(path, symbols)
    return f"+{path.absolute()}"


def changed_keys(
    recipe: Recipe, sets: dict[str, Entry], charset: str, start: Path, composed: Sequence[str] = (),
    drawn: Sequence[str] = (), kept: float = KEPT,
) -> list[str]:  # fmt: skip
    """Return what of a recipe is changed for own words, whose parts are `sets`: train, val and test."""
    (train, learnt), (val, _), (test, _) = sets.items()
    return [
        f"data.charset={recipe.data.charset}{charset}",
        f"data.val=[{val}]",
        *mixing_keys(recipe, train, learnt.samples, start, composed, drawn, kept),
        floors_key(recipe, [test]),
    ]


def mixing_keys(
    recipe: Recipe, own: str, samples: int, start: Path, composed: Sequence[str] = (), drawn: Sequence[str] = (),
    kept: float = KEPT,
) -> list[str]:  # fmt: skip
    """Return what of a recipe is changed to train on from weights: half a set of one's own, half the recipe's.

    composed: the set of words that are composed of the own ones' letters; drawn: that of words with characters that are
    new; each has its share where it is there. kept: the share of those weights that stays.
    """
    others = recipe.data.train
    seen = max(SAMPLES, PASSES * samples * (1 + OTHERS * len(others)))
    batch = min(BATCH, recipe.train.global_batch)
    rate = recipe.train.lr * math.sqrt(batch / recipe.train.global_batch) / SLOWER
    taken = dict.fromkeys(composed, COMPOSED) | dict.fromkeys(drawn, DRAWN)
    rest = REST if drawn else 0.5
    shares = {own: round(1 - rest - sum(taken.values()), 6)} | taken | {other: rest / len(others) for other in others}
    factors = {"backbone": BACKBONE} | ({"head": HEAD} if drawn and "head" in parts_of_model(recipe.model) else {})
    return [
        f"data.train=[{', '.join(shares)}]",
        f"data.shares={json.dumps(shares)}",
        f"data.limit={round(seen * max(list(shares.values())[1:]))}",  # others come once: none is learnt by heart
        f"data.epoch_samples={seen}",
        "data.streamed=false",
        f"train.start_from={start}",
        "train.start_charset=union",
        f"train.start_share={kept:.2f}",
        "train.epochs=1",
        "train.validations_per_epoch=1",  # what the rate's fall gives comes last: some tens of words choose by chance
        "train.patience=0",
        f"train.global_batch={batch}",
        "train.schedule=warmup_cosine",
        f"train.lr={rate:.6f}",
        "train.min_lr=0.0",
        f"train.warmup_epochs={WARMUP}",
        "train.flat_start_epochs=0.0",
        *([] if recipe.train.lr_factors else [f"train.lr_factors={json.dumps(factors)}"]),
        *(WORDS if recipe.train.augment == "none" else []),
    ]


def floors_key(recipe: Recipe, benchmarks: list[str]) -> str:
    """Return a recipe's floors with none for other benchmarks: what these reach is to be seen."""
    return f"gate.floors={json.dumps(recipe.gate.floors | dict.fromkeys(benchmarks, 0.0))}"


def add_tune_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("tune", help="train a recipe's champion on for own words, part of them held out")
    add_data_options(parser)
    parser.add_argument("--recipe", default="quickstart", help="whose champion")
    add_training_options(parser)
    parser.add_argument("--no-curve", action="store_true", help="leave out what more words would give")
    parser.set_defaults(verb=tune)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that trains on from a recipe's champion."""
    parser.add_argument("--framework", default="", help="pytorch or mindspore instead of the recipe's")
    parser.add_argument("--device", default="", choices=("cpu", "cuda", "npu"), help="what to train on")
    parser.add_argument("--processes", type=from_nought, default=0, help="one to a device, 2 by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe value")
