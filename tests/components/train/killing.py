"""A train stage in a process of its own, for tests that kill parts of it and start it again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.wordmill.training.tiny import DATA, MODEL
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Train
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.children import tied
from wordmill.store.storage import Store
from wordmill.training.records import read_pulse
from wordmill.training.state import records

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 900.0
POLL_S = 0.005
PROGRAM = """
from wordmill.store.stages import main
from components.train.stage import run
main(run)
"""


@dataclass(frozen=True)
class Attempt:
    """One start of the workers: when their job was written, and the step that they go on after."""

    began_ns: int
    step: int


class StageProcess:
    """The stage and what is below it, by the environment of the moment when it is started."""

    def __init__(self, store: Store, shards: Path, train: Train, folder: Path, before: str = "") -> None:
        """Take what to train on and by; `before` is Python that runs in the stage's process at first."""
        self.cache, self.folder = store.cache, folder
        self.output, self.log = folder / "trained.json", folder / "stage.txt"
        arguments = {
            "recipe": "tiny", "data": to_json(DATA), "model": to_json(MODEL), "train": to_json(train),
            "shards": str(shards), "device": "cpu", "processes": "2", "gang": "", "run-tag": "tag",
            "output": str(self.output),
        }  # fmt: skip
        command = [sys.executable, "-c", before + PROGRAM]
        self.command = tied([*command, *(part for name, value in arguments.items() for part in (f"--{name}", value))])
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)

    def run_folder(self) -> Path:
        """The folder that the run has of its own."""
        folders = [path for path in (self.cache / "training").glob("*") if path.is_dir()]
        assert len(folders) <= 1, folders
        return folders[0] if folders else self.cache / "training" / "none"

    def attempt(self) -> Attempt | None:
        """Return the attempt whose workers have done a step, if there is one."""
        job = self.run_folder() / "job.json"
        with suppress(FileNotFoundError):
            began_ns = job.stat().st_mtime_ns
            resume = json.loads(job.read_text())["resume"]
            pulse = self.run_folder() / "pulse.0"
            if pulse.stat().st_mtime_ns > began_ns and pulse.read_text() and job.stat().st_mtime_ns == began_ns:
                return Attempt(began_ns, int(Path(resume).stem.removeprefix("step-")) if resume else 0)
        return None

    def steps(self) -> int:
        """The steps that rank 0 has done."""
        pulse = read_pulse(self.run_folder(), 0)
        return pulse[0] if pulse else 0

    def kept(self) -> int:
        """The step of the newest checkpoint in the folder."""
        newest = next(iter(records(self.run_folder() / "checkpoints")), None)
        return int(newest.stem.removeprefix("step-")) if newest else 0

    def launcher(self) -> psutil.Process:
        """The process that starts the workers."""
        return next(child for child in psutil.Process(self.process.pid).children() if "job.json" in child.cmdline()[-1])

    def workers(self) -> list[psutil.Process]:
        """The processes that train; msrun's scheduler, which they can do without for long, is none of them."""
        started = [child for child in self.launcher().children(recursive=True) if "job.json" in child.cmdline()[-1]]
        return [child for child in started if child.environ().get("MS_ROLE") != "MS_SCHED"]

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; AssertionError with the end of the log where it does not or the stage ends."""
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert self.process.poll() is None, (
                f"{what}: the stage ended with code {self.process.poll()}: {self.tail()}"
            )
            assert time.monotonic() < deadline, f"{what}: not after {DEADLINE_S:.0f} s: {self.tail()}"
            time.sleep(POLL_S)

    def wait_for_attempt(self, last: Attempt | None) -> Attempt:
        """Wait until workers of another attempt than the last have done a step."""
        found: list[Attempt] = []

        def begun() -> bool:
            attempt = self.attempt()
            if attempt and attempt != last:
                found.append(attempt)
            return bool(found)

        self.wait(begun, f"an attempt after {last}")
        return found[0]

    def end(self) -> int:
        """Wait for the stage's end and return its code."""
        return self.process.wait(DEADLINE_S)

    def manifest(self) -> Manifest:
        """Wait for the stage to finish and return what it has made."""
        assert self.end() == 0, self.tail()
        return read_manifest(self.output)

    def tail(self) -> str:
        """The last lines of what it has printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def printed(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def kill_all(self) -> None:
        """Kill the stage and all that is below it."""
        stage = psutil.Process(self.process.pid)
        kill([stage, *stage.children(recursive=True)])
        self.process.wait()

    def stop(self) -> None:
        """Leave nothing behind."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def kill(processes: list[psutil.Process], number: int = signal.SIGKILL) -> None:
    """Send a signal to processes, of which some may have ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def left_over(folder: Path) -> list[list[str]]:
    """Return the command lines of living processes that name a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and any(str(folder) in part for part in process.cmdline()):
                found.append(process.cmdline())
    return found
