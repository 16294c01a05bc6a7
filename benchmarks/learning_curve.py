"""What the learning curve's interval is worth: how often it holds what twice as many words really give.

python -m benchmarks.learning_curve [--curves N] [--json]

Of a law of the error, four trainings on 1/8, 1/4, 1/2 and all of the words read so many held-out words, the same ones
each: a word that is hard for one is hard for the others (correlation 0.5). Beside that, each training's error is off by
one point (standard deviation), as chance in training has it. The last law ends more suddenly than any that is fitted.
"""

import argparse
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.data_rows import print_rows
from pipelines.local.own.curve import PARTS
from wordmill.inference.learning_curve import BY_CHANCE, fit_curve
from wordmill.recipe.arguments import from_one

Row = dict[str, str | float | bool | None]
Law = Callable[[Any], Any]

LAWS: dict[str, Law] = {
    "0.3 x^-0.4": lambda x: 0.3 * x**-0.4,
    "0.3 x^-0.2": lambda x: 0.3 * x**-0.2,
    "0.08 x^-0.4": lambda x: 0.08 * x**-0.4,
    "0.3": lambda x: 0.3 + 0.0 * x,
    "0.2 + 0.1 x^-0.5": lambda x: 0.2 + 0.1 * x**-0.5,
    "0.25 + 0.05 x^-0.9": lambda x: 0.25 + 0.05 * x**-0.9,
    "0.6 (1 + x / 0.3)^-0.6": lambda x: 0.6 * (1 + x / 0.3) ** -0.6,
    "0.1 + 0.4 (1 + x / 0.1)^-0.5": lambda x: 0.1 + 0.4 * (1 + x / 0.1) ** -0.5,
    "0.5 - 0.06 log2 x": lambda x: 0.5 - 0.06 * np.log2(x),
    "1 / (1 + 1.5 x^0.72)": lambda x: 1 / (1 + 1.5 * x**0.72),
    "0.15 + 0.45 exp(-3 x)": lambda x: 0.15 + 0.45 * np.exp(-3 * x),
}
BEYOND = "0.15 + 0.45 exp(-3 x)"
WORDS = (60, 200, 1000)
ALIKE = 0.5
CURVES = 500


def draw(law: Law, words: int, curves: int) -> npt.NDArray[np.int64]:
    """Return how many of so many words are read wrong by the trainings of each curve, (curves, 4)."""
    generator = np.random.Generator(np.random.Philox(words))
    errors = law(np.array(PARTS)) + BY_CHANCE * generator.standard_normal((curves, len(PARTS)))
    limits = np.vectorize(NormalDist().inv_cdf)(np.clip(errors, 0.002, 0.998))
    counts = np.zeros((curves, len(PARTS)), dtype=np.int64)
    for _ in range(words):  # a word at a time: all of them at once are gigabytes
        shared, own = generator.standard_normal((curves, 1)), generator.standard_normal((curves, len(PARTS)))
        counts += np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own < limits
    return counts


def rows_of(name: str, words: int, curves: int) -> list[Row]:
    """Simulate curves of one law: how often the interval holds the true gain, and how wide it is."""
    law = LAWS[name]
    truth, found = float(law(1.0) - law(2.0)), fit_curve(PARTS, draw(law, words, curves), words)
    covered = 100 * float(((found.low <= truth) & (truth <= found.high)).mean())
    where = f"{name}, {words} words, {100 * truth:.1f} points to gain"
    goal = None if name == BEYOND else 90.0
    return [
        row(f"{where}: coverage of the 95 % interval", covered, "%", goal),
        row(f"{where}: mean of the gains", 100 * float(found.gain.mean()), "points", None),
        row(f"{where}: mean width of the interval", 100 * float((found.high - found.low).mean()), "points", None),
    ]


def row(name: str, value: float, unit: str, goal: float | None) -> Row:
    """Return a row of the table."""
    met = None if goal is None else value >= goal
    return {"name": name, "value": round(value, 3), "unit": unit, "peer": None, "ratio": None, "goal": goal, "met": met}


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_curve", description=__doc__)
    parser.add_argument("--curves", type=from_one, default=CURVES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [one for name in LAWS for words in WORDS for one in rows_of(name, words, options.curves)]
    print_rows(rows, options.json)


if __name__ == "__main__":
    main()
