"""Training in this process, for tests that kill it: `python -m tests.crashed_training FRAMEWORK FOLDER POINT`.

FOLDER has the manifest of two sets, shards.json, and gets that of the trained recogniser, out/manifest.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.train import attempts, mirror, stage
from tests.crashes import counted
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Train
from wordmill.training.job import Job, write_job
from wordmill.training.loop import Loop
from wordmill.training.state import Saver


def train(folder: Path, section: Train) -> None:
    """Run the stage."""
    stage.run(
        recipe="tiny", data=to_json(DATA), model=to_json(MODEL), train=to_json(section), device="cpu", processes=1,
        shards=str(folder / "shards.json"), gang="", run_tag="r", output=str(folder / "out" / "manifest"),
    )  # fmt: skip


def train_here(patch: pytest.MonkeyPatch, trainer: Callable[[Job], Any]) -> None:
    """Have the stage train in its own process, with a checkpoint of every step that the store gets soon."""

    def run(job: Job, look: Callable[[], None], *_: object) -> None:
        write_job(job.folder / "job.json", job)
        Loop(trainer(job)).run()
        look()

    patch.setattr(Saver, "due", lambda saver: True)
    patch.setattr(mirror, "LOOK_EVERY_S", 0.005)
    patch.setattr(attempts, "run_workers", run)


def trainer_of(framework: str) -> Callable[[Job], Any]:
    if framework == "pytorch":
        import torch

        from wordmill.training.pt.train import Trainer

        return lambda job: Trainer(job, torch.device("cpu"), 0)
    from wordmill.models.ms.predict import open_device
    from wordmill.training.ms.train import Trainer as MindSporeTrainer

    open_device("cpu")
    return lambda job: MindSporeTrainer(job, 0)


if __name__ == "__main__":
    framework, place, point = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    train_here(pytest.MonkeyPatch(), trainer_of(framework))
    counted(lambda: train(place, dataclasses.replace(TRAIN, framework=framework)), place, point)
