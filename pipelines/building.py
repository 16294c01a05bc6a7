"""From the command line's options to a pipeline: the recipe, its data sets, the graph and its compiled text."""

import argparse
import secrets
import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.profiles import PROFILES, Profile
from wordmill.recipe.catalogue import Entry, load_catalogue, redirect, select
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.parsing import nearest
from wordmill.recipe.schedule import batch_of_process
from wordmill.recipe.sections import Recipe
from wordmill.store.stages import OTHER_CODE
from wordmill.text.charset import charset_of

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

FOLDER = Path(__file__).resolve().parent
PROFILE = "train.profile=20"
SMOKE = ("data.limit=4096", "train.epochs=1", "train.validations_per_epoch=1")


def load_inputs(options: argparse.Namespace) -> tuple[Recipe, dict[str, Entry]]:
    """Return the recipe with what the command line changes, and the catalogue entries of its data sets."""
    overrides = [*(SMOKE if options.smoke else ()), *([PROFILE] if options.profile else []), *options.set]
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


def build_pipeline(options: argparse.Namespace, nightly: bool = False) -> tuple[Recipe, "GraphComponent"]:
    """Return the recipe and the graph that trains it; a nightly one only where something is new."""
    from pipelines.training import training_pipeline

    recipe, catalogue = load_inputs(options)
    if options.hardware and (options.device or options.processes):
        raise ValueError(
            f"--hardware {options.hardware} names devices and processes: leave out --device and --processes"
        )
    here = Profile(device=options.device or "cpu", processes=options.processes or 2)
    profile = PROFILES[options.hardware] if options.hardware else here
    batch_of_process(recipe.train, profile.devices)  # refused before anything runs
    pipeline = training_pipeline(recipe, catalogue, profile, nightly)
    if other := getattr(options, "other_code", ""):  # a schedule has no such option
        _tell(pipeline, OTHER_CODE, other)
    return recipe, pipeline


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
    words += [f"--{flag}" for flag in ("smoke", "profile") if getattr(options, flag)]
    return shlex.join([*words, *(f"--{other}" for other in [getattr(options, "other_code", "")] if other)])


def compiled(pipeline: "GraphComponent") -> str:
    """Return a pipeline's compiled text, the YAML that Kubeflow Pipelines takes."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text(encoding="utf-8")


def new_run_tag(recipe: str) -> str:
    """Return a tag that no other run has: `<recipe>-<date>-<time>-<four hexadecimal digits>`."""
    return f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
