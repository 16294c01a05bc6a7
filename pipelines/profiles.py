"""Profiles: what a recogniser is trained on, from two processes on a laptop to several nodes of eight NPUs."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Devices of one kind: `processes` of them to a node, one process to each; the name is that of a node's size.

    shm, a quantity of Kubernetes's through which a pod's processes exchange data, counts as memory. A cluster ends
    training after `hours`, and the next run goes on where it was.
    """

    name: str
    device: str
    processes: int
    nodes: int = 1
    shm: str = "8Gi"
    hours: int = 72

    def environment(self, framework: str) -> str:
        """Return the image environment that a framework has these devices in: CANN's for NPUs, else its own."""
        return "cann" if self.device == "npu" else framework

    @property
    def watched(self) -> bool:
        """Whether a job has its training done in a cluster, and the run's small pod watches that.

        Several nodes can be had no other way. On accelerators training lasts days and must live through losses of its
        pod that Kubeflow's Argo ends a run for.
        """
        return self.nodes > 1 or self.device != "cpu"

    @property
    def devices(self) -> int:
        """The training processes on all nodes."""
        return self.nodes * self.processes


_ALL = (
    Profile(name="cpu", device="cpu", processes=2),
    Profile(name="gpu-1", device="cuda", processes=1, shm="16Gi"),
    Profile(name="ascend-1p", device="npu", processes=1, shm="16Gi"),
    Profile(name="ascend-8p", device="npu", processes=8, shm="64Gi"),
    Profile(name="ascend-4x8", device="npu", processes=8, nodes=4, shm="64Gi"),
)
PROFILES = {profile.name: profile for profile in _ALL}


def one_node(device: str, processes: int) -> Profile:
    """Return a node with so many processes, of the size of the smallest profile that has them, else of the largest."""
    known = [profile for profile in _ALL if profile.device == device and profile.nodes == 1]
    sized = next((profile for profile in known if profile.processes >= processes), known[-1])
    return replace(sized, processes=processes)
