"""A trained recogniser in the store, as the stages after training find it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.wordmill.training.tiny import write_set
from wordmill.models.checkpoint import Checkpoint, save
from wordmill.models.pt.model import build
from wordmill.models.pt.predict import Predictor
from wordmill.models.pt.weights import dump
from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards.index import INDEX
from wordmill.store.artifacts import Manifest, to_document
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store, hash_file
from wordmill.text.charset import charset_of
from wordmill.text.decoding import codec_of

DATA = Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=1)
MODEL = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
TRAIN = Train(framework="pytorch", epochs=1, global_batch=16, loss="ctc_by_length", optimizer="adamw", lr=1e-3,
              warmup_epochs=0.0, weight_decay=0.0, amp="O0", seed=1)  # fmt: skip


READ: dict[tuple[str, int], NDArray[np.float32]] = {}  # logits by the digest of weights and how many pictures they read
GAINS = {"crnn": {2: 10, 4: 2}, "rare": {2: 4, 4: 2}}  # of matrices and convolutions


@cache
def lively(seed: int, model: Model = MODEL) -> Checkpoint:
    """Weights that do not read every picture as the same."""
    torch.manual_seed(seed)
    tensors = dump(build(model, DATA, codec_of(model, DATA).classes))
    tensors = {name: values * np.float32(GAINS[model.name].get(values.ndim, 1)) for name, values in tensors.items()}
    return Checkpoint(tensors=tensors, data=DATA, model=model, train=TRAIN, step=1)


@cache
def _writing(seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    tensors = dump(build(MODEL, DATA, codec_of(MODEL, DATA).classes))
    tensors["head.weight"] *= 20
    return Checkpoint(tensors=tensors, data=DATA, model=MODEL, train=TRAIN, step=1)


def put_trained(store: Store, seed: int) -> Manifest:
    """Store weights that write some text, and their logits of 64 random pictures."""
    return put_checkpoint(store, _writing(seed), 64)


def put_checkpoint(store: Store, saved: Checkpoint, pictures: int) -> Manifest:
    """Store weights and their logits of so many random pictures."""

    def make(folder: Path) -> StageResult:
        save(folder / "model.safetensors", saved)
        images = np.random.default_rng(0).integers(0, 256, (pictures, 32, 100, 1), dtype=np.uint8)
        of = hash_file(folder / "model.safetensors"), pictures
        READ[of] = READ[of] if of in READ else Predictor(saved, "cpu")(images)
        np.savez(folder / "reference.npz", images=images, logits=READ[of])
        return StageResult(
            files={path.name: path for path in sorted(folder.iterdir())}, facts={"val_sets": [validation]}
        )

    validation = put_validation(store)
    inputs = {"symbols": charset_of(DATA).symbols, "val_sets": [validation], "pictures": pictures,
              "weights": float(sum(np.abs(values).sum() for values in saved.tensors.values()))}  # fmt: skip
    return find_or_make(store, "train", "crnn", inputs, make)[0]


def put_validation(store: Store) -> str:
    """Store a packed validation set of 20 pictures and return its manifest's reference."""

    def make(folder: Path) -> StageResult:
        index = write_set(folder / "val.shard", 20)
        return StageResult(files={"val.shard": folder / "val.shard", INDEX: index}, facts={})

    return find_or_make(store, "shard", "b", {}, make)[0].reference


def write_manifest(path: Path, manifest: Manifest) -> str:
    path.write_text(json.dumps(to_document(manifest)), encoding="utf-8")
    return str(path)
