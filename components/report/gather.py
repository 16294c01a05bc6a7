"""What a pipeline run left in the store: the record of every stage, and the manifests that they name."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from wordmill.store.artifacts import Manifest, stored_manifest
from wordmill.store.runs import records_prefix
from wordmill.store.storage import Store

STAGES = (
    "fresh",
    "fetch",
    "shard",
    "train",
    "evaluate",
    "rivals",
    "export",
    "smoke",
    "gate",
    "tune",
)  # in the order of the pipeline
LOST = ", though its stage is done"
NEEDS = {
    "fetch": ("fresh",), "shard": ("fetch",), "train": ("shard",), "evaluate": ("train",), "rivals": ("train",),
    "export": ("train",), "smoke": ("export",), "gate": ("evaluate", "rivals", "smoke"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The stages of one run that recorded something; a run that failed early has few."""

    records: list[dict[str, Any]]
    manifests: dict[str, Manifest]  # by "stage.name", of the stages that did their work
    datasets: dict[str, Manifest]  # the shard stage's manifests by data set

    def of(self, stage: str) -> list[Manifest]:
        """Return the manifests of one stage, one per benchmark or format."""
        return [manifest for manifest in self.manifests.values() if manifest.stage == stage]

    def one(self, stage: str) -> Manifest | None:
        """Return the manifest of a stage that a run has once, None if it did not get there."""
        return next(iter(self.of(stage)), None)

    def found(self, stage: str) -> bool:
        """Tell whether all of a stage's work was found finished."""
        records = [record for record in self.records if record["stage"] == stage]
        return bool(records) and all(record["found"] for record in records)


def lost_tasks(gathered: Gathered, expected: list[str]) -> list[str]:
    """Return which of a run's tasks, "stage.name", recorded nothing though all that they need was done.

    They were killed before they could, or never began. A night that finds nothing new needs no more of them.
    """
    fresh = gathered.one("fresh")
    if fresh and not fresh.facts["changed"]:
        return []
    done = {f"{record['stage']}.{record['name']}": record["ok"] for record in gathered.records}
    return [task for task in expected if task not in done and all(done.get(need) for need in _needed(task, expected))]


def _needed(task: str, expected: list[str]) -> list[str]:
    """Return the tasks that a task waits for; a file is tried when it has been exported, whatever others are."""
    stage, _, name = task.partition(".")
    if stage == "smoke":
        return [f"export.{name}"]
    return [other for other in expected if other.partition(".")[0] in NEEDS.get(stage, ())]


def task_names(expected: list[str]) -> dict[str, str]:
    """Return what Kubeflow calls each task in the graph: evaluate, evaluate-2, ... in the order of their making."""
    names, counts = dict[str, str](), Counter[str]()
    for task in expected:
        kind = {"rivals": "evaluate-rivals"}.get(task.partition(".")[0], task.partition(".")[0])
        counts[kind] += 1
        names[task] = kind if counts[kind] == 1 else f"{kind}-{counts[kind]}"
    return names


def gather_run(store: Store, run_tag: str) -> Gathered:
    """Read what a run's stages have recorded and the manifests of finished work."""
    documents = (store.get_json(key) for key in store.keys(records_prefix(run_tag)))
    known = [entry for entry in documents if entry and entry["stage"] in STAGES]
    records = sorted(known, key=lambda entry: (STAGES.index(entry["stage"]), entry["name"]))
    manifests = {f"{entry['stage']}.{entry['name']}": stored_manifest(store, entry["manifest"], LOST)
                 for entry in records if entry["ok"]}  # fmt: skip
    combined = next((manifest for manifest in manifests.values() if manifest.stage == "shard"), None)
    references = combined.facts["datasets"] if combined else {}
    datasets = {name: stored_manifest(store, reference, LOST) for name, reference in references.items()}
    return Gathered(records=records, manifests=manifests, datasets=datasets)
