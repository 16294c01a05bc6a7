"""What there is of memory, and who was killed for want of it, by files as Linux writes them."""

import dataclasses
import time
from pathlib import Path

import pytest

from components.train.memory import REFUSED, Machine, MemoryWatch, advice
from tests.wordmill.training.tiny import TRAIN

MEMORY = "MemTotal:       24569268 kB\nMemFree:         1000000 kB\nMemAvailable:    2000000 kB\n"
TOTAL = 24_569_268 * 1024
ONE = "12:pids:/pod/box\n4:memory:/pod/box\n0::/\n"  # a machine with both versions: memory is version 1's
TWO = "0::/pod/box\n"
UNLIMITED = "9223372036854771712\n"  # as version 1 writes it


def machine(root: Path, groups: str, files: dict[str, str]) -> Machine:
    files = {"proc/meminfo": MEMORY, "proc/vmstat": "nr_free_pages 3\noom_kill 7\n", "proc/self/cgroup": groups} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return Machine(root=root)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, TOTAL),
        (ONE, {"sys/fs/cgroup/memory/pod/box/memory.limit_in_bytes": UNLIMITED}, TOTAL),
        (ONE, {"sys/fs/cgroup/memory/pod/box/memory.limit_in_bytes": UNLIMITED,
               "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "8589934592\n"}, 8 * 2**30),
        (TWO, {"sys/fs/cgroup/pod/box/memory.max": "max\n", "sys/fs/cgroup/pod/memory.max": "max\n"}, TOTAL),
        (TWO, {"sys/fs/cgroup/pod/box/memory.max": "4294967296\n", "sys/fs/cgroup/pod/memory.max": "max\n"}, 4 * 2**30),
        # In a container the group's name is the machine's, its files lie at the top.
        (ONE, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n"}, 2 * 2**30),
    ],
)  # fmt: skip
def test_there_is_as_much_as_the_least_limit_lets(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert machine(tmp_path, groups, files).memory_bytes() == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 7),
        (ONE, {"sys/fs/cgroup/memory/pod/box/memory.oom_control":
               "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2),
        (TWO, {"sys/fs/cgroup/pod/box/memory.events": "low 0\nmax 31\noom 5\noom_kill 4\noom_group_kill 0\n"}, 4),
        (TWO, {"sys/fs/cgroup/cgroup.procs": ""}, 7),  # the outermost group has no such file
    ],
)  # fmt: skip
def test_kills_are_the_groups_own_where_it_counts_them(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert machine(tmp_path, groups, files).kills() == expected


def test_a_shortage_is_said_with_the_numbers_and_the_keys(tmp_path: Path) -> None:
    status = {f"proc/{pid}/status": f"Name:\tpython\nVmHWM:\t 9 kB\nVmRSS:\t {gib * 2**20} kB\n" for pid, gib in
              {11: 3, 12: 5}.items()}  # fmt: skip
    here = machine(tmp_path, "", status)
    watch = MemoryWatch(machine=here)
    watch.look([11, 12, 13])  # the last has ended
    watch.look([11])
    assert watch.used == 8 * 2**30
    assert watch.shortage(TRAIN, 2, 4) == ""  # 7 kills before training are none of it
    machine(tmp_path, "", {"proc/vmstat": "oom_kill 8\n"})
    watch.begun = time.monotonic() - 31.0
    assert watch.shortage(TRAIN, 2, 4) == (  # a global batch of 16 by four processes, two of them here
        "out of memory: all 23,993 MiB of the machine were reached after 31 s at batch 4 x 2 processes, which used at "
        "least 8,192 MiB: give the profile more, set train.accumulation=2 (parts of a batch, 1 now), or lower "
        "train.global_batch (16 now)"
    )
    assert watch.shortage(TRAIN, 1, 1).endswith(advice(TRAIN, 1))
    assert "use fewer processes" in advice(dataclasses.replace(TRAIN, accumulation=16), 1)


@pytest.mark.parametrize(
    ("groups", "limit", "count", "kills"),
    [
        # As in a container: the group's own files lie at the top.
        (ONE, "sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.oom_control",
         "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
        ("0::/\n", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.events", "low 0\nmax 31\noom 5\noom_kill {}\n"),
    ],
)  # fmt: skip
def test_a_pods_limit_is_named_by_either_version_of_control_groups(
    groups: str, limit: str, count: str, kills: str, tmp_path: Path
) -> None:
    watch = MemoryWatch(machine=machine(tmp_path, groups, {limit: "1153433600\n", count: kills.format(0)}))
    machine(tmp_path, groups, {limit: "1153433600\n", count: kills.format(1)})
    told = watch.shortage(TRAIN, 2, 2)
    assert told.startswith("out of memory: the limit of 1,100 MiB was reached after 0 s at batch 8 x 2 processes")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("RuntimeError in process 0: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("OutOfMemoryError in process 1: CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("MemoryError in process 0: Unable to allocate 3.1 GiB for an array", True),
        ("RuntimeError in process 0: Connection closed by peer", False),
    ],
)
def test_refusals_of_frameworks_are_known(words: str, refused: bool) -> None:
    assert bool(REFUSED.search(words)) is refused
