from pathlib import Path

import numpy as np
import pytest

from components.recognition.checkpoint import Checkpoint
from components.recognition.image import normalise
from components.recognition.ms.export import export_mindir
from components.recognition.ms.model import build
from components.recognition.ms.predict import Predictor
from components.recognition.ms.runtime import MindirRuntime
from components.recognition.ms.weights import dump
from tests.recognition.ms import COMPACT, DATA, TRAIN


def make_checkpoint() -> Checkpoint:
    rng = np.random.default_rng(4)
    tensors = dump(build(COMPACT, DATA[1], 37))
    for name in tensors:
        if ".running_" in name:  # fresh ones are 0 and 1, which an export might lose unnoticed
            tensors[name] = rng.uniform(0.5, 1.5, tensors[name].shape).astype(np.float32)
    return Checkpoint(tensors=tensors, data=DATA[1], model=COMPACT, train=TRAIN, step=0)


def test_a_mindir_file_gives_the_recognisers_logits_for_any_batch(tmp_path: Path) -> None:
    checkpoint, path = make_checkpoint(), tmp_path / "model.mindir"
    export_mindir(checkpoint, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.mindir"]
    runtime, predictor = MindirRuntime(path), Predictor(checkpoint, "cpu")
    for batch in (1, 7):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 32, 100, 1), dtype=np.uint8)
        assert np.abs(runtime(normalise(images, 127.5)) - predictor(images)).max() < 1e-5


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.mindir"
    export_mindir(make_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"model\.mindir: not a readable MindIR file"):
        MindirRuntime(path)
