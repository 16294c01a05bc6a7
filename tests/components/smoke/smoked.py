"""Exported files with their cards in the store, and the smoke stage run on them."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from components.smoke import stage
from tests.components.train.trained import DATA, MODEL, lively, put_checkpoint, write_manifest
from wordmill.inference import card
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt.export import export_onnx
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Export
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store
from wordmill.text.decoding import codec_of

SETTINGS = Export(formats=("onnx", "mindir"))
CODEC = codec_of(MODEL, DATA)
STEPS = 25
FEW = 20  # pictures, for what takes no more


def put(store: Store, seed: int) -> Manifest:
    """Store a trained recogniser of the weights of a seed, with few reference pictures."""
    return put_checkpoint(store, lively(seed), FEW)


def described(export_format: str) -> dict[str, Any]:
    """Return the card of such a recogniser, without its files."""
    return card.describe_file(DATA, MODEL, CODEC.charset, STEPS, decoded=export_format == "onnx")


def put_files(
    store: Store,
    trained: Manifest,
    export_format: str,
    files: dict[str, tuple[str, bytes]],
    *,
    told: dict[str, Any] | None = None,
    **facts: Any,
) -> Manifest:
    """Store a manifest of export with files by size of batch, each a name and its content, and a card."""
    digests = [{"name": name, "sha256": hashlib.sha256(content).hexdigest(), "batch": size}
               for size, (name, content) in files.items()]  # fmt: skip
    told = {"files": {export_format: digests}, "device": "cpu", **(told or described(export_format))}

    def make(folder: Path) -> StageResult:
        (folder / card.CARD).write_text(json.dumps(told), encoding="utf-8")
        for name, content in files.values():
            (folder / name).write_bytes(content)
        known = {"format": export_format, "made": True, "precision": "fp32",
                 "data": to_json(DATA), "model": to_json(MODEL),
                 "files": {size: name for size, (name, _) in files.items()}, **facts}  # fmt: skip
        return StageResult(files={path.name: path for path in folder.iterdir()}, facts=known)

    inputs = {"model": trained.reference, "of": digests, "told": told}
    return find_or_make(store, "export", export_format, inputs, make)[0]


def put_onnx(store: Store, trained: Manifest, content: bytes, **facts: Any) -> Manifest:
    """Store a manifest of export with one ONNX file for any batch."""
    return put_files(store, trained, "onnx", {"any": ("model.onnx", content)}, **facts)


@cache
def onnx_of(
    seed: int = 1, change: Callable[[Checkpoint], Checkpoint] | None = None, batch: int | None = None,
    decoded: bool = True,
) -> bytes:  # fmt: skip
    """Return the content of an ONNX file of the weights of a seed, changed or as they are."""
    saved = change(lively(seed)) if change else lively(seed)
    with TemporaryDirectory() as folder:
        export_onnx(saved, Path(folder) / "model.onnx", batch=batch, decoded=decoded)
        return (Path(folder) / "model.onnx").read_bytes()


def smoke(exported: Manifest, trained: Manifest, folder: Path, settings: Export = SETTINGS) -> Manifest:
    """Run the stage on what was exported of a trained recogniser."""
    output = folder / "smoke.json"
    stage.run(
        export=to_json(settings),
        exported=write_manifest(folder / "export.json", exported),
        model=write_manifest(folder / "train.json", trained),
        run_tag="r1",
        output=str(output),
    )
    return read_manifest(output)


def failure(exported: Manifest, trained: Manifest, folder: Path) -> str:
    """Return what the stage says where it fails."""
    with pytest.raises(SystemExit):
        smoke(exported, trained, folder)
    return str(json.loads((folder / "error.json").read_text())["error"])
