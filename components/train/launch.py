"""The command that starts one training process per device: torchrun's or msrun's, of one process its own."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from wordmill.recipe.frameworks import PACKAGES, check_device

MEET_TIMEOUT_S = 1200  # for the processes of all nodes to find each other: images are pulled at different speeds


@dataclass(frozen=True, kw_only=True)
class Node:
    """One of the machines that train together: its number from 0, how many they are, where the first one listens."""

    rank: int
    nodes: int
    master: str
    port: int


def launch(framework: str, device: str, processes: int, job: Path, node: Node | None = None) -> list[str]:
    """Return the command that trains by the job file with one process per device of this machine: torchrun or msrun.

    `processes` are this machine's; `node` is its place among several. A process that is alone has nobody to meet, and
    does without a launcher and a scheduler, each of which imports the framework before it does.
    """
    check_device(device)
    if processes == 1 and node is None:
        return [sys.executable, "-m", "wordmill.training.worker", PACKAGES[framework], str(job)]
    node = node or Node(rank=0, nodes=1, master="127.0.0.1", port=free_port())
    if framework == "pytorch":
        return [sys.executable, "-m", "torch.distributed.run", f"--nnodes={node.nodes}", f"--node-rank={node.rank}",
                f"--nproc-per-node={processes}", f"--master-addr={node.master}", f"--master-port={node.port}",
                f"--rdzv-conf=timeout={MEET_TIMEOUT_S}", f"--log-dir={job.parent / 'torchrun'}",
                "-m", "wordmill.training.worker", "pt", str(job)]  # fmt: skip
    # Its scheduler runs where --master_addr is an address of the machine, whatever --node_rank says. Without --join
    # msrun returns 0 at once, whatever becomes of its workers. With the number of a worker that there is not it starts
    # no processes to show logs, which outlive it where it is killed. On processors each worker gets as many of its own:
    # MindSpore's threads of several workers that share them cost a twentieth of the time.
    bound = ["--bind_core=True"] if device == "cpu" and processes > 1 else []
    return [str(Path(sys.executable).with_name("msrun")), f"--worker_num={processes * node.nodes}",
            f"--local_worker_num={processes}", f"--node_rank={node.rank}", f"--master_addr={node.master}",
            f"--master_port={node.port}", f"--cluster_time_out={MEET_TIMEOUT_S}", "--join=True",
            *bound, f"--tail_worker_log={processes * node.nodes}", f"--log_dir={job.parent / 'msrun'}",
            "python", "-m", "wordmill.training.worker", "ms", str(job)]  # fmt: skip


def free_port() -> int:
    """Return a TCP port on the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
