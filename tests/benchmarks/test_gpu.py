import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from wordmill.recipe.loading import load_recipe
from wordmill.training.trainer import STATISTICS

ROOT = Path(__file__).resolve().parents[2]
TINY = gpu.Size(device="cpu", peak_tflops=1.0, steps=1, most=2, seconds=1.0)


def test_recipes_are_measured_on_pictures_that_lie_ready() -> None:
    for name in gpu.BATCHES:
        recipe = gpu.bare(name)
        assert (recipe.train.framework, recipe.train.augment, recipe.data.stored) == ("pytorch", "none", "decoded")


def test_the_small_recogniser_learns_from_streamed_pictures_until_it_is_told_to_stop(tmp_path: Path) -> None:
    job = gpu.small_job(TINY, tmp_path)
    assert job.rendered.startswith("synth://words?")
    assert (job.data.streamed, job.train_sets, job.train.global_batch) == (True, (), 2)
    assert job.train.epochs == gpu.EPOCHS


def test_weights_are_taken_out_of_a_checkpoint_with_the_mean_of_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    class Predictor:
        def __init__(self, checkpoint: object, device: str) -> None:
            seen.update(checkpoint.tensors)
            self.codec = gpu.codec_of(checkpoint.model, checkpoint.data)

        def read(self, images: np.ndarray) -> tuple[list[str], None]:
            assert images.shape == (2, 32, 100, 1)
            return ["nothing", "nothing"], None

    job = gpu.small_job(TINY, tmp_path)
    monkeypatch.setattr(gpu, "MEASURED", 2)
    monkeypatch.setattr(gpu, "twin", lambda *_: type("module", (), {"Predictor": Predictor}))
    one, two = np.float32([1, 2]), np.float32([[1, 2], [3, 6]])
    tensors = {"model/head.bias": one, f"{STATISTICS}bn.running_mean": two, "optimizer/exp_avg/head.bias": one}
    assert gpu.accuracy(tensors, job, "cpu") == 0
    assert {name: array.tolist() for name, array in seen.items()} == {"head.bias": [1, 2], "bn.running_mean": [2, 4]}


def test_what_fails_is_told_and_the_rest_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = gpu.attempt("one", lambda: [gpu.alone("one", 2.0, "steps")])
    rows += gpu.attempt("other", lambda: [gpu.alone("other", 1 / 0, "steps")])
    assert [(row["name"], row["value"]) for row in rows] == [("one", 2.0), ("other, failed", 1.0)]
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_does_every_line_on_a_cpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == 5 * len(gpu.BATCHES) + 5
    named = {row["name"].partition(", ")[2]: row["value"] for row in rows[-5:]}
    assert named["streamed, went on from step"] > 0
    assert named["streamed, steps in all"] > named["streamed, went on from step"]
    assert all(row["met"] for row in rows if "logits" in row["name"])


def test_the_sizes_of_a_dry_run_are_those_of_no_measurement() -> None:
    assert dataclasses.asdict(TINY)["most"] < min(gpu.BATCHES.values())
    assert load_recipe(gpu.recipe_path(gpu.SMALL)).model.name == "crnn"
