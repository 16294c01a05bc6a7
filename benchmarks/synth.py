"""Speed of the word-image renderer on one core: pictures per second of CPU time, start-up and memory.

python -m benchmarks.synth [--json]
"""

import argparse
import json
import resource
import time

from components.recognition.synth import Renderer, SynthSpec

COUNT = 4000
GOAL_PER_S = 2000.0
GOAL_START_S = 1.0
GOAL_MEMORY_MB = 450.0

Row = dict[str, str | float | bool | None]


def row(name: str, value: float, unit: str, goal: float, met: bool) -> Row:
    """One line of the table; there is no peer here."""
    return {"name": name, "value": round(value, 2), "unit": unit, "peer": None, "ratio": None, "goal": goal, "met": met}


def spec(difficulty: str) -> SynthSpec:
    """The data set that is timed."""
    return SynthSpec(seed=1, count=2 * COUNT, fonts="train", words="train", difficulty=difficulty)


def start() -> Row:
    """CPU time until the first picture is there."""
    before = time.process_time()
    Renderer(spec("mixed")).sample(0)
    start_s = time.process_time() - before
    return row("start", start_s, "s", GOAL_START_S, start_s <= GOAL_START_S)


def speed(difficulty: str) -> Row:
    """Draw COUNT pictures so that most faces are unpacked, then time COUNT more."""
    renderer = Renderer(spec(difficulty))
    for index in range(COUNT):
        renderer.sample(index)
    before = time.process_time()
    for index in range(COUNT, 2 * COUNT):
        renderer.sample(index)
    per_s = COUNT / (time.process_time() - before)
    return row(f"{difficulty}: pictures", per_s, "1/s per core", GOAL_PER_S, per_s >= GOAL_PER_S)


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows = [start(), *map(speed, ("mixed", "easy", "hard"))]
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(row("memory, peak", memory_mb, "MiB", GOAL_MEMORY_MB, memory_mb <= GOAL_MEMORY_MB))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for line in rows:
        print(f"{line['name']:<18} {line['value']:>9} {line['unit']:<13} goal {line['goal']:<7} met {line['met']}")


if __name__ == "__main__":
    main()
