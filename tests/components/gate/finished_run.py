"""A finished pipeline run as its stages leave it in the store, every number chosen here."""

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wordmill.store.artifacts import Manifest, digest, to_document
from wordmill.store.storage import Object, Store

KEYS = ("index", "truth", "prediction", "confidence", "correct", "picture")
RULES = {"beams": 1, "amp": "O0"}
PNG = cv2.imencode(".png", np.full((8, 24), 200, np.uint8))[1].tobytes()
SHEET = cv2.imencode(".png", np.full((300, 1400), 120, np.uint8))[1].tobytes()
REFERENCE = io.BytesIO()  # a grey picture, and logits of the charset abc
np.savez(REFERENCE, images=np.zeros((1, 32, 100, 1), np.uint8), logits=np.zeros((1, 25, 4), np.float32))
CONTENT = f"{7:032x}"  # the digest of a packed set's samples
SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"charset": "lower36", "height": 32, "width": 100, "channels": 1},
    "model": {"name": "crnn", "backbone": "compact", "neck": "bilstm", "hidden": 224, "layers": 1},
    "train": {"framework": "pytorch", "epochs": 1, "lr": 0.002, "seed": 42},
}
TRAINING = {
    "framework": "pytorch", "device": "cpu", "processes": 2, "parameters": 2_240_000, "steps": 40, "images": 5120,
    "val_accuracy": 0.75, "images_per_s": 512.0, "precision": "bf16", "versions": {"torch": "2.13.0"},
    "unfit_labels": 0, "nonfinite_steps": 0,
}  # fmt: skip
CURVES: dict[str, list[tuple[int, float, float]]] = {
    "train/loss": [(10, 3.0, 1000.0), (20, 2.0, 1002.0), (40, 1.0, 1004.0)],
    "val/accuracy": [(20, 0.75, 1003.0), (40, 0.5, 1005.0)],
}


def readings(total: int, correct: int) -> dict[str, Any]:
    """Facts of words of three letters, all read with confidence 0.9, the wrong ones with two slips each."""
    empty = [{"low": i / 15, "high": (i + 1) / 15, "count": 0, "confidence": None, "accuracy": None} for i in range(15)]
    accuracy = correct / total
    bins = [*empty[:13], empty[13] | {"count": total, "confidence": 0.9, "accuracy": accuracy}, empty[14]]
    slips = [
        {"truth": "c", "read": "<", "count": total - correct},
        {"truth": "", "read": "g", "count": total - correct},
    ]
    return {
        "by_length": [{"length": 3, "total": total, "correct": correct}],
        "confusion": slips if correct < total else [],
        "calibration": {"ece": abs(accuracy - 0.9), "bins": bins},
        "temperature": 1.0,
        "uncalibrated": {"ece": abs(accuracy - 0.9), "bins": bins},
        "protocol": "mindocr",
        "left_out": {},
        "changed": {},
    }


