"""`python -m pipelines <verb>`: compile a recipe's pipeline, run it here, and look after the embedded services."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from components.recognition.catalogue import Entry, load_catalogue, redirect, select
from components.recognition.charset import charset_of
from components.recognition.recipe import Recipe, load_recipe, nearest
from components.recognition.schedule import batch_of_process

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

FOLDER = Path(__file__).resolve().parent
SMOKE = ("data.limit=4096", "train.epochs=1", "train.validations_per_epoch=1")


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; what the user or the environment got wrong ends in one line and code 1."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.verb(options))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


def load(options: argparse.Namespace) -> tuple[Recipe, dict[str, Entry]]:
    """Return the recipe with what the command line changes, and the catalogue entries of its data sets."""
    overrides = [*(SMOKE if options.smoke else ()), *options.set]
    if options.framework:
        overrides.append(f"train.framework={options.framework}")
    if options.benchmarks:
        overrides.append(f"benchmarks=[{options.benchmarks}]")
    recipe = load_recipe(recipe_path(options.recipe), tuple(overrides))
    charset_of(recipe.data)  # refused here rather than by the first stage that needs it
    extra = [Path(path) for path in options.catalogue.split(",") if path]
    catalogue = redirect(load_catalogue([FOLDER / "datasets.yaml", *extra]), options.places)
    names = dict.fromkeys((*recipe.data.train, *recipe.data.val, *recipe.benchmarks))
    return recipe, select(catalogue, list(names))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe named here, or of one given by its path."""
    if name.endswith(".yaml"):
        return Path(name)
    known = sorted(path.stem for path in (FOLDER / "recipes").glob("*.yaml"))
    if name not in known:
        raise ValueError(f"recipe '{name}': {nearest(name, known)}")
    return FOLDER / "recipes" / f"{name}.yaml"


def _build(options: argparse.Namespace) -> tuple[Recipe, "GraphComponent"]:
    from pipelines.cluster import Where
    from pipelines.training import training_pipeline

    recipe, catalogue = load(options)
    where = Where(device=options.device, processes=options.processes)
    batch_of_process(recipe.train, where.processes)  # refused before anything runs
    return recipe, training_pipeline(recipe, catalogue, where)


def _compile(options: argparse.Namespace) -> int:
    from kfp import compiler

    recipe, pipeline = _build(options)
    output = Path(options.output or f"{recipe.name}.yaml")
    temporary = output.with_name(f".{output.stem}.part.yaml")
    compiler.Compiler().compile(pipeline, str(temporary))
    temporary.replace(output)
    print(output)
    return 0


def _run(options: argparse.Namespace) -> int:
    recipe, pipeline = _build(options)
    from pipelines import local

    return local.run(pipeline, recipe.name)


def _up(options: argparse.Namespace) -> int:
    from pipelines import services

    for name, value in services.settings().items():
        print(f"{name}={'***' if 'SECRET' in name else value}")
    return 0


def _down(options: argparse.Namespace) -> int:
    from pipelines import services

    print(f"stopped: {', '.join(services.down()) or 'nothing was running'}")
    return 0


def _accept(options: argparse.Namespace) -> int:
    from components.fetch.lock import accept
    from components.recognition.storage import Store
    from pipelines import services

    if "WORDMILL_BUCKET" not in os.environ:
        services.settings()
    lock = accept(Store.from_environment(), options.source)
    print(f"forgotten: {options.source} had sha256 {lock['sha256']} on {lock['time']}; its next use counts as first")
    return 0


def _ui(options: argparse.Namespace) -> int:
    import webbrowser

    from pipelines import services

    address = services.settings()["MLFLOW_TRACKING_URI"]
    print(address)
    if os.environ.get("DISPLAY") or sys.platform == "darwin":
        webbrowser.open(address)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from components.recognition.artifacts import write_atomically
    from components.report.compare import compare
    from components.report.compare_page import CHARTS, compare_html
    from components.report.compare_runs import find, histories, last
    from components.report.compare_text import render
    from pipelines import services

    if bool(options.runs) == bool(options.last):
        raise ValueError('name either runs or a number of last runs: RUNS="a b", or PIPELINE=quickstart LAST=5')
    if "MLFLOW_TRACKING_URI" not in os.environ:  # a site's own MLflow is all that this needs, S3 is not
        services.settings()
    runs = [find(name) for name in options.runs] or last(options.recipe, options.last)
    comparison = compare(runs)
    page = Path(options.output) if options.output else services.STATE / "compare.html"
    write_atomically(page, compare_html(comparison, histories(runs, CHARTS)))
    print(render(comparison))
    print(page)
    return 0


