"""Training by a job: what the cluster must give, what the nodes are told, and where in the store it lies."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from wordmill.recipe.frameworks import Framework
from wordmill.recipe.parsing import parse_section
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.storage import Object, Store

TASK = "node"  # the name of the pods' kind in a Volcano job, and so in the variables that its plugins set
PORT = 2222  # of the first node; MindCluster's default, so that its service leads there
RENEW_EVERY_S = 30.0
LEASE_S = 600.0  # nodes end themselves when the lease has not been renewed for so long


@dataclass(frozen=True, kw_only=True)
class GangSpec:
    """The pods of a training's job: one to a node, all of them or none.

    `processes` are a node's, one to a device of `resource` ("" for processors). cpu, memory, their limits and shm are
    Kubernetes's quantities. `labels` are of the job and its pods, `node_labels` of the nodes. `claim` is the volume at
    /cache and `user` the number of the user that writes there. `secret_variables` and `settings_variables` are
    environment variables by the key that holds their value.
    """

    nodes: int
    processes: int
    framework: Framework
    device: str
    image: str
    resource: str
    labels: dict[str, str]
    node_labels: dict[str, str]
    cpu: str
    memory: str
    cpu_limit: str
    memory_limit: str
    shm: str
    deadline_s: int
    namespace: str
    queue: str
    account: str
    claim: str
    user: int
    secret: str
    secret_variables: dict[str, str]
    settings: str
    settings_variables: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the nodes of a job are told: the recipe's sections, data sets by reference, and how many they are.

    `key` is the digest of all that decides on the result, `code` of what trains; `resume` names the checkpoints to go
    on from, `other_code` says what becomes of those of other code. `shards` is the document of the shard stage's
    manifest, `start` the stored object with the first weights; None: fresh ones. `mlflow_run` is the run that
    Kubeflow's MLflow plugin names to the stage, "" for none.
    """

    key: str
    code: str
    resume: str
    other_code: str
    nodes: int
    processes: int  # on each node
    device: str
    data: Data
    model: Model
    train: Train
    shards: dict[str, Any]
    start: Object | None
    recipe: str
    run_tag: str
    mlflow_run: str


def job_name(key: str) -> str:
    """Return the Kubernetes name of the job for this work: whoever needs the same work finds the same job."""
    return f"wordmill-train-{key[:16]}"


def job_key(key: str, name: str) -> str:
    """Return where in the store a document about a job lies."""
    return f"jobs/{key}/{name}"


def write_work(store: Store, work: Work) -> None:
    """Store what the nodes are told."""
    store.put_json(job_key(work.key, "job.json"), dataclasses.asdict(work))


def read_work(store: Store, key: str) -> Work:
    """Read what `write_work` stored; RuntimeError where there is nothing."""
    where = job_key(key, "job.json")
    document = store.get_json(where)
    if document is None:
        raise RuntimeError(f"{where} is not in bucket '{store.bucket}': the stage that makes the job stores it first")
    return parse_section(Work, document, where)


def renew_lease(store: Store, key: str) -> None:
    """Tell the nodes that somebody still waits for them."""
    store.put_json(job_key(key, "lease.json"), {"renewed": time.time()})
