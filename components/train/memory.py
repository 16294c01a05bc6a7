"""What memory a node's training processes have and use, and whether the kernel has killed for want of it."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wordmill.recipe.sections import Train

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, or the part of it that a pod has by its control group, of version 1 or 2; `root` is / but in tests."""

    root: Path = Path("/")

    def memory_bytes(self) -> int:
        """Return what there is for all processes: the least limit of the groups around this process, or all."""
        total = 1024 * _number(self.root / "proc/meminfo", r"^MemTotal:\s+(\d+) kB")
        limits = [_number(group / name, r"^(\d+)$") for group in self._groups() for name in LIMITS]
        return min(limit for limit in (total, *limits) if limit)

    def is_limited(self) -> bool:
        """Tell whether there is less than the machine has."""
        return self.memory_bytes() < 1024 * _number(self.root / "proc/meminfo", r"^MemTotal:\s+(\d+) kB")

    def kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory, of this group if it counts its own."""
        for group in self._groups():
            for name in COUNTERS:
                if (group / name).exists():
                    return _number(group / name, r"^oom_kill (\d+)")
        return _number(self.root / "proc/vmstat", r"^oom_kill (\d+)")

    def used_bytes(self, pids: Iterable[int]) -> int:
        """Return what these processes have in memory now; those that have ended have nothing."""
        return sum(1024 * _number(self.root / f"proc/{pid}/status", r"^VmRSS:\s+(\d+) kB") for pid in pids)

    def _groups(self) -> Iterator[Path]:
        """Give the control groups of this process that are to be seen, from its own to the outermost."""
        groups, (one, two) = self.root / "sys/fs/cgroup", (r"^\d+:memory:/(.*)$", r"^0::/(.*)$")
        text = _text(self.root / "proc/self/cgroup")
        for base, pattern in ((groups / "memory", one), (groups, two)):
            if (found := re.search(pattern, text, re.MULTILINE)) and base.is_dir():
                own = base / found[1]
                yield from (group for group in (own, *own.parents) if group.is_relative_to(base) and group.is_dir())


# What frameworks say where they are given no more memory.
REFUSED = re.compile(r"out of memory|can't allocate memory|memory is? ?not enough|bad_alloc|MemoryError", re.IGNORECASE)
LIMITS = ("memory.limit_in_bytes", "memory.max")  # of version 1 and 2; without one that is a huge number, or `max`
COUNTERS = ("memory.oom_control", "memory.events")


class ShortOfMemoryError(RuntimeError):
    """Processes were killed for want of memory, which would come again: they are not started again unchanged."""


@dataclass
class MemoryWatch:
    """Looks at training's memory while it runs; what was killed cannot be asked any more."""

    machine: Machine = field(default_factory=Machine)
    used: int = 0  # the most that was seen
    kills: int = 0  # before training
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kills = self.machine.kills()

    def look(self, pids: Iterable[int]) -> None:
        """Take in what the training processes use now."""
        self.used = max(self.used, self.machine.used_bytes(pids))

    def shortage(self, train: Train, here: int, processes: int) -> str:
        """Say that processes were killed for want of memory, with the numbers and the keys to change; "" if none was.

        Of all processes `here` are this machine's.
        """
        if self.machine.kills() <= self.kills:
            return ""
        has, many = self.machine.memory_bytes() // MIB, f"{here} process{'es' if here > 1 else ''}"
        what = f"the limit of {has:,} MiB was" if self.machine.is_limited() else f"all {has:,} MiB of the machine were"
        return (f"out of memory: {what} reached after {time.monotonic() - self.begun:.0f} s at batch "
                f"{train.global_batch // processes:,} x {many}, which used at least {self.used // MIB:,} MiB: "
                f"{advice(train, processes)}")  # fmt: skip


def advice(train: Train, processes: int) -> str:
    """Return what to change where memory does not do."""
    batch = train.global_batch // processes
    finer = [parts for parts in range(train.parts + 1, batch + 1) if batch % parts == 0]
    other = (
        f"set train.accumulation={finer[0]} (parts of a batch, {train.parts} now)" if finer else "use fewer processes"
    )
    return f"give the profile more, {other}, or lower train.global_batch ({train.global_batch:,} now)"


def _number(path: Path, pattern: str) -> int:
    """Return the number that a line of a file holds, 0 where there is none."""
    found = re.search(pattern, _text(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    return ""
