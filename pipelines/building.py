"""From the command line's options to a pipeline: the recipe, its data sets, the graph and its compiled text."""

import argparse
import re
import secrets
import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import smoke
from pipelines.profiles import PROFILES, one_node
from wordmill.recipe.catalogue import Entry, load_catalogue, redirect, select
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.parsing import nearest
from wordmill.recipe.schedule import make_plan
from wordmill.recipe.sections import Recipe
from wordmill.store.stages import OTHER_CODE
from wordmill.text.charset import charset_of, unusual

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

FOLDER = Path(__file__).resolve().parent
PROFILE = "train.profile=20"
# kfp's comment on a parameter that is a struct: its keys come in another order each time, which is no other pipeline.
STRUCTS = re.compile(r"^(#    \w+: dict) \[Default: .*\]$", re.MULTILINE)


def load_inputs(options: argparse.Namespace, processes: int) -> tuple[Recipe, dict[str, Entry]]:
    """Return the recipe with what the command line changes, and the catalogue entries of its data sets."""
    overrides = [*([PROFILE] if options.profile else []), *options.set]
    if options.framework:
        overrides.append(f"train.framework={options.framework}")
    path = recipe_path(options.recipe)
    if options.benchmarks:
        own = load_recipe(path).benchmarks if options.benchmarks.startswith("+") else ()
        overrides.append(f"benchmarks=[{', '.join((*own, options.benchmarks.removeprefix('+')))}]")
    recipe = load_recipe(path, tuple(overrides))
    charset_of(recipe.data)  # refused here rather than by the first stage that needs it
    if told := unusual(recipe.data.charset):
        print(told)
    built_in, extra = [FOLDER / "datasets.yaml"], [Path(path) for path in options.catalogue.split(",") if path]
    catalogue = redirect(load_catalogue([*built_in, *extra]), options.places)
    sets = select(catalogue, data_sets(recipe))
    if not options.smoke:
        return recipe, sets
    # What the command line says wins, but for what makes it a smoke run.
    standing = smoke.replaced(recipe, sets, load_catalogue(built_in))
    small = load_recipe(path, (*smoke.scaled(recipe, processes), *overrides, *standing))
    short = smoke.shortened(small, recipe, select(catalogue, data_sets(small)))
    print("".join(f"smoke run: {line}\n" for line in smoke.told(short)), end="")
    return small, short


def data_sets(recipe: Recipe) -> list[str]:
    """Return the names of a recipe's data sets, each once."""
    return list(dict.fromkeys((*recipe.data.train, *recipe.data.val, *recipe.benchmarks)))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe named here, or of one given by its path."""
    if name.endswith(".yaml"):
        return Path(name)
    if "/" in name:
        raise ValueError(f"{name}: expected a recipe's .yaml file or one of {', '.join(recipe_names())}")
    if name not in (known := recipe_names()):
        raise ValueError(f"recipe '{name}': {nearest(name, known)}")
    return FOLDER / "recipes" / f"{name}.yaml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that are here."""
    return sorted(path.stem for path in (FOLDER / "recipes").glob("*.yaml"))


def build_pipeline(options: argparse.Namespace, nightly: bool = False) -> tuple[Recipe, "GraphComponent"]:
    """Return the recipe and the graph that trains it; a nightly one only where something is new."""
    from pipelines.training import training_pipeline

    if options.hardware and (options.device or options.processes):
        raise ValueError(
            f"--hardware {options.hardware} names devices and processes: leave out --device and --processes"
        )
    here = one_node(options.device or "cpu", options.processes or (1 if options.smoke else 2))
    profile = PROFILES[options.hardware] if options.hardware else here
    recipe, catalogue = load_inputs(options, profile.devices)
    check_training(recipe, catalogue, profile.devices)
    pipeline = training_pipeline(recipe, catalogue, profile, nightly)
    if other := getattr(options, "other_code", ""):  # a schedule has no such option
        _tell(pipeline, OTHER_CODE, other)
    return recipe, pipeline


def check_training(recipe: Recipe, catalogue: dict[str, Entry], processes: int) -> None:
    """Refuse a training that its recipe and the catalogue's counts rule out, before anything runs."""
    data, sets = recipe.data, {name: catalogue[name] for name in recipe.data.train}
    stored = [name for name, entry in sets.items() if entry.reader != "synth"]
    if data.streamed and stored:
        raise ValueError(f"data.streamed: data set '{stored[0]}' is from {sets[stored[0]].source}, expected one from "
                         "synth://")  # fmt: skip
    samples = sum(min(entry.samples, data.limit or entry.samples) for entry in sets.values())
    make_plan(recipe.train, data.epoch_samples or samples, processes)


def _tell(pipeline: "GraphComponent", variable: str, value: str) -> None:
    """Set an environment variable for all of a pipeline's tasks."""
    for executor in pipeline.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["env"] = [{"name": variable, "value": value}]


def options_of(options: argparse.Namespace) -> str:
    """Return what of the command line makes the pipeline, as the words that make it again."""
    words = [options.recipe, *(f"--set={change}" for change in options.set)]
    words += [f"--from={place}" for place in options.places]
    for name in ("framework", "benchmarks", "catalogue", "hardware", "device", "processes"):
        if value := getattr(options, name):
            words.append(f"--{name}={value}")
    words += [f"--{flag}" for flag in ("smoke", "profile", "nightly") if getattr(options, flag, False)]
    return shlex.join([*words, *(f"--{other}" for other in [getattr(options, "other_code", "")] if other)])


def compiled(pipeline: "GraphComponent") -> str:
    """Return a pipeline's compiled text, the YAML that Kubeflow Pipelines takes."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return STRUCTS.sub(r"\1", path.read_text(encoding="utf-8"))


def new_run_tag(recipe: str) -> str:
    """Return a tag that no other run has: `<recipe>-<date>-<time>-<four hexadecimal digits>`."""
    return f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
