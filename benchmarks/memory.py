"""What memory a training step takes: of a process without pictures, and for each pixel of a picture.

python -m benchmarks.memory [--recipes NAME...] [--frameworks NAME...] [--device cpu] [--json]

One process makes steps of few pictures, another one of more: the difference is the pictures', the rest the process's.
The table in wordmill/recipe/memory.py holds these numbers, rounded up; goal is what it says.
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
from wordmill.recipe.memory import MIB, need_of

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "pipelines" / "recipes"
PIXELS = 64 * 32 * 100  # of the few pictures: of fewer, building MindSpore's graphs takes more than running them
STEPS = 2

Row = dict[str, str | float | bool | None]


def peak(name: str, framework: str, device: str, pictures: int) -> int:
    """Return the most memory in bytes that this process has had after steps of so many pictures."""
    run = ours.training(load_recipe(RECIPES / f"{name}.yaml"), pictures, device, framework)
    for _ in range(STEPS):
        run()
    return int(run.args[0].memory_bytes())


def measured(name: str, framework: str, device: str, pictures: int) -> int:
    """Measure in a process of its own: what another network has had is not given back."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, framework, device, str(pictures)]
    variables = os.environ | environment(framework, device)
    answer = subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(answer.splitlines()[-1])


def rows_of(name: str, framework: str, peaks: dict[int, int]) -> list[Row]:
    """Return what a process takes in MiB, and a picture in KiB for each pixel, against the table."""
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    (few, least), (more, most) = sorted(peaks.items())
    picture = (most - least) / (more - few)
    values = (least - few * picture) / MIB, picture / 1024 / (recipe.data.height * recipe.data.width)
    told = need_of(framework, recipe.model)
    return [
        {"name": f"{name}, {framework}, {part}", "value": value, "unit": unit, "peer": None, "ratio": None,
         "goal": goal, "met": value <= goal}
        for part, unit, value, goal in zip(("process", "a pixel"), ("MiB", "KiB"), values, told, strict=True)
    ]  # fmt: skip


def compare(name: str, framework: str, device: str) -> list[Row]:
    """Measure few pictures and twice as many."""
    data = load_recipe(RECIPES / f"{name}.yaml").data
    few = max(2, PIXELS // (data.height * data.width))
    return rows_of(
        name, framework, {pictures: measured(name, framework, device, pictures) for pictures in (few, 2 * few)}
    )


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--frameworks", nargs="+", default=list(PACKAGES), choices=tuple(PACKAGES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, framework, device, pictures = options.child
        print(peak(name, framework, device, int(pictures)))
        return
    rows = [row for name in options.recipes for framework in options.frameworks
            for row in compare(name, framework, options.device)]  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:34} {row['value']:8.1f} {row['unit']}  table {row['goal']:8.1f}")


if __name__ == "__main__":
    main()
