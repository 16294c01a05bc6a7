from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, write_set
from wordmill.shards.loader import ordered_batches
from wordmill.text.decoding import codec_of
from wordmill.training.context import training_set
from wordmill.training.job import Job

LABELS = ("a", "be", "cat", "door")


def test_samples_that_are_left_out_and_labels_that_do_not_fit_are_not_learnt(tmp_path: Path) -> None:
    sets = tuple(write_set(tmp_path / name, 4, LABELS) for name in ("one", "two"))
    job = Job(data=DATA, model=MODEL, train=TRAIN, train_sets=sets, val_sets=(), start=None, device="cpu",
              processes=1, folder=tmp_path)  # fmt: skip
    for path, numbers in (("0.npy", [1, 3]), ("1.npy", [0])):
        np.save(tmp_path / path, np.array(numbers, dtype=np.int64))
    codec = codec_of(MODEL, DATA)

    def learnt(job: Job) -> tuple[list[str], int]:
        kept, unfit = training_set(job, codec, 3)  # door needs five steps
        return [label for batch in ordered_batches(kept, 8) for label in batch.labels], unfit

    assert learnt(job) == (["a", "be", "cat", "a", "be", "cat"], 2)
    left_out = replace(job, left_out=(tmp_path / "0.npy", tmp_path / "1.npy"))
    assert learnt(left_out) == (["a", "cat", "be", "cat"], 2)