@dataclass(kw_only=True)
class FinishedRun:
    """Puts manifests and stage records of one run into the store."""

    store: Store
    folder: Path
    run_tag: str
    references: dict[str, str] = field(default_factory=dict)  # "stage.name" -> "stage/key"
    sets: dict[str, str] = field(default_factory=dict)  # data set -> "shard/key"

    def manifest(self, stage: str, name: str, files: dict[str, bytes], facts: dict[str, Any], **more: Any) -> Manifest:
        """Store a manifest with its objects."""
        objects = tuple(self._put(name, content) for name, content in files.items())
        key = digest({"stage": stage, "name": name, "facts": facts, "objects": [entry.sha256 for entry in objects]})
        fields = {"inputs": {}, "git_commit": "c0ffee", "seconds": 12.5, **more}
        made = Manifest(stage=stage, name=name, key=key, objects=objects, facts=facts, **fields)
        self.store.put_json(f"manifests/{made.reference}.json", to_document(made))
        return made

    def record(self, made: Manifest, *, found: bool = False) -> Manifest:
        """Record a stage that did its work."""
        document = {"stage": made.stage, "name": made.name, "ok": True, "found": found, "manifest": made.reference,
                    "reused": made.reused}  # fmt: skip
        self._record(document)
        self.references[f"{made.stage}.{made.name}"] = made.reference
        return made

    def failure(self, stage: str, name: str, error: str) -> None:
        """Record a stage that failed."""
        self._record({"stage": stage, "name": name, "ok": False, "found": False, "manifest": None, "reused": {},
                      "error": error})  # fmt: skip

    def fetched(self, *names: str, stands_for: tuple[str, ...] = ()) -> Manifest:
        entries = {name: {"source": f"https://data.example/{name}.zip", "licence": "CC-BY-4.0",
                          "stands_for": list(stands_for)} for name in names}  # fmt: skip
        return self.record(self.manifest("fetch", "datasets", {}, {"entries": entries}))

    def shards(self, *names: str, streamed: str = "") -> Manifest:
        """Record packed sets; of the one that is `streamed` there is what its stage leaves: no file, and few facts."""
        facts = {"samples": 98, "read": 100, "shape": [32, 100, 1], "content": CONTENT, "dropped": {"empty label": 1},
                 "changed": {}, "quarantined": 1, "reasons": {"no picture": 1},
                 "quarantine": [{"where": "a<b>.png", "reason": "no picture"}]}  # fmt: skip
        inputs = {"picture": {"fit": "stretch"}, "limit": 0, "labels": {"policy": "mindocr", "longest": 25}}
        self.sets = {
            name: self.manifest(
                "shard", name, {"contact_sheet.png": SHEET, "quarantine.png": SHEET}, facts, inputs=inputs
            ).reference
            for name in names
        }
        if streamed:
            drawn = {"picture": inputs["picture"], "limit": 0, "streamed": True}
            told = {"address": "synth://words", "content": "", "samples": 98}
            self.sets[streamed] = self.manifest("shard", streamed, {}, told, inputs=drawn).reference
        indices = {name: f"index of {name}" for name in names}
        return self.record(self.manifest("shard", "datasets", {}, {"datasets": self.sets, "indices": indices}))

    def trained(self, weights: str = "weights", *, found: bool = False, trace: bytes = b"") -> Manifest:
        train, *val = self.sets or [""]
        sets = {"train_sets": [f"index of {train}"], "val_sets": [f"index of {name}" for name in val]}
        named = {"train_sets": list(self.sets.values())[:1], "val_sets": list(self.sets.values())[1:]}
        inputs = {**SECTIONS, **sets, "symbols": "abc", "start": None, "device": "cpu", "processes": 2}
        files = {"model.safetensors": weights.encode(), "reference.npz": REFERENCE.getvalue()}
        files |= {"trace/steps.json": trace} if trace else {}
        made = self.manifest("train", "crnn", files, {**TRAINING, **named}, inputs=inputs, curves=CURVES)
        return self.record(made, found=found)

    def evaluation(
        self, name: str, outcomes: str, trained: Manifest, dataset: str = "", picture: bytes = PNG, **facts: Any
    ) -> Manifest:
        """Store a measurement with one sample per character of `outcomes`, 1 for a right one."""
        of = f"{dataset or name} "
        rows = [dict(zip(KEYS, (i, "cat", "cat" if c == "1" else "<dog>", 0.9, c == "1", f"{of}{i}"), strict=True))
                for i, c in enumerate(outcomes)]  # fmt: skip
        png = base64.b64encode(picture).decode()
        files = {
            "predictions.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
            "mistakes.json": json.dumps([row | {"png": png} for row in rows if not row["correct"]]).encode(),
        }
        total, correct = len(outcomes), outcomes.count("1")
        facts = {"total": total, "correct": correct, "accuracy": correct / total, "ned": 0.9, "low": 0.1, "high": 0.95,
                 "dataset": dataset or f"shard/{name}", "content": f"samples of {dataset or name}",
                 "model": trained.reference, **readings(total, correct),
                 **facts}  # fmt: skip
        rules = {key: facts.pop(key, value) for key, value in RULES.items()}
        inputs = {"evaluation": rules | {"protocol": facts["protocol"]}}
        metrics = {f"{name}/accuracy": correct / total}
        return self.record(self.manifest("evaluate", name, files, facts, inputs=inputs, metrics=metrics))

    def parity(self, name: str, *, texts_equal: int = 64, difference: float = 2e-5) -> Manifest:
        facts = {"format": name, "made": True, "precision": "fp32", "runtime": "ONNX Runtime 1.31",
                 "batches": [1, 16, 64], "samples": 64, "texts_equal": texts_equal, "texts_needed": 64,
                 "max_logit_difference": difference, "max_confidence_difference": 1e-6, "tolerance": 1e-3,
                 "latency_ms_batch1": 2.5, "latency_p99_ms_batch1": 3.25, "images_per_s_batch16": 800.0,
                 "images_per_s_batch64": 900.0, "memory_bytes": 120_000_000, "file_bytes": 9_000_000}  # fmt: skip
        sections = {"data": {**SECTIONS["data"], "train": [], "val": []}, "model": SECTIONS["model"]}
        told: dict[str, Any] = {key: json.dumps(section) for key, section in sections.items()}
        told |= {"format": name, "made": True, "files": {"any": f"model.{name}"}}
        exported = self.manifest("export", name, {f"model.{name}": b"a network"}, {**told, "made": True})
        return self.record(self.manifest("smoke", name, {}, facts, inputs={"exported": exported.reference}))

    def not_made(self, name: str, reason: str) -> Manifest:
        facts = {"format": name, "made": False, "reason": reason}
        exported = self.manifest("export", name, {}, facts)
        return self.record(self.manifest("smoke", name, {}, facts, inputs={"exported": exported.reference}))

    def gate(self, *, promote: bool = True, **facts: Any) -> Manifest:
        facts = {"version": "1", "outcome": "promoted", "promoted": True, "reasons": ["good enough"], "mean": 0.5,
                 "rivals": {}, "unmeasured": [], "benchmarks": [], **facts}  # fmt: skip
        inputs = {"gate": {"floor": 0.4, "margin": 0.005, "promote": promote}}
        return self.record(self.manifest("gate", "tiny", {}, facts, inputs=inputs))

    def _record(self, document: dict[str, Any]) -> None:
        key = f"runs/{self.run_tag}/stages/{document['stage']}.{document['name']}.json"
        self.store.put_json(key, {**document, "seconds": 1.5})

    def _put(self, name: str, content: bytes) -> Object:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # the cache may share a file of the same name with it
        path.write_bytes(content)
        return self.store.put_file(path, name)
