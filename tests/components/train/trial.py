"""Candidates for the champion of a recipe that no other test knows."""

import json
import uuid
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from components.gate.stage import run
from tests.components.gate.finished_run import FinishedRun
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest, read_manifest, to_document
from wordmill.store.storage import Store


class Trial:
    """One recipe of its own in the registry, and candidates for its champion."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.recipe = f"r{uuid.uuid4().hex[:8]}"
        self.name = f"wordmill-{self.recipe}"

    def candidate(
        self, weights: str, outcomes: dict[str, str], *, texts_equal: int = 64, dataset: str = "", **facts: Any
    ) -> dict[str, str]:
        """Return the gate's arguments for a model with these outcomes per benchmark, which are the recipe's all."""
        tag = f"{self.recipe}-{weights}"
        seed = FinishedRun(store=self.store, folder=self.folder / weights, run_tag=tag)
        trained = seed.trained(f"{self.recipe} {weights}")
        measured = [seed.evaluation(name, text, trained, dataset, **facts) for name, text in outcomes.items()]
        proven = [seed.parity("onnx", texts_equal=texts_equal)]
        (self.folder / f"{weights}.json").write_text(json.dumps(to_document(trained)))
        return {"gate": gate(*outcomes), "recipe": self.recipe,
                "model": str(self.folder / f"{weights}.json"), "run_tag": tag,
                "evaluations": references(measured), "parities": references(proven), "rivals": "",
                "output": str(self.folder / f"{weights}.out")}  # fmt: skip

    def rivals(self, version: str, evaluations: dict[str, str], reasons: dict[str, str]) -> str:
        """Return the reference of what measured a version again."""
        seed = FinishedRun(store=self.store, folder=self.folder / "rivals", run_tag="rivals")
        rival = {"version": version, "model": "", "evaluations": evaluations, "reasons": reasons}
        return seed.manifest("rivals", self.recipe, {}, {"rivals": [rival]}).reference

    def decide(self, arguments: dict[str, str]) -> dict[str, Any]:
        run(**arguments)
        return read_manifest(arguments["output"]).facts

    def champion(self) -> str | None:
        found = tracking.holder(self.name, "champion")
        return found and found.version

    def versions(self) -> list[ModelVersion]:
        return list(tracking.connect().search_model_versions(f"name = '{self.name}'"))


def gate(*benchmarks: str, **changes: Any) -> str:
    """Return a recipe's gate section, of these benchmarks; the margin lets one of ten words be lost, not two."""
    floors = dict.fromkeys(benchmarks, 0.0)
    return json.dumps({"floor": 0.5, "floors": floors, "margin": 0.35, "benchmarks": benchmarks, **changes})


def references(manifests: list[Manifest]) -> str:
    return json.dumps([manifest.reference for manifest in manifests])
