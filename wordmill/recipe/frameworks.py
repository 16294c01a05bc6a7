"""The explicit choice of framework and device, and the command that starts one process per device."""

import importlib
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

Framework = Literal["pytorch", "mindspore"]
Device = Literal["cpu", "cuda", "npu"]

PACKAGES = {"pytorch": "pt", "mindspore": "ms"}  # of the rooms that have twins: models and training
ROOMS = Path(__file__).resolve().parents[1]
MEET_TIMEOUT_S = 1200  # for the processes of all nodes to find each other: images are pulled at different speeds


@dataclass(frozen=True, kw_only=True)
class Node:
    """One of the machines that train together: its number from 0, how many they are, where the first one listens."""

    rank: int
    nodes: int
    master: str
    port: int


def twin(framework: str, module: str) -> ModuleType:
    """Import a framework's side of a twin: `twin("pytorch", "models.predict")`."""
    if framework not in PACKAGES:
        raise ValueError(f"framework '{framework}': expected one of {', '.join(PACKAGES)}")
    prepare(framework)
    room, _, name = module.partition(".")
    return importlib.import_module(f"wordmill.{room}.{PACKAGES[framework]}.{name}")


def packages(framework: str) -> tuple[str, ...]:
    """Return the framework's packages in all rooms."""
    return tuple(f"wordmill.{room}.{PACKAGES[framework]}" for room in ("models", "training"))


def prepare(framework: str) -> None:
    """Set the variables that this process needs before it imports a framework."""
    needed = environment(framework, "cpu")
    os.environ.update({name: value for name, value in needed.items() if name != "PATH"})


def check_device(device: str) -> None:
    """Refuse a device name that is not known."""
    if device not in get_args(Device):
        raise ValueError(f"device '{device}': expected one of {', '.join(get_args(Device))}")


def environment(framework: str, device: str, processes: int = 1) -> dict[str, str]:
    """Return the variables that a process of this framework needs before it imports it.

    MindSpore's oneDNN picks reference convolutions on AVX-512 processors, over 100 times slower than what it
    picks when it is held to AVX2; PyTorch must not be held, it would lose bfloat16.
    """
    variables = {"OMP_WAIT_POLICY": "PASSIVE"}
    if device == "cpu" and processes > 1:
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    if framework == "mindspore":
        # Its protobuf modules are too old for protobuf's C implementation; msrun starts the first `python` of PATH.
        variables |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "GLOG_v": "3"}
        variables["PATH"] = prepended("PATH", Path(sys.executable).parent)
        variables["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    return variables


def prepended(variable: str, folder: Path) -> str:
    """Return the value of a search path's variable, such as PATH, with a folder in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def launch(framework: str, device: str, processes: int, job: Path, node: Node | None = None) -> list[str]:
    """Return the command that trains by the job file with one process per device of this machine: torchrun or msrun.

    `processes` are this machine's; `node` is its place among several.
    """
    check_device(device)
    node = node or Node(rank=0, nodes=1, master="127.0.0.1", port=free_port())
    if framework == "pytorch":
        return [sys.executable, "-m", "torch.distributed.run", f"--nnodes={node.nodes}", f"--node-rank={node.rank}",
                f"--nproc-per-node={processes}", f"--master-addr={node.master}", f"--master-port={node.port}",
                f"--rdzv-conf=timeout={MEET_TIMEOUT_S}", "-m", "wordmill.training.pt.train", str(job)]  # fmt: skip
    # Its scheduler runs where --master_addr is an address of the machine, whatever --node_rank says. Without --join
    # msrun returns 0 at once, whatever becomes of its workers. With the number of a worker that there is not it starts
    # no processes to show logs, which outlive it where it is killed. On processors each worker gets as many of its own:
    # MindSpore's threads of several workers that share them cost a twentieth of the time.
    bound = ["--bind_core=True"] if device == "cpu" and processes > 1 else []
    return [str(Path(sys.executable).with_name("msrun")), f"--worker_num={processes * node.nodes}",
            f"--local_worker_num={processes}", f"--node_rank={node.rank}", f"--master_addr={node.master}",
            f"--master_port={node.port}", f"--cluster_time_out={MEET_TIMEOUT_S}", "--join=True",
            *bound, f"--tail_worker_log={processes * node.nodes}", f"--log_dir={job.parent / 'msrun'}",
            str(ROOMS / "training" / "ms" / "train.py"), str(job)]  # fmt: skip


def free_port() -> int:
    """Return a TCP port on the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
