"""The table of recognisers: `python -m wordmill.models.table RECIPE.yaml... [--format table|json]`."""

import argparse
import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

from wordmill.recipe.frameworks import PACKAGES, environment, twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.text.decoding import codec_of

COLUMNS = ("recipe", "framework", "parameters", "steps", "classes", "input_shape")

RecogniserRow = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Print the recognisers of recipes in both frameworks, or in one."""
    parser = argparse.ArgumentParser(prog="python -m wordmill.models.table", description=__doc__)
    parser.add_argument("recipes", nargs="+", type=Path, help="recipe files")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--framework", choices=tuple(PACKAGES), help="build in this process, in one framework alone")
    options = parser.parse_args(arguments)
    try:
        recipes = [load_recipe(path) for path in options.recipes]
        if options.framework:
            rows = [describe(recipe, options.framework) for recipe in recipes]
        else:
            columns = [_ask(framework, options.recipes) for framework in PACKAGES]
            rows = [row for pair in zip(*columns, strict=True) for row in pair]
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(rows) if options.format == "json" else table(rows))


def describe(recipe: Recipe, framework: str) -> RecogniserRow:
    """Build a recipe's recogniser in a framework and return its row: trainable parameters, steps T, classes, input."""
    model, weights = twin(framework, "models.model"), twin(framework, "models.weights")
    twin(framework, "models.predict").open_device("cpu")
    data, classes = recipe.data, codec_of(recipe.model, recipe.data).classes
    net = model.build(recipe.model, data, classes)
    parameters = sum(prod(shape) for name, shape in weights.shapes(net).items() if ".running_" not in name)
    return {"recipe": recipe.name, "framework": framework, "parameters": parameters,
            "steps": model.count_steps(net, data), "classes": classes,
            "input_shape": [data.channels, data.height, data.width]}  # fmt: skip


def table(rows: list[RecogniserRow]) -> str:
    """Return rows as aligned columns under their names."""
    cells = [COLUMNS, *(tuple(_cell(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    names, numbers = slice(2), slice(2, None)  # to the left, and to the right
    lines = [[*map(str.ljust, line[names], widths[names]), *map(str.rjust, line[numbers], widths[numbers])]
             for line in cells]  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _ask(framework: str, paths: list[Path]) -> list[RecogniserRow]:
    """Return the rows of one framework, from a process with the environment that it needs."""
    command = [sys.executable, "-m", "wordmill.models.table", *map(str, paths)]
    done = subprocess.run([*command, "--framework", framework, "--format", "json"], stdout=subprocess.PIPE, text=True,
                          env=os.environ | environment(framework, "cpu"), check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{framework}: the process that builds the recognisers ended with code {done.returncode}: "
                           "see above")  # fmt: skip
    rows: list[RecogniserRow] = json.loads(done.stdout)
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
