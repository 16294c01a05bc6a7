"""What a pipeline run left in the store: the record of every stage, and the manifests that they name."""

from dataclasses import dataclass
from typing import Any

from wordmill.store.artifacts import Manifest, stored_manifest
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
)  # in the order of the pipeline
LOST = ", though its stage is done"


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


def gather_run(store: Store, run_tag: str) -> Gathered:
    """Read the records below `runs/<run_tag>/stages/` and the manifests of finished work."""
    documents = (store.get_json(key) for key in store.keys(f"runs/{run_tag}/stages/"))
    known = [entry for entry in documents if entry and entry["stage"] in STAGES]
    records = sorted(known, key=lambda entry: (STAGES.index(entry["stage"]), entry["name"]))
    manifests = {f"{entry['stage']}.{entry['name']}": stored_manifest(store, entry["manifest"], LOST)
                 for entry in records if entry["ok"]}  # fmt: skip
    combined = next((manifest for manifest in manifests.values() if manifest.stage == "shard"), None)
    references = combined.facts["datasets"] if combined else {}
    datasets = {name: stored_manifest(store, reference, LOST) for name, reference in references.items()}
    return Gathered(records=records, manifests=manifests, datasets=datasets)
