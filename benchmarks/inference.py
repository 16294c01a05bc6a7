"""Speed of whole readings, from crops to texts, by our files in their runtimes and by peers, in interleaved rounds.

python -m benchmarks.inference [--recipes NAME...] [--quick] [--json] [--threads N]

All read the same rendered words, one at a time or 64. The value is processor time per picture, user and system, which
other work on the machine disturbs less than it does the clock; with one thread it is the latency of an idle machine.
A ratio is the peer's time by ours: above 1, ours is faster. OpenVINO runs our ONNX file: a limit, no peer to beat.
"""

import argparse
import json
import sys

from benchmarks.models import PEERS_PYTHON, Result, Row, interleaved, row, table
from wordmill.recipe.arguments import from_one
from wordmill.recipe.sections import INT8

FORMATS = ("onnx", *INT8, "mindir")
LIMIT = "openvino"
PEERS = {"crnn_vgg7": ("doctr", "rapidocr"), "crnn_mv3": ("doctr", "rapidocr")}
BATCHES = (1, 64)
GOAL = 1.0
JUDGED = "onnx"  # what is registered and served


def rows_of(label: str, results: list[Result]) -> list[Row]:
    """Make the table's lines of one contest: peers and limit, then each format of ours against each of them."""
    ours = [result for result in results if result.contender in FORMATS]
    others = [result for result in results if result.contender not in FORMATS]
    rows = [row(f"{label}, {other.contender}", other, "cpu") for other in others]
    for result in ours:
        name = f"{label}, {result.contender}"
        for other in others:
            judged = result.contender == JUDGED and other.contender != LIMIT
            line = row(name, result, "cpu", other, GOAL)
            rows.append(line if judged else line | {"goal": None, "met": None})
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--recipes", nargs="+", choices=tuple(PEERS), default=tuple(PEERS), metavar="NAME")
    parser.add_argument("--threads", type=from_one, default=1, help="processors of each contender")
    parser.add_argument("--quick", action="store_true", help="one run each, to see that everything works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.failed, options.device = [], "cpu"
    if not PEERS_PYTHON.exists():
        parser.error(f"{PEERS_PYTHON} is not there: `make bench-inference` installs the peers")
    return options


def main() -> None:
    """Measure, and print the table or its rows as JSON; code 1 where a contender did not run."""
    options = parse()
    rows: list[Row] = []
    for recipe in options.recipes:
        for batch in BATCHES:
            print(f"{recipe} x{batch}", file=sys.stderr, flush=True)
            options.batch = batch
            names = [*FORMATS, LIMIT, *PEERS[recipe]]
            rows += rows_of(f"{recipe} x{batch}", interleaved(names, recipe, "reading", options))
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    if options.failed:
        sys.exit("did not run: " + "; ".join(options.failed))


if __name__ == "__main__":
    main()
