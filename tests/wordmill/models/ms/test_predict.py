import os
import subprocess
import sys

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms import predict
from wordmill.models.ms.model import build
from wordmill.models.ms.predict import Predictor, open_device
from wordmill.models.ms.weights import dump


def test_rows_do_not_depend_on_the_size_of_their_batch() -> None:
    tensors = dump(build(COMPACT, DATA[1], 37))
    predictor = Predictor(Checkpoint(tensors=tensors, data=DATA[1], model=COMPACT, train=TRAIN, step=0), "cpu")
    images = np.random.default_rng(3).integers(0, 256, (5, 32, 100, 1), dtype=np.uint8)
    logits = predictor(images)
    assert logits.shape == (5, 25, 37)
    assert logits.dtype == np.float32
    assert np.ptp(logits, axis=0).max() > 1e-4
    for row in range(5):
        assert np.abs(predictor(images[row : row + 1])[0] - logits[row]).max() < 1e-5


def test_half_precision_is_near_where_the_recipe_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = dump(build(COMPACT, DATA[1], 37))
    checkpoint = Checkpoint(tensors=tensors, data=DATA[1], model=COMPACT, train=TRAIN, step=0)
    images = np.random.default_rng(3).integers(0, 256, (5, 32, 100, 1), dtype=np.uint8)
    whole = Predictor(checkpoint, "cpu", "O2")
    assert whole.precision.startswith("float32: MindSpore")
    monkeypatch.setattr(predict, "choose_precision", lambda amp, device: (True, f"{amp} on {device}"))
    half = Predictor(checkpoint, "cpu", "O2")
    assert half.precision == "O2 on cpu"
    difference = np.abs(half(images) - whole(images)).max()
    assert 1e-6 < difference < 0.02


@pytest.mark.parametrize("device", ["npu", "cuda"])
def test_a_device_that_is_not_there_is_an_error_of_the_environment(device: str) -> None:
    with pytest.raises(RuntimeError, match=f"device '{device}': MindSpore"):
        open_device(device)


def test_a_device_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="device 'tpu': expected one of cpu, cuda, npu"):
        open_device("tpu")


@pytest.mark.parametrize(("implementation", "fits"), [("upb", False), ("python", True)])
def test_behind_protobufs_c_implementation_the_package_says_what_to_set(implementation: str, fits: bool) -> None:
    code = "import google.protobuf.descriptor, wordmill.models.ms"
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == fits
    assert ("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python" in done.stderr) != fits