def _read(options: argparse.Namespace) -> int:
    from components.recognition.reading import find_images, open_recogniser, save_readings
    from pipelines import services

    images = find_images(Path(options.images))
    model = Path(options.model)
    recogniser = open_recogniser(model if model.exists() else _registered(options))
    output = Path(options.output) if options.output else services.STATE / "readings.jsonl"
    wrong = save_readings(recogniser, images, output)
    print(output)
    if wrong:
        print(f"{wrong} of {len(images)} images cannot be read", file=sys.stderr)
    return 1 if wrong else 0


def _registered(options: argparse.Namespace) -> Path:
    """Return the folder of a registered model, such as `champion` or `name/3`."""
    from components.recognition import tracking
    from pipelines import services

    if re.search(r"\.(onnx|mindir|om|safetensors)$", options.model):
        raise ValueError(f"{options.model}: no such file")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        services.settings()
    name, _, which = re.sub("[@/]", "@", options.model).rpartition("@")
    version = tracking.find_version(name or f"wordmill-{options.recipe}", which)
    return tracking.download(version, services.STATE / "models")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="verb")
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument("recipe", help="a name below pipelines/recipes, or the path of a .yaml file")
    recipe.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe value, such as train.epochs=1"
    )
    recipe.add_argument("--framework", default="", help="pytorch or mindspore instead of the recipe's")
    recipe.add_argument("--benchmarks", default="", help="comma-separated benchmarks instead of the recipe's")
    recipe.add_argument("--catalogue", default="", help="comma-separated catalogue files beside the built-in one")
    recipe.add_argument("--from", action="append", default=[], metavar="NAME=PLACE", dest="places",
                        help="take a data set, or an archive of several, from a path or URI")  # fmt: skip
    recipe.add_argument("--smoke", action="store_true", help="the same graph on little data, in about a minute")
    recipe.add_argument("--device", default="cpu", choices=("cpu", "cuda", "npu"), help="what to train on")
    recipe.add_argument("--processes", type=int, default=2, help="training processes, one to a device")
    compiles = verbs.add_parser("compile", parents=[recipe], help="write the pipeline for Kubeflow")
    compiles.add_argument("-o", "--output", default="", help="the file to write, <recipe>.yaml by default")
    compiles.set_defaults(verb=_compile)
    verbs.add_parser("run", parents=[recipe], help="run the pipeline on this machine").set_defaults(verb=_run)
    compares = verbs.add_parser("compare", help="show runs side by side: benchmarks, cost and what differs")
    compares.add_argument("runs", nargs="*", help="run tags or MLflow run ids, or how one of them begins")
    compares.add_argument("--recipe", default="", help="compare the last runs of this recipe")
    compares.add_argument("--last", type=int, default=0, help="how many of them")
    compares.add_argument(
        "-o", "--output", default="", help="the page to write, compare.html among the state by default"
    )
    compares.set_defaults(verb=_compare)
    reads = verbs.add_parser("read", help="read pictures of words, print and save their texts")
    reads.add_argument("images", help="a folder of pictures, a .txt list of their paths, or one picture")
    reads.add_argument(
        "--model",
        default="champion",
        help="an alias of the recipe's model, NAME@alias or NAME/version, or a .onnx, .mindir or .safetensors file",
    )
    reads.add_argument("--recipe", default="quickstart", help="whose champion")
    reads.add_argument("-o", "--output", default="", help="the JSON lines to write, readings.jsonl among the state")
    reads.set_defaults(verb=_read)
    accepts = verbs.add_parser("accept", help="go on with what a changed source holds now")
    accepts.add_argument("source", help="the source as the error names it")
    accepts.set_defaults(verb=_accept)
    verbs.add_parser("up", help="start the embedded services").set_defaults(verb=_up)
    verbs.add_parser("down", help="stop the embedded services").set_defaults(verb=_down)
    verbs.add_parser("ui", help="start MLflow where needed and open it").set_defaults(verb=_ui)
    return parser
