"""Speed of the renderer on one core: pictures per second of CPU time, start-up and memory.

python -m benchmarks.synth [--json]
"""

import argparse
import json
import time
from pathlib import Path

from wordmill.synth.renderer import Renderer, SynthSpec

GOAL_GRAY_PER_S = 2000.0
GOAL_START_S = 1.0
GOAL_MEMORY_MB = 500.0

Row = dict[str, str | float | bool | None]


def row(name: str, value: float, unit: str, goal: float | None, met: bool | None) -> Row:
    """One line of the table; there is no peer here."""
    return {"name": name, "value": round(value, 2), "unit": unit, "peer": None, "ratio": None, "goal": goal, "met": met}


def spec(kind: str, difficulty: str, colour: str = "0") -> SynthSpec:
    """A data set that is timed."""
    return SynthSpec(kind=kind, seed=1, count=1, words="train", difficulty=difficulty, colour=colour)


def start() -> Row:
    """CPU time until the first picture is there."""
    before = time.process_time()
    Renderer(spec("words", "mixed")).sample(0)
    start_s = time.process_time() - before
    return row("start", start_s, "s", GOAL_START_S, start_s <= GOAL_START_S)


def per_s(drawn: SynthSpec, count: int) -> float:
    """Draw `count` pictures, so that most faces are unpacked, then time as many more."""
    renderer = Renderer(drawn)
    for index in range(count):
        renderer.sample(index)
    before = time.process_time()
    for index in range(count, 2 * count):
        renderer.sample(index)
    return count / (time.process_time() - before)


def peak_memory_mb() -> float:
    """The most memory that this process has had; getrusage would count its parent's, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def rows() -> list[Row]:
    """All measurements."""
    found = [start()]
    gray = {difficulty: per_s(spec("words", difficulty), 4000) for difficulty in ("mixed", "easy", "hard")}
    unit = "1/s per core"
    found += [row(f"words, {d}", v, unit, GOAL_GRAY_PER_S, v >= GOAL_GRAY_PER_S) for d, v in gray.items()]
    colour = per_s(spec("words", "mixed", "1"), 4000)
    found.append(row("words, colour", colour, unit, round(gray["mixed"] / 2, 2), colour >= gray["mixed"] / 2))
    found.append(row("Chinese lines", per_s(spec("chinese", "mixed"), 2000), unit, None, None))
    found.append(row("street signs", per_s(spec("signs", "mixed"), 200), unit, None, None))
    memory_mb = peak_memory_mb()
    found.append(row("memory, peak", memory_mb, "MiB", GOAL_MEMORY_MB, memory_mb <= GOAL_MEMORY_MB))
    return found


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    if parser.parse_args().json:
        print(json.dumps(rows(), indent=1))
        return
    for line in rows():
        goal = "" if line["goal"] is None else f"goal {line['goal']:<8} met {line['met']}"
        print(f"{line['name']:<16} {line['value']:>9} {line['unit']:<13} {goal}".rstrip())


if __name__ == "__main__":
    main()
