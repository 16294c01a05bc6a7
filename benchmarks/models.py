"""Speed of the recipes' training steps and predictions in both frameworks, against peers, in interleaved rounds.

python -m benchmarks.models [--recipes NAME...] [--quick] [--json] [--threads N] [--device cuda --peak-tflops N]

On a processor the value is processor time per picture, user and system, which other work on the machine disturbs less
than it does the clock. A ratio is the peer's time by ours: above 1, ours is faster.
"""

import argparse
import dataclasses
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from components.train.launch import free_port
from wordmill.recipe.arguments import from_one
from wordmill.recipe.frameworks import PACKAGES, environment

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "pipelines" / "recipes"
PEERS_PYTHON = ROOT / ".state" / "peers" / "bin" / "python"
MODES = ("training", "inference")
ROUNDS, ROUND_S = 3, 1.0
START_S = 600.0  # how long a contender may take for its first run
DTRB_GOAL = 2.0  # of PyTorch's training against DTRB's; no other peer may be faster than ours

FRAMEWORKS = {
    "pytorch": "pytorch",
    "mindspore": "mindspore",
    "dtrb": "pytorch",
    "doctr": "pytorch",
    "mindocr": "mindspore",
    "mindir": "mindspore",
}
TITLES = {
    "dtrb": "DTRB-style VGG",
    "doctr": "docTR",
    "mindocr": "MindOCR",
    "rapidocr": "RapidOCR",
    "openvino": "OpenVINO",
}
INSTALLED = ("doctr", "mindocr", "rapidocr", "openvino")  # beside this project's own packages, for benchmarks alone

Row = dict[str, str | float | bool | None]


@dataclasses.dataclass(frozen=True)
class Contest:
    """What a recipe is measured at: the batch, smaller than 64 where steps would take minutes, and its peers."""

    batch: int
    peers: tuple[str, ...]


