"""A trained recogniser in the store, as the stages after training find it."""

import json
from pathlib import Path

import numpy as np
import torch

from components.recognition.artifacts import Manifest, to_document
from components.recognition.checkpoint import Checkpoint, save
from components.recognition.decoding import codec_of
from components.recognition.pt.model import build
from components.recognition.pt.predict import Predictor
from components.recognition.pt.weights import dump
from components.recognition.recipe import Data, Model, Train
from components.recognition.stages import Made, find_or_make
from components.recognition.storage import Store

DATA = Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=1)
MODEL = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
TRAIN = Train(framework="pytorch", epochs=1, global_batch=16, loss="ctc_by_length", optimizer="adamw", lr=1e-3,
              warmup_epochs=0.0, weight_decay=0.0, amp="O0", seed=1)  # fmt: skip


def put_trained(store: Store, seed: int) -> Manifest:
    """Store weights that write some text, and their logits of 64 random pictures."""

    def make(folder: Path) -> Made:
        torch.manual_seed(seed)
        tensors = dump(build(MODEL, DATA, codec_of(MODEL, DATA).classes))
        tensors["head.weight"] *= 20
        state = Checkpoint(tensors=tensors, data=DATA, model=MODEL, train=TRAIN, step=1)
        save(folder / "model.safetensors", state)
        images = np.random.default_rng(0).integers(0, 256, (64, 32, 100, 1), dtype=np.uint8)
        np.savez(folder / "reference.npz", images=images, logits=Predictor(state, "cpu")(images))
        return Made(files={path.name: path for path in sorted(folder.iterdir())}, facts={})

    return find_or_make(store, "train", "crnn", {"seed": seed}, make)[0]


def write_manifest(path: Path, manifest: Manifest) -> str:
    path.write_text(json.dumps(to_document(manifest)), encoding="utf-8")
    return str(path)
