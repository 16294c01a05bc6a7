"""A node's training processes: started, watched while they run, and ended, so that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from components.train.folder import LAUNCHER_LOG, join_logs
from components.train.launch import Node, launch
from components.train.memory import REFUSED, MemoryWatch, ShortOfMemoryError, advice
from components.train.mirror import StoreAwayError
from components.train.stopping import raise_if_stopped, sigterm_as_error, sigterm_ignored, sigterm_later
from wordmill.recipe.frameworks import environment, prepended
from wordmill.store.artifacts import ROOT
from wordmill.store.children import tied
from wordmill.store.stages import StoppedError
from wordmill.training.job import Job, write_job
from wordmill.training.loop import STOP
from wordmill.training.records import read_pulse

LOOK_EVERY_S = 1.0
LAST_LINES = 20  # of a failed worker's log
START_TIMEOUT_S = 1800.0  # until the first step is begun: graphs are compiled, nodes wait for each other
GRACE_S = 25.0  # from a signal to the end, of the 30 s that Kubernetes gives a pod
JOB_GRACE_S = 240.0  # of the pods of a job, see gang/manifests.py
GONE_S = 10.0  # for a launcher to end the others by itself, which of them has failed is known then
STALLED_S = 60.0  # whoever has given no sign for so long waits for a node that is gone, and keeps no checkpoint
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # codes of a launcher, and of a shell around it
# What a process ends with that loses its connection to another one; that may be the first to tell of it.
ENVIRONMENT = ("RuntimeError", "DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError",
               "ConnectionResetError", "BrokenPipeError")  # fmt: skip


class LostError(RuntimeError):
    """Workers were killed, hang or have lost each other: training goes on where its last checkpoint is."""


def run_workers(
    job: Job, look: Callable[[], None], keep: Callable[[float], object], in_job: bool = False, node: Node | None = None
) -> None:
    """Start this machine's workers and watch them to their end; `node` is its place among several.

    `in_job` tells that this pod is a job's, and not a stage's. `look` is called every second, and `keep` with the
    seconds that are left when they were asked to stop and have ended, with a checkpoint: StoppedError and
    StoreAwayError. LostError where they may be started again, RuntimeError where they fail by themselves. Nothing of
    them is left.
    """
    write_job(job.folder / "job.json", job)
    here = job.processes // node.nodes if node else job.processes
    first = node.rank * here if node else 0
    ranks = range(first, first + here)
    process, memory = None, MemoryWatch()
    try:
        with sigterm_as_error():
            with sigterm_later():
                process = start(job, here, node)
            watch_over(process, job, ranks, look, memory)
    except (StoppedError, StoreAwayError):
        deadline = time.monotonic() + (JOB_GRACE_S if in_job else GRACE_S)
        with sigterm_ignored():
            if process is not None:
                ask_to_stop(process, job.folder, ranks, deadline - time.monotonic())
                kill_group(process)
            keep(deadline - time.monotonic())
        raise
    finally:
        if process is not None:
            kill_group(process)
    look()
    if process.returncode == 0 and (first > 0 or (job.folder / "outcome.json").exists()):
        return
    if process.returncode == 0 and node is not None:
        keep(JOB_GRACE_S)
        raise StoppedError("training was stopped on another node")
    raise failure(job, process.returncode, ranks, memory)


def start(job: Job, processes: int, node: Node | None) -> subprocess.Popen[bytes]:
    """Start the launcher in a process group of its own."""
    command = tied(launch(job.train.framework, job.device, processes, job.folder / "job.json", node))
    variables = environment(job.train.framework, job.device, processes)
    search = prepended("PYTHONPATH", ROOT)
    with (job.folder / LAUNCHER_LOG).open("wb") as log:
        return subprocess.Popen(
            command, env={**os.environ, **variables, "PYTHONPATH": search}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def watch_over(
    process: subprocess.Popen[bytes], job: Job, ranks: range, look: Callable[[], None], memory: MemoryWatch
) -> None:
    """Wait for the launcher's end; LostError as soon as a worker hangs, or is gone and the launcher does not mind."""
    started, timeout_s = time.monotonic(), 60 * job.train.step_timeout_minutes
    gone_since: float | None = None
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)
            return
        look()
        raise_if_stopped()
        memory.look(filter(None, (worker_pid(job.folder, rank) for rank in ranks)))
        gone = [str(rank) for rank in ranks if is_gone(job.folder / f"worker.{rank}")]
        gone_since = (gone_since or time.monotonic()) if gone else None
        if gone_since is not None and time.monotonic() - gone_since > GONE_S:
            if shortage := memory.shortage(job.train, len(ranks), job.processes):
                raise ShortOfMemoryError(shortage)
            raise LostError(f"training lost process {', '.join(gone)} of {len(ranks)}, which was killed")
        if hang := find_hang(job.folder, ranks, timeout_s, time.monotonic() - started):
            raise LostError(f"training hangs: {hang}")