CONTESTS = {
    "quickstart": Contest(64, ("dtrb",)),
    "small": Contest(64, ()),  # the network of quickstart
    "crnn_vgg7": Contest(64, ("dtrb", "doctr", "mindocr")),
    "crnn_npu": Contest(64, ("dtrb",)),
    "crnn_mv3": Contest(64, ("doctr",)),
    "crnn_r34": Contest(32, ("mindocr",)),
    "crnn_icdar15": Contest(32, ()),  # the network of crnn_r34
    "crnn_r34_ch": Contest(8, ("mindocr",)),
    "rare_r34": Contest(32, ("mindocr",)),
    "rare_r34_tps": Contest(32, ()),
    "rare_r34_ch": Contest(8, ("mindocr",)),
    "seq2seq_fsns": Contest(8, ()),
    "svtr_tiny": Contest(16, ()),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """Medians over the rounds of one contender, milliseconds per picture, and its operations per picture."""

    contender: str
    cpu_ms: float
    wall_ms: float
    flops: float = 0.0


class Worker:
    """The parent's side of a worker process."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self.process, self.lines = process, link.makefile("rw")
        self.flops = float(json.loads(self.lines.readline())["flops"])

    def round(self, seconds: float) -> tuple[float, float]:
        """Have it measure once; return milliseconds per picture of processor time and by the clock."""
        print(seconds, file=self.lines, flush=True)
        cpu_ms, wall_ms = json.loads(self.lines.readline())
        return cpu_ms, wall_ms


def command(name: str, mode: str, folder: Path) -> list[str]:
    """Return how a worker is started: ours from this environment, packages from the peers', MindSpore's by msrun."""
    script = str(ROOT / "benchmarks" / "worker.py")
    if name == "mindspore" and mode == "training":
        msrun = [str(Path(sys.executable).with_name("msrun")), "--worker_num=1", "--local_worker_num=1", "--join=True"]
        return [*msrun, f"--master_port={free_port()}", f"--log_dir={folder / 'msrun'}", script]
    return [str(PEERS_PYTHON) if name in INSTALLED else sys.executable, script]


@contextmanager
def started(name: str, recipe: str, mode: str, options: argparse.Namespace) -> Iterator[Worker]:
    """Start a worker and wait until it has run once; RuntimeError with the end of what it printed where it fails."""
    batch = str(options.batch or CONTESTS[recipe].batch)
    variables = environment(FRAMEWORKS.get(name, "pytorch"), options.device) | {"OMP_NUM_THREADS": str(options.threads)}
    folder = Path(tempfile.mkdtemp(prefix="wordmill-benchmark-"))
    address, log = str(folder / "socket"), folder / "log"
    task = [address, str(options.threads), name, str(RECIPES / f"{recipe}.yaml"), mode, batch, options.device]
    with socket.socket(socket.AF_UNIX) as server, log.open("wb") as output:
        server.bind(address)
        server.listen()
        server.settimeout(1.0)
        process = subprocess.Popen(
            [*command(name, mode, folder), *task], env=os.environ | variables, cwd=folder, stdout=output, stderr=output
        )
        try:
            with accepted(server, process, log) as link:
                yield Worker(process, link)
        finally:
            stop(process)
            shutil.rmtree(folder)


def accepted(server: socket.socket, process: subprocess.Popen[bytes], log: Path) -> socket.socket:
    """Wait for the worker's connection."""
    for _ in range(int(START_S)):
        try:
            return server.accept()[0]
        except TimeoutError:
            if process.poll() is not None:
                break
    printed = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    # The first error, since msrun adds its own to a worker's.
    errors = [line for line in printed if line.partition(":")[0].endswith("Error")]
    raise RuntimeError([*errors, *printed[-1:], "it printed nothing"][0])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a worker, which does so by itself when its connection is closed."""
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def contest(recipe: str, mode: str, options: argparse.Namespace) -> list[Result]:
    """Let ours and the peers run in turn."""
    names = [*PACKAGES, *CONTESTS[recipe].peers]
    if options.device == "cuda":  # MindSpore has no CUDA any more
        names = [name for name in names if FRAMEWORKS[name] == "pytorch"]
    return interleaved(names, recipe, mode, options)


def interleaved(names: list[str], recipe: str, mode: str, options: argparse.Namespace) -> list[Result]:
    """Let contenders run in turn, round after round; who fails to start is named and left out."""
    workers: dict[str, Worker] = {}
    rounds, seconds = (1, 0.0) if options.quick else (ROUNDS, ROUND_S)
    with ExitStack() as stack:
        for name in names:
            try:
                workers[name] = stack.enter_context(started(name, recipe, mode, options))
            except RuntimeError as error:
                options.failed.append(f"{recipe}, {mode}, {name}: {error}")
        times = [{name: worker.round(seconds) for name, worker in workers.items()} for _ in range(rounds)]
    medians = {name: [statistics.median(row[name][i] for row in times) for i in (0, 1)] for name in workers}
    return [Result(name, cpu, wall, workers[name].flops) for name, (cpu, wall) in medians.items()]


def rows_of(label: str, mode: str, results: list[Result], device: str, peak_tflops: float) -> list[Row]:
    """Make the table's lines of one contest: each contender's speed, ours against every peer of its framework.

    Where its framework has no peer, ours meets those of the other.
    """
    ours = [result for result in results if result.contender in PACKAGES]
    peers = [result for result in results if result.contender not in PACKAGES]
    rows = [row(f"{label}, {TITLES[peer.contender]}", peer, device) for peer in peers]
    for result in ours:
        name = f"{label}, {result.contender}"
        alike = [peer for peer in peers if FRAMEWORKS[peer.contender] == result.contender] or peers
        rows += [row(name, result, device, peer, goal(result, peer, mode)) for peer in alike] or [
            row(name, result, device)
        ]
        if result.flops and peak_tflops:
            share = result.flops / (result.wall_ms / 1000) / (peak_tflops * 1e12)
            rows.append({"name": name, "value": round(share, 4), "unit": "of the card's peak", **NO_PEER})
    return rows


def goal(result: Result, peer: Result, mode: str) -> float:
    """Return the ratio that ours must reach."""
    trains_crnn = mode == "training" and (result.contender, peer.contender) == ("pytorch", "dtrb")
    return DTRB_GOAL if trains_crnn else 1.0


NO_PEER: Row = {"peer": None, "ratio": None, "goal": None, "met": None}


def row(name: str, result: Result, device: str, peer: Result | None = None, goal: float = 0.0) -> Row:
    """Make one line: milliseconds of processor time per picture, or pictures per second of a card."""
    if device == "cpu":
        line: Row = {"name": name, "value": round(result.cpu_ms, 3), "unit": "ms CPU/picture"}
    else:
        line = {"name": name, "value": round(1000 / result.wall_ms, 1), "unit": "pictures/s"}
    if peer is None:
        return line | NO_PEER
    times = (result.cpu_ms, peer.cpu_ms) if device == "cpu" else (result.wall_ms, peer.wall_ms)
    ratio = times[1] / times[0]
    return line | {"peer": TITLES[peer.contender], "ratio": round(ratio, 2), "goal": goal, "met": ratio >= goal}


def table(rows: list[Row]) -> str:
    """Return the rows as aligned columns under their names."""
    columns = ("name", "value", "unit", "peer", "ratio", "goal", "met")
    cells = [columns, *(tuple("" if line[key] is None else str(line[key]) for key in columns) for line in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--recipes", nargs="+", choices=tuple(CONTESTS), default=tuple(CONTESTS), metavar="NAME")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--batch", type=from_one, help="of every recipe, in place of its own")
    parser.add_argument("--threads", type=from_one, default=1, help="processors of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="the card's bfloat16 rate, by its data sheet")
    parser.add_argument("--quick", action="store_true", help="one run each, to see that everything works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.failed = []
    if not PEERS_PYTHON.exists():
        parser.error(f"{PEERS_PYTHON} is not there: `make bench-models` installs the peers")
    return options


def main() -> None:
    """Measure, and print the table or its rows as JSON; code 1 where a contender did not run."""
    options = parse()
    rows: list[Row] = []
    for recipe in options.recipes:
        for mode in options.modes:
            print(f"{recipe}, {mode}", file=sys.stderr, flush=True)
            batch = options.batch or CONTESTS[recipe].batch
            results = contest(recipe, mode, options)
            rows += rows_of(f"{recipe} x{batch}, {mode}", mode, results, options.device, options.peak_tflops)
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    if options.failed:
        sys.exit("did not run: " + "; ".join(options.failed))


if __name__ == "__main__":
    main()
