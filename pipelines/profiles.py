"""Profiles: what a recogniser is trained on, from two processes on a laptop to several nodes of eight NPUs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Devices of one kind: `processes` of them to a node, one process to each, and what a node's pod gets besides.

    cpu, memory and shm are Kubernetes's quantities; shm, through which a pod's processes exchange data, counts as
    memory. A cluster ends training after `hours`, and the next run goes on where it was.
    """

    device: str
    processes: int
    nodes: int = 1
    cpu: str = "8"
    memory: str = "32Gi"
    shm: str = "8Gi"
    hours: int = 72

    def environment(self, framework: str) -> str:
        """Return the image environment that a framework has these devices in: CANN's for NPUs, else its own."""
        return "cann" if self.device == "npu" else framework

    @property
    def devices(self) -> int:
        """The training processes on all nodes."""
        return self.nodes * self.processes


PROFILES = {
    "cpu": Profile(device="cpu", processes=2),
    "gpu-1": Profile(device="cuda", processes=1, cpu="16", memory="64Gi", shm="16Gi"),
    "ascend-1p": Profile(device="npu", processes=1, cpu="24", memory="96Gi", shm="16Gi"),
    "ascend-8p": Profile(device="npu", processes=8, cpu="128", memory="512Gi", shm="64Gi"),
    "ascend-4x8": Profile(device="npu", processes=8, nodes=4, cpu="128", memory="512Gi", shm="64Gi"),
}