def worker_pid(folder: Path, rank: int) -> int:
    """Return the number of a worker's process, 0 where it has not begun or has ended by itself."""
    with suppress(FileNotFoundError):
        return int((folder / f"worker.{rank}").read_text(encoding="ascii"))
    return 0


def is_gone(note: Path) -> bool:
    """Tell whether the process that a worker has noted has ended without taking its note back."""
    if sys.platform != "linux" or not note.exists():
        return False
    try:
        status = Path(f"/proc/{note.read_text(encoding='ascii')}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return note.exists()
    return status.rpartition(")")[2].split()[0] == "Z"  # ended, and its parent has not asked how


def find_hang(folder: Path, ranks: range, timeout_s: float, elapsed_s: float) -> str:
    """Name the processes that hold up the others, those with the fewest steps; empty where none is late."""
    pulses = {rank: read_pulse(folder, rank) for rank in ranks}
    late = [silent_s > timeout_s for _, silent_s in filter(None, pulses.values())]
    if not any(late) and (elapsed_s <= START_TIMEOUT_S or None not in pulses.values()):
        return ""
    steps = {rank: pulse[0] if pulse else -1 for rank, pulse in pulses.items()}
    least = min(steps.values())
    behind = ", ".join(str(rank) for rank in ranks if steps[rank] == least)
    if least < 0:
        return f"process {behind} of {len(ranks)} has not begun its first step after {elapsed_s:.0f} s"
    silent_s = max(pulse[1] for rank, pulse in pulses.items() if pulse and steps[rank] == least)
    return f"process {behind} of {len(ranks)} has given no sign for {silent_s:.0f} s after step {least:,}"


def ask_to_stop(process: subprocess.Popen[bytes], folder: Path, ranks: range, grace_s: float) -> None:
    """Have the workers keep a checkpoint and end; before the first step there is nothing to keep."""
    (folder / STOP).touch()
    deadline = time.monotonic() + grace_s
    while process.poll() is None and time.monotonic() < deadline:
        pulses = [pulse for rank in ranks if (pulse := read_pulse(folder, rank))]
        if not pulses or min(silent_s for _, silent_s in pulses) > STALLED_S:
            return
        time.sleep(min(LOOK_EVERY_S, 0.2))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the launcher's process group; workers outside it die with the launcher."""
    with suppress(ProcessLookupError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def failure(job: Job, code: int, ranks: range, memory: MemoryWatch) -> RuntimeError:
    """Say why the workers failed: the first one's own error, else the end of the log.

    One that was killed tells nothing, and its peers lose their connection to it: LostError, but where it was for want
    of memory.
    """
    log = join_logs(job.folder)
    told = sorted(job.folder.glob("failure.*.txt"), key=lambda path: path.stat().st_mtime_ns)
    if told:
        what = told[0].read_text(encoding="utf-8")
        lost = job.processes > 1 and what.startswith(tuple(f"{kind} in process" for kind in ENVIRONMENT))
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        why = "no process has said why, such as one that is killed"
        what, lost = "\n".join([why, "the last lines are:", *lines[-LAST_LINES:]]), code != 0
    killed = code in KILLED or any(is_gone(job.folder / f"worker.{rank}") for rank in ranks)
    if lost and killed and (shortage := memory.shortage(job.train, len(ranks), job.processes)):
        return ShortOfMemoryError(f"{shortage}\nthe whole log is {log}")
    if told and REFUSED.search(what):
        why = f"training was refused more memory: {advice(job.train, job.processes)}"
        return ShortOfMemoryError(f"{why}: {what}\nthe whole log is {log}")
    text = f"training failed with code {code}: {what}\nthe whole log is {log}"
    return LostError(text) if lost else RuntimeError(text)
