"""What is collected of a training that kept several of its best weights and ended early."""

import dataclasses
import json
from pathlib import Path

import pytest

from components.train.outcome import collect
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.training.job import Job


@pytest.mark.parametrize("early", [True, False])
def test_the_best_few_weights_are_results_and_an_early_end_is_said(
    early: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = [{"step": step, "accuracy": 0.5, "loss": 1.0} for step in (1200, 800, 900)]
    outcome = {"val_accuracy": 0.5, "images_per_s": 9.0, "attempts": [], "steps": 2000, "best": best,
               "stopped_early": early}  # fmt: skip
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    (tmp_path / "metrics.jsonl").touch()
    train = dataclasses.replace(TRAIN, patience=4, keep_best=3, choose_by="loss")
    job = Job(data=DATA, model=MODEL, train=train, train_sets=(), val_sets=(), start=None, device="cpu", processes=1,
              folder=tmp_path)  # fmt: skip
    files = collect(job).files
    assert {name: path.name for name, path in files.items() if "afetensors" in path.name} == {
        "model.safetensors": "best.safetensors", "last.safetensors": "last.safetensors",
        "best-2.safetensors": "best-2.safetensors", "best-3.safetensors": "best-3.safetensors",
    }  # fmt: skip
    told = ("train: ended after step 2,000: 4 validations in a row found no better weights than those of step 1,200, "
            "by loss\n")  # fmt: skip
    assert capsys.readouterr().out == (told if early else "")
