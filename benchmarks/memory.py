"""What memory a training step takes: of a process without pictures, and for each pixel of a picture.

python -m benchmarks.memory [--recipes NAME...] [--frameworks NAME...] [--device cpu] [--json]

A process makes steps of few pictures, then of more: the difference is the pictures', the rest is the process's. The
table in wordmill/recipe/memory.py holds these numbers, rounded up; goal is what it says.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import ours
from wordmill.recipe.frameworks import PACKAGES, environment
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.memory import MIB, NEED

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "pipelines" / "recipes"
PIXELS = 8 * 32 * 100  # of the few pictures; of the more there are three times as many
STEPS = 2

Row = dict[str, str | float | bool | None]


def peaks(name: str, framework: str, device: str) -> list[int]:
    """Return few and more, and the most memory in bytes that this process has had after steps of each."""
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    few = max(2, PIXELS // (recipe.data.height * recipe.data.width))
    found = [few, 3 * few]
    for pictures in (few, 3 * few):
        run = ours.training(recipe, pictures, device, framework)
        for _ in range(STEPS):
            run()
        found.append(run.args[0].memory_bytes())
    return found


def rows_of(name: str, framework: str, found: list[int]) -> list[Row]:
    """Return what a process takes in MiB, and a picture in KiB for each pixel, against the table."""
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    few, more, least, most = found
    picture = (most - least) / (more - few)
    values = (least - few * picture) / MIB, picture / 1024 / (recipe.data.height * recipe.data.width)
    told = NEED[framework][recipe.model.backbone]
    parts = (("process", "MiB"), ("a pixel", "KiB"))
    return [
        {"name": f"{name}, {framework}, {part}", "value": value, "unit": unit, "peer": None, "ratio": None,
         "goal": goal, "met": value <= goal}
        for (part, unit), value, goal in zip(parts, values, told, strict=True)
    ]  # fmt: skip


def measured(name: str, framework: str, device: str) -> list[Row]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, framework, device]
    variables = os.environ | environment(framework, device)
    answer = subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    return rows_of(name, framework, json.loads(answer.splitlines()[-1]))


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--frameworks", nargs="+", default=list(PACKAGES), choices=tuple(PACKAGES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(peaks(*options.child)))
        return
    rows = [row for name in options.recipes for framework in options.frameworks
            for row in measured(name, framework, options.device)]  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:34} {row['value']:8.1f} {row['unit']}  table {row['goal']:8.1f}")


if __name__ == "__main__":
    main()
