"""`python -m pipelines evaluate`: any model on any data set, without a run of a pipeline."""

import argparse
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

from pipelines.building import FOLDER, new_run_tag, recipe_path
from pipelines.output import add_json_option, print_json, told_beside
from wordmill.models.pretrained import PRETRAINED, WEIGHTS, pretrained
from wordmill.recipe.catalogue import Entry, LabelFormat, load_catalogue, redirect, select, to_text
from wordmill.recipe.frameworks import leave_room_for_mindspore
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.parsing import to_json

FORMS = get_args(LabelFormat)


def evaluate_model(options: argparse.Namespace) -> int:
    """Fetch and pack a data set as a model reads it, measure the model on it, print what came out, write the page."""
    leave_room_for_mindspore()
    from components.report.measuring import measured_text, write_page
    from pipelines.local import services

    with told_beside(options.json):
        protocol = options.protocol or load_recipe(recipe_path(options.recipe)).evaluation.protocol
        measured = dict([data_set(options)])
        run_tag = measure_sets(named_model(options.model, options.recipe), protocol, measured)
        page = Path(options.output) if options.output else services.STATE / "runs" / run_tag / "report.html"
        summary = write_page(services.open_store(), options.model, run_tag, page)
    if options.json:
        print_json(summary | {"report": str(page)})
        return 0
    print(measured_text(summary))
    print(page)
    return 0


def measure_sets(model: Path, protocol: str, sets: dict[str, Entry]) -> str:
    """Fetch and pack data sets as a model reads them and measure it on each; return the tag of what is recorded."""
    from components.report.measuring import measure_file
    from pipelines.local import services
    from wordmill.inference.reading import open_recogniser

    recogniser, run_tag = open_recogniser(model), new_run_tag("evaluate")
    services.open_store()
    folder = services.STATE / "runs" / run_tag
    fetched, shards = folder / "fetched.json", folder / "shards.json"
    data = dataclasses.replace(recogniser.data, train=(), val=(), limit=0, streamed=False)
    stage_program("fetch", run_tag, fetched, sources=to_text(sets))
    stage_program("shard", run_tag, shards, data=to_json(data), sources=str(fetched))
    for name in sets:
        measure_file(recogniser, model, protocol, shards, name, run_tag, folder / f"measured-{name}.json")
    return run_tag


def named_model(model: str, recipe: str) -> Path:
    """Return a model's file or folder: as it is, or a registered one's, such as `champion` or `name/3`, downloaded.

    `small` is what comes with the project, as is quickstart's champion where there is none yet.
    """
    if Path(model).exists():
        return Path(model)
    from pipelines.local import services
    from wordmill.store import tracking

    if model == PRETRAINED:
        return WEIGHTS
    if re.search(r"\.(onnx|mindir|om|safetensors)$|^[/.~]|/.*/", model):
        raise ValueError(f"{model}: no such file or folder")
    name, _, which = re.sub("[@/]", "@", model).rpartition("@")
    registered, stand_in = name or tracking.registered_name(recipe), pretrained(recipe) if model == "champion" else None
    if stand_in and not services.has_registry():
        return told_stand_in(recipe, stand_in)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        services.settings()
    if stand_in and tracking.holder(registered, which) is None:
        return told_stand_in(recipe, stand_in)
    return tracking.download_model(tracking.find_version(registered, which), services.STATE / "models")


def told_stand_in(recipe: str, path: Path) -> Path:
    """Say that the weights that come with the project stand in for a recipe's champion, and return their file."""
    told = f"{PRETRAINED}, which comes with the project, stands in for it"
    print(f"recipe '{recipe}' has no champion yet: {told}", flush=True)
    return path


def data_set(options: argparse.Namespace) -> tuple[str, Entry]:
    """Return the name and the catalogue's entry of what is measured on: one by that name, or a folder's."""
    folder = Path(options.data)
    if folder.is_dir():
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name), folder_entry(folder, options)
    extra = [Path(path) for path in options.catalogue.split(",") if path]
    catalogue = redirect(load_catalogue([FOLDER / "datasets.yaml", *extra]), options.places)
    if options.data not in catalogue and (folder.exists() or "/" in options.data):
        found = "a file" if folder.exists() else "no such folder"
        raise ValueError(f"{folder}: {found}, expected a folder, an LMDB or pictures and their labels, or the name "
                         "of a data set")  # fmt: skip
    return options.data, select(catalogue, [options.data])[options.data]


def folder_entry(folder: Path, options: argparse.Namespace) -> Entry:
    """Return the entry of a folder: an LMDB, or pictures with a text file of their labels."""
    from wordmill.readers.opening import open_reader
    from wordmill.sources.leftovers import is_leftover

    labels, path = options.labels, Path(options.labels).absolute()
    if path.is_file() and path.is_relative_to(folder.absolute()):
        labels = str(path.relative_to(folder.absolute()))
    files = [path.name for path in folder.iterdir() if not is_leftover(Path(path.name))]
    if not labels and not any(name == "data.mdb" or name.endswith(".lmdb") for name in files):
        texts = sorted(name for name in files if name.lower().endswith(".txt"))
        if len(texts) != 1:
            raise ValueError(f"{folder}: found {', '.join(texts) or 'no .txt file'}: name the file of labels, --labels")
        labels = texts[0]
    reader: dict[str, Any] = {"reader": "label_file", "labels": labels} if labels else {"reader": "lmdb"}
    entry = Entry(source=folder.absolute().as_uri(), samples=1, licence="not stated", **reader,
                  label_format=options.label_format)  # fmt: skip
    return dataclasses.replace(entry, samples=len(open_reader(entry, folder)))


def stage_program(stage: str, run_tag: str, output: Path, **arguments: str) -> None:
    """Run a stage's program; RuntimeError where it fails, which it has said itself."""
    words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", f"components.{stage}", *words, "--run-tag", run_tag, "--output", str(output)]
    if code := subprocess.run(command, cwd=FOLDER.parent).returncode:
        raise RuntimeError(f"the {stage} stage ended with code {code}")


def add_evaluate_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("evaluate", help="measure any model on any data set, without a run")
    add_data_options(parser)
    parser.add_argument("--model", default="champion", help="as for read")
    parser.add_argument("--recipe", default="quickstart", help="whose champion, and by whose protocol")
    parser.add_argument("--protocol", default="", help="instead of the recipe's")
    parser.add_argument("-o", "--output", default="", help="the page to write, report.html of the run by default")
    add_json_option(parser, "the summary")
    parser.set_defaults(verb=evaluate_model)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that name one data set."""
    parser.add_argument("data", help="a data set of the catalogue, or a folder: an LMDB, or pictures and their labels")
    parser.add_argument("--labels", default="", help="of a folder: the file of labels, its only .txt file by default")
    parser.add_argument("--label-format", default=FORMS[0], choices=FORMS, metavar="FORM",
                        help=f"of a folder: {', '.join(FORMS)}")  # fmt: skip
    parser.add_argument("--catalogue", default="", help="comma-separated catalogue files beside the built-in one")
    parser.add_argument("--from", action="append", default=[], metavar="NAME=PLACE", dest="places",
                        help="take a data set, or an archive of several, from a path or URI")  # fmt: skip
